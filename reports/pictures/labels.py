"""Placing labels so that none covers another: along a line exactly, in the plane by trying places
in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def spread(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Centres as near as can be to the wanted ones (least squares), no two closer than half the sum
    of their sizes, all in [low, high].

    Neighbours that would touch are merged into a block that stands at the mean of what its members
    want (pool adjacent violators). If all together are longer than the room, they are packed evenly
    over it.

    >>> spread([1.0, 1.0, 5.0], [1.0, 1.0, 1.0], 0.0, 10.0)
    [0.5, 1.5, 5.0]
    """
    if not wanted:
        return []
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    sized = [sizes[i] for i in order]
    total = sum(sized)
    shrink = min(1.0, (high - low) / total) if total else 1.0
    # where each starts if all are packed from zero
    offsets = np.cumsum([0.0] + [shrink * s for s in sized])
    starts = [
        wanted[i] - shrink * s / 2 - offset
        for i, s, offset in zip(order, sized, offsets, strict=False)
    ]
    blocks: list[list[float]] = []  # [mean start, members]
    for start in starts:
        blocks.append([start, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, count = blocks.pop()
            blocks[-1] = [
                (blocks[-1][0] * blocks[-1][1] + mean * count) / (blocks[-1][1] + count),
                blocks[-1][1] + count,
            ]
    placed = [
        min(max(mean, low), high - offsets[-1]) for mean, count in blocks for _ in range(int(count))
    ]
    centres = [0.0] * len(wanted)
    for i, start, size, offset in zip(order, placed, sized, offsets, strict=False):
        centres[i] = float(start + offset + shrink * size / 2)
    return centres


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Area that a box (x0, y0, x1, y1) shares with each of many."""
    if not len(boxes):
        return np.zeros(0)
    width = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    height = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


_UNPLACED = 3000.0  # what it costs to leave a label out, and so the most that a place may cost


class _Spot(NamedTuple):
    """Where a label could stand: its centre, its box and where its leader line meets it."""

    centre: np.ndarray
    box: np.ndarray
    end: np.ndarray
    gap: float


def place(
    anchors: np.ndarray,
    radii: Sequence[float],
    sizes: np.ndarray,
    fixed: np.ndarray,
    markers: np.ndarray,
    room: np.ndarray,
    lines: np.ndarray,
) -> list[np.ndarray | None]:
    """A centre for each label near its anchor: inside `room`, off `fixed` boxes and other labels,
    as far as can be off all else.

    Pixels throughout. anchors [n, 2] with the radius of each one's marker; sizes [n, 2]; boxes [*,
    4]; lines [*, 2] are points strewn along drawn lines. Each label takes the cheapest of the
    places on rings around its anchor: distance, covered markers and lines, crossed leaders all
    cost. A few rounds, so that early labels make way for late ones; from several orders, the best
    of which is kept. None where no place is free.
    """
    choices = []
    for anchor, radius, size in zip(anchors, radii, sizes, strict=True):
        spots = _around(anchor, radius, size, fixed, room)
        priced = [
            (_cost_alone(anchor, radius, size, spot, fixed, markers, lines), spot) for spot in spots
        ]
        choices.append(sorted(priced, key=lambda pair: pair[0])[:150])
    across = [int(i) for i in np.argsort(anchors[:, 0])] if len(anchors) else []
    orders = (range(len(anchors)), range(len(anchors))[::-1], across, across[::-1])
    total, spots = min(
        (_settle(order, anchors, choices) for order in orders), key=lambda pair: pair[0]
    )
    return [spot and spot.centre for spot in spots]


def _settle(
    order: Sequence[int], anchors: np.ndarray, choices: list[list[tuple[float, _Spot]]]
) -> tuple[float, list[_Spot | None]]:
    """Each label in turn takes its cheapest place, given the others', until none moves; with what
    all that costs.
    """
    spots: list[_Spot | None] = [None] * len(anchors)
    costs = [0.0] * len(anchors)
    for _ in range(4):
        before = list(spots)
        for i in order:
            others = [
                (anchors[j], spot) for j, spot in enumerate(spots) if spot is not None and j != i
            ]
            boxes = np.array([spot.box for _, spot in others]).reshape(-1, 4)
            best, least = None, _UNPLACED
            for cost, spot in choices[i]:
                if cost >= least:
                    break
                if overlap(spot.box, boxes).any():
                    continue
                cost += 1000 * _passes(anchors[i], spot.end, boxes, 0.0)
                for a, other in others:
                    cost += 200 * _cross(anchors[i], spot.end, a, other.end) + 1000 * _passes(
                        a, other.end, spot.box[None], 0.0
                    )
                if cost < least:
                    best, least = spot, cost
            spots[i], costs[i] = best, least
        if all(a is b for a, b in zip(before, spots, strict=True)):
            break
    return sum(costs), spots


def _around(
    anchor: np.ndarray, radius: float, size: np.ndarray, fixed: np.ndarray, room: np.ndarray
) -> list[_Spot]:
    """Free places on rings around an anchor."""
    spots = []
    for gap in (8, 18, 30, 45, 62, 80, 100, 125, 150, 180, 220, 270):
        for angle in np.deg2rad(np.arange(0, 360, 15)):
            direction = np.array([np.cos(angle), np.sin(angle)]).round(6)
            centre = (
                anchor
                + direction * (radius + gap)
                + np.sign(direction) * np.abs(direction) * size / 2
            )
            box = np.concatenate([centre - size / 2, centre + size / 2])
            if (
                (box[:2] >= room[:2]).all()
                and (box[2:] <= room[2:]).all()
                and not overlap(box, fixed).any()
            ):
                spots.append(_Spot(centre, box, nearest_on(box, anchor), gap))
    return spots


def _cost_alone(
    anchor, radius, size, spot: _Spot, fixed: np.ndarray, markers: np.ndarray, lines: np.ndarray
) -> float:
    """What a place costs whatever the other labels do."""
    inside = (lines > spot.box[:2]).all(axis=1) & (lines < spot.box[2:]).all(axis=1)
    covered = overlap(spot.box, markers)
    cost = (
        0.5 * spot.gap + 4 * covered.sum() / size[1] + 120 * (covered > 0).sum() + 40 * inside.sum()
    )
    cost += 15 * _passes(anchor, spot.end, markers, radius) + 1000 * _passes(
        anchor, spot.end, fixed, 0.0
    )
    return float(cost + 25 * _along(anchor, spot.end, lines, radius))


def nearest_on(box: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The point of a box nearest to another point: where its leader line starts."""
    return np.array([np.clip(point[0], box[0], box[2]), np.clip(point[1], box[1], box[3])])


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether segments ab and cd cross."""

    def side(p, q, r):
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _steps(a: np.ndarray, b: np.ndarray, skip: float) -> np.ndarray:
    """Points every six pixels or so on segment ab, beyond its first `skip` pixels."""
    length = np.hypot(*(b - a))
    if length <= skip:
        return np.zeros((0, 2))
    return a + np.linspace(skip / length, 1, int((length - skip) / 6) + 2)[:-1, None] * (b - a)


def _passes(a: np.ndarray, b: np.ndarray, boxes: np.ndarray, skip: float) -> int:
    """How many of the boxes segment ab passes through."""
    steps = _steps(a, b, skip)
    x, y = steps[:, :1], steps[:, 1:]
    return int(
        ((x > boxes[:, 0]) & (x < boxes[:, 2]) & (y > boxes[:, 1]) & (y < boxes[:, 3]))
        .any(axis=0)
        .sum()
    )


def _along(a: np.ndarray, b: np.ndarray, lines: np.ndarray, skip: float) -> int:
    """How much of segment ab, in steps, lies on a drawn line."""
    steps = _steps(a, b, skip)
    near = np.abs(steps[:, None, :] - lines[None, :, :]).max(axis=2) < 4
    return int(near.any(axis=1).sum())
