"""Inference in fewer bits: forecast ratios of speed beside published ones."""

from pathlib import Path
from statistics import fmean, median

import pytest

from roofcast import predict
from roofcast.scenarios.measured import ratios

PAIRS = ratios.pairs()
DOCUMENT = Path(__file__).parents[2] / "docs" / "formats.md"
BAND = 0.32  # largest error of a ratio that the document states


@pytest.fixture(scope="module")
def errors():
    """Forecast over published ratio, less one, of every row without a stated reason."""
    return {p.id: ratios.forecast_ratio(p)[0] / p.published - 1 for p in PAIRS if not p.outside}


@pytest.mark.parametrize("pair", [p for p in PAIRS if not p.outside], ids=lambda p: p.id)
def test_a_forecast_ratio_lies_within_the_stated_band_of_the_published_one(pair, errors):
    assert abs(errors[pair.id]) <= BAND


def test_forecast_ratios_are_right_on_average(errors):
    assert len(errors) >= 30
    assert abs(fmean(errors.values())) <= 0.05
    assert median(map(abs, errors.values())) <= 0.15


@pytest.mark.parametrize("device", ["t4", "l4", "a100-sxm4-80gb", "h100-sxm5", "h100-pcie"])
@pytest.mark.parametrize("model", ["resnet50", "vgg16", "mobilenetv2_100", "inception_v3"])
def test_convnets_in_int8_are_about_twice_as_fast_as_in_fp16(device, model):
    int8, fp16 = (
        predict(
            model=model, device=device, mode="infer", batch=256, stack="nvidia-tuned", precision=p
        ).samples_per_s
        for p in ("int8", "fp16")
    )
    assert 1.6 <= int8 / fp16 <= 2.1


# published images/s of ResNet-50 by engines that fuse as TensorRT does: MLPerf Inference v0.5 and
# v1.0 of NVIDIA, Offline, per device; AITemplate@44026ba7, examples/01_resnet-50
RATES = [
    ("t4", "int8", 128, 5622),
    ("a100-sxm4-80gb", "int8", 128, 38110),
    ("a100-sxm4-40gb", "fp16", 128, 14936),
    ("a100-sxm4-40gb", "fp16", 256, 15445),
]


@pytest.mark.parametrize(("device", "precision", "batch", "published"), RATES)
def test_rates_of_resnet50_are_within_a_fifth_of_published_ones(
    device, precision, batch, published
):
    found = predict(
        model="resnet50", device=device, mode="infer", batch=batch, stack="nvidia-tuned",
        precision=precision,
    )  # fmt: skip
    assert found.samples_per_s == pytest.approx(published, rel=0.2)


def test_resnet50_of_several_images_or_one_core_is_within_a_tenth(errors):
    """What the document says of int8 ResNet-50, image by image of many instances set aside."""
    several = [k for k in errors if "resnet50" in k]
    assert len(several) == 6
    assert max(abs(errors[k]) for k in several) <= 0.10


@pytest.mark.parametrize("device", ["t4", "l4", "a100-sxm4-40gb", "a100-sxm4-80gb", "h100-sxm5"])
def test_resnet50_in_int8_is_twice_as_fast_as_in_fp16_to_a_tenth(device):
    int8, fp16 = (
        predict(
            model="resnet50", device=device, mode="infer", batch=128, stack="nvidia-tuned",
            precision=p,
        ).step_time_s
        for p in ("int8", "fp16")
    )  # fmt: skip
    assert 1.8 <= fp16 / int8 <= 2.2


def test_the_document_holds_the_table_that_the_command_writes():
    assert ratios.table() in DOCUMENT.read_text(encoding="utf-8")


def test_every_source_of_a_ratio_is_spelled_out_in_the_table_and_in_the_document():
    head = ratios.TABLE.read_text(encoding="utf-8")
    for source in {p.source for p in PAIRS}:
        assert f"# {source}: " in head
        assert f"`{source}`" in DOCUMENT.read_text(encoding="utf-8")
