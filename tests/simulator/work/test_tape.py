"""The tape: what is counted once, what is multiplied, and what autograd keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape


def kept(tape):
    return sum(s.bytes * s.count for s in tape.saved.values())


def work(tape):
    flops = sum(k.matrix * k.count for k in tape.kernels)
    return flops, sum((k.read + k.written) * k.count for k in tape.kernels)


def silu_gated(t, x):
    up, gate = linear.linear(t, x, 8), linear.linear(t, x, 8)
    return pointwise.add(t, x, pointwise.mul(t, up, pointwise.unary(t, "silu", gate)))


BODIES = {
    "pre-norm residual": lambda t, x: pointwise.add(
        t, x, linear.linear(t, norm.layer_norm(t, x), 8)
    ),
    "post-norm": lambda t, x: norm.layer_norm(t, pointwise.add(t, x, linear.linear(t, x, 8))),
    "keeps its output": lambda t, x: pointwise.unary(t, "relu", linear.linear(t, x, 8)),
    "gated": silu_gated,
    "dropout": lambda t, x: pointwise.dropout(t, linear.linear(t, norm.rms_norm(t, x), 8), 0.1),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("policy", ["fp32", "bf16", "amp-bf16"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_repeated_block_counts_the_same_as_its_blocks_one_by_one(body, policy, count):
    def run(repeated):
        t = Tape(precision(policy))
        with t.op("embed", "embedding"):
            x = embedding.embedding(t, t.input((3, 4), "int64"), 11, 8)
        with t.op("body", "test"):
            if repeated:
                x = t.repeat("layers", count, lambda x: body(t, x), x)
            else:
                for _ in range(count):
                    x = t.repeat("layer", 1, lambda x: body(t, x), x)
        with t.op("head", "linear"):
            linear.linear(t, x, 5)
        return kept(t), work(t), sum(w.size * w.count for w in t.weights)

    assert run(True) == run(False)


def test_a_tensor_read_by_three_layers_is_kept_once():
    t = Tape(precision("bf16"))
    x = t.new((2, 4, 8), grad=True)
    with t.op("qkv", "linear"):
        for _ in range(3):
            linear.linear(t, x, 8, bias=False)
    assert kept(t) == x.bytes == 2 * 4 * 8 * 2


def test_the_first_layer_computes_no_gradient_of_its_input():
    t = Tape(precision("fp32"))
    with t.op("fc", "linear"):
        linear.linear(t, t.input((4, 8)), 16)
    forward, backward = (
        sum(k.matrix for k in t.kernels if k.phase == p) for p in ("forward", "backward")
    )
    assert forward == backward == 2 * 4 * 8 * 16  # the gradient of the weight alone


def test_inference_keeps_nothing_and_has_no_backward():
    t = Tape(precision("bf16"), training=False)
    with t.op("x", "test"):
        norm.rms_norm(t, linear.linear(t, t.input((4, 8)), 16))
    assert not t.saved and {k.phase for k in t.kernels} == {"forward"}


def test_autocast_casts_a_weight_once_and_an_activation_each_time():
    t = Tape(precision("amp-bf16"))
    x = t.new((2, 8), grad=True)
    with t.op("twice", "linear"):
        w = t.parameter(8, 8)
        for _ in range(2):
            linear.linear(t, x, 8, bias=False, weight=w)
    kinds = {}
    for s in t.saved.values():
        kinds[s.kind] = kinds.get(s.kind, 0) + s.bytes * s.count
    assert kinds == {"activation": 2 * x.size * 2, "weight_copy": w.size * 2}


@pytest.mark.parametrize(("implementation", "per_element"), [("composed", 6), ("fused", 2)])
def test_a_composed_rms_norm_keeps_three_times_what_a_fused_one_keeps(implementation, per_element):
    t = Tape(precision("bf16"), implementations={"rms_norm": implementation})
    x = t.new((4, 64), grad=True)
    with t.op("norm", "rms_norm"):
        norm.rms_norm(t, x)
    assert kept(t) == per_element * x.size + 4 * 4  # and the fp32 inverse deviation of four rows


@given(
    st.integers(1, 4),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 3),
    st.integers(1, 65),
    st.sampled_from([8, 64]),
)
def test_flash_attention_keeps_no_scores(batch, groups, ratio, length, dim):
    heads = groups * ratio
    t = Tape(precision("bf16"), implementations={"attention": "flash"})
    q = t.new((batch, heads, length, dim), grad=True)
    k, v = (t.new((batch, groups, length, dim), grad=True) for _ in range(2))
    with t.op("attention", "attention"):
        attention.attention(t, q, k, v, causal=True)
    assert kept(t) == 2 * q.bytes + 2 * k.bytes + 4 * batch * heads * length + 24


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 40), st.integers(1, 40), st.integers(1, 16)
)
def test_backward_of_a_product_is_two_products(batch, heads, m, n, k):
    t = Tape(precision("fp32"))
    a, b = t.new((batch, heads, m, k), grad=True), t.new((batch, heads, k, n), grad=True)
    with t.op("bmm", "matmul"):
        out = linear.matmul(t, a, b)
    assert out.shape == (batch, heads, m, n)
    flops = [x.matrix for x in t.kernels]
    assert flops == [2 * batch * heads * m * n * k] * 3
    assert kept(t) == a.bytes + b.bytes
