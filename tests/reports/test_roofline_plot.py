"""The roofline picture: files in three formats, every roof named, no label over another."""

import functools
import itertools

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from looped import each
from matplotlib.text import Annotation, Text

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput
from roofcast.reports.command import main
from roofcast.reports.format import si
from roofcast.reports.pictures.labels import spread
from roofcast.reports.pictures.roofline import draw
from roofcast.reports.pictures.roofs import machine, ridge
from roofcast.reports.pictures.style import save

PICTURES = {
    "llama on h100": (["h100-sxm5"], {}),
    "llama on rtx-3090": (["rtx-3090"], dict(sequence=2048)),
    "overlay": (["h100-sxm5", "rtx-3090"], {}),
    "tiny": (["h100-sxm5"], dict(batch=1, sequence=8, layers=1)),
    "nothing but roofs": (["h100-sxm5"], dict(points=())),
}


@pytest.fixture(scope="module")
def drawn(step, machines):
    """A function that draws one of the pictures."""

    def anew(name):
        devices, asked = PICTURES[name]
        return draw(
            [step(device, **asked) for device in devices], [machines[device] for device in devices]
        )

    return anew


@pytest.fixture(scope="module")
def picture(drawn):
    """A function that gives one of the pictures, drawn once."""
    return functools.cache(drawn)


@pytest.fixture(scope="module")
def twins(drawn):
    """The same picture drawn twice."""
    return [drawn("overlay") for _ in range(2)]


@pytest.fixture(scope="module", params=PICTURES)
def figure(request, picture):
    return picture(request.param)


def boxes(figure):
    """Each visible text with the box it covers [px]."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    hidden = beyond(figure.axes[0].xaxis) + beyond(figure.axes[0].yaxis)
    found = [
        t
        for t in figure.findobj(Text)
        if t.get_text().strip() and t.get_visible() and t not in hidden
    ]
    return [
        (
            t.get_text(),
            (
                Text.get_window_extent(t, renderer)
                if isinstance(t, Annotation)
                else t.get_window_extent(renderer)
            ),
        )
        for t in found
    ]


def beyond(axis):
    """Tick labels beyond the limits of the axis, which matplotlib makes but does not draw."""
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]


def test_no_text_lies_over_another(figure):
    turned = {t.get_text() for t in figure.findobj(Text) if t.get_rotation() % 90}
    straight = [(text, box) for text, box in boxes(figure) if text not in turned]
    for (a, one), (b, other) in itertools.combinations(straight, 2):
        shared = (
            min(one.x1, other.x1) - max(one.x0, other.x0),
            min(one.y1, other.y1) - max(one.y0, other.y0),
        )
        assert min(shared) <= 1, f"{a!r} over {b!r}"


def test_all_text_is_in_the_picture(figure):
    page = figure.bbox
    for text, box in boxes(figure):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1, text


def test_names_of_memory_levels_stand_along_their_lines(figure):
    area = figure.axes[0].get_window_extent()
    turned = [t.get_window_extent() for t in figure.findobj(Text) if t.get_rotation() % 90]
    assert turned and all(
        area.x0 <= box.x0 and box.x1 <= area.x1 and area.y0 <= box.y0 and box.y1 <= area.y1
        for box in turned
    )


def test_every_roof_and_ridge_is_named(picture, machines):
    words = " ".join(text for text, _ in boxes(picture("llama on h100")))
    for roof in machines["h100-sxm5"].roofs:
        assert roof.label in words
    for number in ("10.0", "20.0", "148", "295", "591"):
        assert number in words


def test_phases_differ_in_shape_and_fill_and_not_only_in_colour(picture):
    axes = picture("llama on h100").axes[0]
    kinds = {(len(c.get_paths()[0].vertices), len(c.get_facecolor()) > 0) for c in axes.collections}
    assert len(kinds) == 3


def test_areas_are_shares_of_time(picture, forecast):
    axes = picture("llama on h100").axes[0]
    circles = sorted(
        (c.get_sizes()[0] for c in axes.collections if len(c.get_paths()[0].vertices) > 10),
        reverse=True,
    )
    times = sorted((p.time_s for p in forecast.points if p.phase == "forward"), reverse=True)
    assert circles[0] / circles[4] == pytest.approx(times[0] / times[4])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_same_picture_is_the_same_bytes(twins, tmp_path, suffix):
    for name, twin in zip("ab", twins, strict=True):
        save(twin, tmp_path / (name + suffix))
    one, other = ((tmp_path / (name + suffix)).read_bytes() for name in ("a", "b"))
    assert one == other and len(one) > 5000


def test_an_overlay_labels_ops_of_every_device(picture):
    labels = [t for t in picture("overlay").findobj(Text) if t.get_gid() == "op"]
    assert len({label.get_color() for label in labels}) == 2


def test_the_ridge_of_the_h100_is_295_flop_per_byte():
    found = machine(hwdb.device("h100-sxm5"))
    bf16 = next(roof for roof in found.compute if "bf16" in roof.precisions)
    assert ridge(bf16, found.memory[-1]) == pytest.approx(989.4 / 3.35, rel=1e-3)


@each("name", hwdb.devices())
def test_every_device_has_roofs_or_a_reason(name):
    device = hwdb.device(name)
    try:
        found = machine(device)
    except BadInput:
        assert all(key.startswith("int") for key in device.peak_flops)
        return
    assert found.compute and found.memory[-1].printed == device.memory.bandwidth
    printed = {float(rate) for key, rate in device.peak_flops.items() if not key.startswith("int")}
    assert printed <= {roof.printed for roof in found.compute}


@pytest.mark.parametrize(
    "words",
    [
        ("llama-3-8b", "--on", "h100-sxm5"),
        ("gpt2", "--on", "h100-sxm5", "--on", "rtx-3090", "--batch", "4"),
    ],
    ids=" ".join,
)
def test_the_command_writes_a_picture(tmp_path, words):
    target = tmp_path / "roofline.svg"
    result = CliRunner().invoke(main, ["roofline", *words, "-o", str(target)])
    assert result.exit_code == 0, result.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["roofline.svg"]
    assert words[0] in target.read_text(encoding="utf-8")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.5, 5)), min_size=1, max_size=15))
def test_spread_labels_never_overlap_and_stay_inside(labels):
    wanted, sizes = zip(*labels, strict=True)
    placed = np.array(spread(wanted, sizes, 0.0, 100.0))
    order = np.argsort(placed)
    gaps = np.diff(placed[order]) - (np.array(sizes)[order][:-1] + np.array(sizes)[order][1:]) / 2
    assert (gaps > -1e-9).all()
    assert (placed - np.array(sizes) / 2 > -1e-9).all() and (
        placed + np.array(sizes) / 2 < 100 + 1e-9
    ).all()


def test_dashed_roofs_carry_their_names(step, machines):
    """Every achieved roof has a name with its rate."""
    device = machines["h100-sxm5"]
    figure = draw([step()], [device])
    texts = " | ".join(text.get_text() for text in [*figure.axes[0].texts, *figure.texts])
    achieved = [roof for roof in device.compute if roof.achieved]
    assert achieved and "achieved 2.80 TB/s" in texts
    for roof in achieved:
        assert f"{roof.label} achieved  {si(roof.achieved)}" in texts, roof.label


def test_number_formats_that_differ_stand_with_their_devices(step, machines):
    forecasts = [step(), step("rtx-3090", precision="fp32")]
    figure = draw(forecasts, [machines["h100-sxm5"], machines["rtx-3090"]])
    assert any("rtx-3090 fp32" in text.get_text() for text in figure.texts)
