"""Rows of measured servers whose prompts have devices of their own."""

import pytest

from roofcast.scenarios.measured.serving.forecasts import score

ROW = {
    "model": "meta-llama/Llama-3.1-8B", "device": "H100-SXM-80GB", "engine": "vllm",
    "engine_version": "0.12", "source_name": "a test", "n_devices": "4", "tp": "1",
    "w_prec": "bf16", "phase": "e2e", "mode": "disagg", "load_kind": "concurrency", "load": "64",
    "input_len": "1024", "output_len": "256",
}  # fmt: skip


def found(**more):
    scored = score(ROW | more)
    assert not scored.refused, scored.refused
    return scored


def test_a_row_that_deals_its_devices_out_is_taken_as_it_says():
    one = found(prefill_devices="1", decode_devices="3").predicted
    two = found(prefill_devices="3", decode_devices="1").predicted
    assert one.tpot_s < two.tpot_s  # more devices decode
    assert one.prefill_tokens_per_s == pytest.approx(two.prefill_tokens_per_s / 3)
    same = [found(notes="1P3D"), found(decode_devices="3"), found(prefill_devices="1")]
    assert all(each.predicted == one and not each.taken for each in same)
    wide = found(prefill_devices="1", decode_devices="2", decode_tp="2").predicted
    # half of the weights, but half of the cache of all users instead of that of a third of them
    assert 0.5 * one.peak_mem_gib < wide.peak_mem_gib < 0.8 * one.peak_mem_gib


def test_a_row_that_does_not_is_dealt_so_that_it_serves_the_most():
    taken = found()
    assert taken.taken == ("1 of 4 devices for prefill",)
    every = [
        found(prefill_devices=str(n), decode_devices=str(4 - n)).predicted.output_tokens_per_s
        for n in (1, 2, 3)
    ]
    assert taken.predicted.output_tokens_per_s == pytest.approx(max(every))
    alone = found(n_devices="1").taken
    assert alone == ("1 devices for prefill, 1 for decode",)


@pytest.mark.parametrize("kind", [{"load_kind": "request_rate", "load": "5"},
                                  {"load_kind": "offline_max", "load": ""},
                                  {"load_kind": "batch", "load": "8"}], ids=str)  # fmt: skip
def test_every_load_is_answered(kind):
    p = found(**kind).predicted
    assert p.ttft_s > 0 and p.tpot_s > 0 and p.output_tokens_per_s > 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"prefill_devices": "1", "decode_devices": "3", "decode_tp": "2"}, "decode_devices 3"),
        ({"prefill_devices": "many"}, "prefill_devices"),
        ({"load_kind": "request_rate", "load": "5000"}, "can serve"),
    ],
    ids=str,
)
def test_a_row_that_cannot_be_says_why(wrong, says):
    assert says in score(ROW | wrong).refused
