"""Samples of different lengths: padding, packing, and what a file may hold."""

import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.forecast.lengths import read

LLAMA = {"model": "llama-3.2-1b", "device": "a100-sxm4-80gb", "precision": "bf16", "batch": 4}


@pytest.mark.parametrize(
    "mean, longest", [(1, 1), (100, 100), (30, 4096), (2048, 4096), (4000, 4096)]
)
def test_lengths_have_the_mean_and_the_maximum_that_are_stated(mean, longest):
    found = read(f"{mean},{longest}")
    assert found.mean == pytest.approx(mean, rel=0.01)
    assert found.longest == longest and found.tokens.min() >= 1


def test_lengths_have_the_mean_deviation_and_ends_that_are_stated():
    found = read("3234.4,2547.5,91,19548").tokens
    assert found.mean() == pytest.approx(3234.4, rel=0.01)
    assert found.std() == pytest.approx(2547.5, rel=0.01)
    assert 91 <= found.min() < 100 and found.max() == 19548
    assert read("500,0,1,1000").tokens.std() == 0


@pytest.mark.parametrize("stated", ["500,900,1,1000", "50,10,100,1000", "500,10,1,400"])
def test_lengths_that_cannot_be_are_refused(stated):
    with pytest.raises(BadInput, match="MEAN,DEVIATION,MIN,MAX"):
        read(stated)


def test_samples_that_are_too_long_are_left_out():
    kept = read("3234.4,2547.5,91,19548").up_to(2048)
    assert kept.longest <= 2048 and kept.mean < read("3234.4,2547.5,91,19548").cut(2048).mean
    assert read("500,10,450,550").up_to(10).tokens.size == 1


def test_the_longest_of_more_samples_is_longer():
    found = read("600,2048")
    padded = [found.padded(n) for n in (1, 2, 4, 8, 64, 4096)]
    assert padded == sorted(padded) and padded[0] == pytest.approx(found.mean, rel=1e-9)
    assert padded[-1] <= found.longest


def test_the_longest_of_two_drawn_from_a_file_is_what_counting_gives(tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text("tokens\n10\n20  # a comment\n\n40\n")
    # nine pairs: 10 once, 20 three times, 40 five times
    assert read(str(path)).padded(2) == pytest.approx((10 + 3 * 20 + 5 * 40) / 9)


def test_memory_is_of_the_longest_and_time_of_the_padded_micro_batch():
    varied, longest = predict(**LLAMA, lengths="300,2048"), predict(**LLAMA, sequence=2048)
    assert varied.memory.peak_bytes == longest.memory.peak_bytes
    assert varied.step_time_s < longest.step_time_s
    padded = read("300,2048").padded(4)
    assert varied.padded_share == pytest.approx(1 - 300 / padded, abs=0.01)
    assert varied.tokens_per_s == pytest.approx(4 * 300 / varied.step_time_s, rel=0.01)
    assert any("padding" in text for text in varied.assumptions)


def test_packing_wastes_nothing_and_counts_samples():
    packed, whole = (
        predict(**LLAMA, lengths="300,2048", packing=True),
        predict(**LLAMA, sequence=2048),
    )
    assert packed.step_time_s == whole.step_time_s
    assert packed.tokens_per_s == pytest.approx(whole.tokens_per_s, rel=0.01)
    assert packed.samples_per_s == pytest.approx(whole.samples_per_s * 2048 / 300, rel=0.01)


def test_equal_lengths_are_a_sequence():
    same, whole = predict(**LLAMA, lengths="512,512"), predict(**LLAMA, sequence=512)
    assert same.step_time_s == whole.step_time_s
    assert same.tokens_per_s == pytest.approx(whole.tokens_per_s, rel=1e-9)


def test_a_run_of_samples_has_fewer_steps_when_packed():
    fields = LLAMA | {"lengths": "256,1024", "samples": 1000}
    padded, packed = predict(**fields), predict(**fields, packing=True)
    assert padded.steps == pytest.approx(250, rel=0.01)
    assert packed.steps == pytest.approx(padded.steps / 4, rel=0.03)


@pytest.mark.parametrize(
    "lengths, said",
    [
        ("2048,600", "a mean from 1 to the maximum"),
        ("0,600", "a mean from 1 to the maximum"),
        ("600", "MEAN,MAX"),
        ("a,b", "MEAN,MAX"),
        ("nope.txt", "no such file"),
        ("", "MEAN,MAX"),
    ],
)
def test_lengths_that_cannot_be_are_refused_in_one_line(lengths, said):
    with pytest.raises(BadInput, match=said) as error:
        predict(**LLAMA, lengths=lengths)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, said", [("12\n-3\n", "line 2"), ("1e9999\n", "line 1"), ("\n", "no length")]
)
def test_a_file_that_holds_no_lengths_is_refused(tmp_path, text, said):
    path = tmp_path / "lengths.csv"
    path.write_text(text)
    with pytest.raises(BadInput, match=said):
        read(str(path))


def test_lengths_of_images_and_packing_alone_are_refused():
    for given in ({"lengths": "10,20"}, {"packing": True}, {"lengths": "9,9", "packing": True}):
        with pytest.raises(BadInput, match="resnet50 reads images, which have no lengths"):
            predict("resnet50", "a100", **given)
    with pytest.raises(BadInput, match="give --lengths"):
        predict(**LLAMA, packing=True)
