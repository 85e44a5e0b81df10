"""Kernels older than the device: published speeds, laws, and a run of 2023."""

from statistics import median

import pytest
from kinds import KINDS_OF_DEVICES
from looped import each

from roofcast import hwdb, predict
from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.fits import ages
from roofcast.simulator.software import kernels, stack

SPEEDS = ages.rows()
# karpathy/nanoGPT issue 110, 2023-02-02: GPT-2 124M, vocabulary 50257, 5 micro-steps of 12 x 1024
NANOGPT = {
    "model": "gpt2", "device": "a100-sxm4-40gb", "devices": 8, "batch": 480, "micro_batch": 12,
    "sequence": 1024, "precision": "amp-bf16",
}  # fmt: skip
NANOGPT_S = 0.562


def profile(path, **kernels):
    lines = [f'{kind} = "{name}"' for kind, name in kernels.items()]
    head = 'name = "mine"\nabout = "mine"\nsource = "a test"\nlike = "pytorch-eager"\n[kernels]\n'
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@each("device", [name for name in KINDS_OF_DEVICES if "bf16" in hwdb.device(name).peak_flops])
def test_a_matrix_unit_that_is_far_faster_never_makes_a_transformer_slower(device):
    """An early kernel's share of a peak is that of the peak as built (boards with GDDR memory)."""
    asked = {"model": "gpt2", "device": device, "batch": 8, "mode": "infer", "precision": "bf16"}
    times = [
        predict(**asked, set=change).step_time_s
        for change in ({}, *({"peak_flops.bf16": f"x{factor}"} for factor in (2, 30, 1000)))
    ]
    assert all(b <= a * (1 + 1e-9) for a, b in zip(times, times[1:], strict=False)), times


@pytest.mark.parametrize(("device", "most"), [("a100-sxm4-80gb", 3.0), ("h100-sxm5", 8.0)])
def test_flash_attention_2_meets_the_published_speeds(device, most):
    """Dao 2023, Fig. 4 and 7. The rate is fitted on A100; on H100 nothing is fitted."""
    rows = [s for s in SPEEDS if (s.device, s.kernel) == (device, "flash-2")]
    errors = [100 * abs(ages.forecast(s) / s.flops - 1.0) for s in rows]
    assert len(rows) >= 12 and median(errors) < most


def test_rates_are_those_of_the_fit():
    for name, rate in ages.fitted(SPEEDS).items():
        assert kernels.attention_kernel(name).rates["ampere"] == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize("device", ["h100-sxm5", "h200-sxm", "b200-sxm"])
def test_an_older_attention_kernel_is_slower_on_a_later_generation(device, tmp_path):
    asked = {"model": "llama-3-8b", "device": device, "batch": 1, "sequence": 32768}
    asked |= {"precision": "bf16", "mode": "infer"}
    times = [
        predict(**asked, stack=profile(tmp_path / f"{name}.toml", attention=name)).step_time_s
        for name in ("flash-1", "flash-2", "sdpa-2026")
    ]
    assert times == sorted(times, reverse=True) and times[0] > 1.2 * times[-1]


def test_an_older_kernel_on_a_later_device_is_said_under_assumed(tmp_path):
    asked = {"model": "llama-3-8b", "batch": 1, "sequence": 4096, "precision": "bf16"}
    mine = profile(tmp_path / "mine.toml", attention="flash-2")
    on = {name: predict(**asked, device=name, stack=mine).assumptions for name in ("h100", "a100")}
    assert any("attention flash-2 runs at the rate per core of ampere" in a for a in on["h100"])
    assert not any("flash-2" in a for a in on["a100"])


@pytest.mark.parametrize("name", ["flash-9", "flash2"])
def test_an_unknown_kernel_of_a_profile_is_rejected_in_one_line(name, tmp_path):
    with pytest.raises(BadInput, match="kernels.attention: no attention kernel") as error:
        stack.stack(profile(tmp_path / "mine.toml", attention=name))
    assert "\n" not in str(error.value)


def test_an_unknown_kind_of_kernel_is_rejected(tmp_path):
    with pytest.raises(BadInput, match=r"kernels\.products: known kinds: attention"):
        stack.stack(profile(tmp_path / "mine.toml", products="cublas-12"))


def test_every_kernel_has_rates_of_known_generations():
    table = kernels.table()
    for kernel in (*table.attention.values(), *table.products.values()):
        assert kernel.rates and set(kernel.rates) <= set(table.generations)
        assert all(0.0 < rate < 1.5 for rate in kernel.rates.values())


def test_nanogpt_of_2023_takes_as_long_as_was_measured():
    assert predict(**NANOGPT, stack="pytorch-compiled-2023").step_time_s == pytest.approx(
        NANOGPT_S, rel=0.05
    )


def test_an_odd_vocabulary_costs_nanogpt_a_quarter(tmp_path):
    """Karpathy, 2023-02-03: padding the vocabulary from 50257 to 50304 was about 25 % faster."""
    padded = tmp_path / "padded.toml"
    padded.write_text(
        'name = "padded"\nabout = "mine"\nsource = "a test"\nlike = "pytorch-compiled-2023"\n'
        "padding = true\n",
        encoding="utf-8",
    )
    odd = predict(**NANOGPT, stack="pytorch-compiled-2023").step_time_s
    assert odd / predict(**NANOGPT, stack=str(padded)).step_time_s == pytest.approx(1.25, abs=0.05)


@pytest.mark.parametrize(
    ("device", "precision", "slower"),
    [("a100-sxm4-40gb", "bf16", True), ("v100-sxm2-16gb", "fp16", False), ("a100", "fp32", False)],
)
def test_odd_rows_are_slow_where_copies_are_asynchronous_and_formats_have_16_bits(
    device, precision, slower, tmp_path
):
    def time(features):
        net = tmp_path / f"{features}.toml"
        net.write_text(
            'name = "net"\ninput = [4096]\n'
            f'layers = [{{kind = "linear", out = {features}}},'
            ' {kind = "linear", out = 4096}]\n',
            encoding="utf-8",
        )
        asked = {"model": str(net), "device": device, "batch": 4096, "precision": precision}
        return predict(**asked, stack="pytorch-eager").step_time_s

    ratio = time(16385) / time(16384)
    assert ratio > 1.5 if slower else ratio < 1.1
