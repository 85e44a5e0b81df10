"""Placement of labels so that none covers another: along a line, and in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def spread(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Centres of labels along a line: no overlap, all in [low, high], as near as possible to
    `wanted` (least squares).

    Neighbours that would overlap are merged into a block at the mean of their wanted places (pool
    adjacent violators). Labels that are together longer than [low, high] are packed evenly over it.

    >>> spread([1.0, 1.0, 5.0], [1.0, 1.0, 1.0], 0.0, 10.0)
    [0.5, 1.5, 5.0]
    """
    if not wanted:
        return []
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    sized = [sizes[i] for i in order]
    total = sum(sized)
    shrink = min(1.0, (high - low) / total) if total else 1.0
    # start of each label if all are packed from zero
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
    """Area that a box (x0, y0, x1, y1) shares with each of the boxes [n x 4]."""
    if not len(boxes):
        return np.zeros(0)
    width = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    height = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


_UNPLACED = 3000.0  # cost of leaving a label out, and so the highest cost of a place


class _Spot(NamedTuple):
    """A place for a label: its centre, its box, the end of its leader line, its distance [px]."""

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
    """A centre for each label near its anchor; None if there is no free place.

    Labels lie in `room`, never over `fixed` boxes or each other, and avoid markers and lines.
    All in pixels: anchors [n x 2] with the radii of their markers; sizes [n x 2]; fixed and markers
    are boxes [* x 4]; lines are points along drawn lines [* x 2].

    Each label takes the cheapest place on rings around its anchor, where distance, covered markers
    and lines and crossed leader lines cost. This is repeated a few times, in several orders of the
    labels, and the cheapest result is kept.
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
    settled = (_settle(order, anchors, choices) for order in orders)
    _, best = min(settled, key=lambda pair: pair[0])
    return [None if spot is None else spot.centre for spot in best]


def _settle(
    order: Sequence[int], anchors: np.ndarray, choices: list[list[tuple[float, _Spot]]]
) -> tuple[float, list[_Spot | None]]:
    """Total cost and places, after each label in turn took its cheapest place until none moved."""
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
    anchor: np.ndarray,
    radius: float,
    size: np.ndarray,
    spot: _Spot,
    fixed: np.ndarray,
    markers: np.ndarray,
    lines: np.ndarray,
) -> float:
    """Cost of a place, whatever the other labels do."""
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
    """The point of a box that is nearest to another point: there its leader line starts."""
    return np.array([np.clip(point[0], box[0], box[2]), np.clip(point[1], box[1], box[3])])


def _cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether segments ab and cd cross."""

    def side(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def _steps(a: np.ndarray, b: np.ndarray, skip: float) -> np.ndarray:
    """Points every six pixels or so on segment ab, beyond its first `skip` pixels."""
    length = np.hypot(*(b - a))
    if length <= skip:
        return np.zeros((0, 2))
    return a + np.linspace(skip / length, 1, int((length - skip) / 6) + 2)[:-1, None] * (b - a)


def _passes(a: np.ndarray, b: np.ndarray, boxes: np.ndarray, skip: float) -> int:
    """Number of boxes that segment ab passes through, beyond its first `skip` pixels."""
    steps = _steps(a, b, skip)
    x, y = steps[:, :1], steps[:, 1:]
    return int(
        ((x > boxes[:, 0]) & (x < boxes[:, 2]) & (y > boxes[:, 1]) & (y < boxes[:, 3]))
        .any(axis=0)
        .sum()
    )


def _along(a: np.ndarray, b: np.ndarray, lines: np.ndarray, skip: float) -> int:
    """Number of steps of segment ab that lie on a drawn line."""
    steps = _steps(a, b, skip)
    near = np.abs(steps[:, None, :] - lines[None, :, :]).max(axis=2) < 4
    return int(near.any(axis=1).sum())
