"""GNMT [wu2016]: LSTM encoder and decoder, additive attention [bahdanau2014].

The variant is that of NVIDIA and MLPerf ("v2"). The first encoder layer is bidirectional. The
output of the first decoder layer queries the attention, whose result goes into all other layers.
Sentences are padded to one length; sorting and packing them is not counted.
"""

from __future__ import annotations

from roofcast.simulator.models.vision.parts import dense, dropped, residual
from roofcast.simulator.work.ops import embedding, linear, loss, norm, pointwise
from roofcast.simulator.work.ops.recurrent import recurrent
from roofcast.simulator.work.tape import Tape, Value


def build(
    t: Tape,
    batch: int,
    size: int,
    *,
    layers: int,
    vocabulary: int,
    width: int,
    dropout: float = 0.2,
) -> Value:
    """Source and target have `size` tokens each; encoder and decoder have `layers` layers each."""
    with t.op("embedder", "parameter"):
        table = t.parameter(vocabulary, width)
    with t.scope("encoder"):
        memory = encoder(t, look_up(t, batch, size, table), layers, width, dropout)
    with t.scope("decoder"):
        x = decoder(t, look_up(t, batch, size, table), memory, layers, width, dropout)
        logits = dense(t, "classifier", x, vocabulary)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        rows = t.view(logits, batch * size, vocabulary)
        return loss.smoothed(t, rows, t.input((batch * size,), "int64"))


def look_up(t: Tape, batch: int, size: int, table: Value) -> Value:
    """Embeddings of token ids [batch, size]."""
    ids = t.input((batch, size), "int64")
    with t.op("embedder", "embedding"):
        return embedding.embedding(t, ids, *table.shape, weight=table)


def lstm(t: Tape, name: str, x: Value, width: int, *, both_ways: bool = False) -> Value:
    """One LSTM layer over x [batch, tokens, features]."""
    with t.op(name, "lstm"):
        return recurrent(t, x, width, both_ways=both_ways)[0]


def encoder(t: Tape, x: Value, layers: int, width: int, dropout: float) -> Value:
    """LSTM layers with dropout before each, and residuals from the third layer on."""
    for index in range(layers):
        name = f"rnn_layers.{index}"
        h = lstm(t, name, dropped(t, f"{name}.dropout", x, dropout), width, both_ways=index == 0)
        x = residual(t, h, x, f"{name}.add") if index > 1 else h
    return x


def decoder(t: Tape, x: Value, memory: Value, layers: int, width: int, dropout: float) -> Value:
    """LSTM layers; the attention context is concatenated to the input of all but the first."""
    x = lstm(t, "att_rnn.rnn", x, width)
    with t.scope("att_rnn.attn"):
        context = attend(t, x, memory, width)
    for index in range(layers - 1):
        name = f"rnn_layers.{index}"
        h = dropped(t, f"{name}.dropout", x, dropout)
        with t.op(f"{name}.cat", "concat"):
            h = pointwise.concat(t, [h, context], 2)
        h = lstm(t, name, h, width)
        x = residual(t, h, x, f"{name}.add") if index else h
    return x


def attend(t: Tape, query: Value, memory: Value, width: int) -> Value:
    """Additive attention: softmax over the source of v . tanh(W query + U memory + b).

    A hidden vector of `width` elements is computed for every pair of target and source token.
    """
    batch, targets, _ = query.shape
    sources = memory.shape[1]
    with t.op("transpose", "copy"):
        query, keys = (pointwise.copy(t, t.low(x)) for x in (query, memory))
    q = dense(t, "linear_q", query, width, bias=False)
    k = dense(t, "linear_k", keys, width, bias=False)
    with t.op("score", "attention"):
        q, k = t.view(q, batch, targets, 1, width), t.view(k, batch, 1, sources, width)
        both = pointwise.add(t, q, k)
        hidden = pointwise.unary(t, "tanh", pointwise.add(t, both, t.parameter(width)))
        scores = weighed(t, hidden, width)
        mask = t.new((batch, 1, sources), "bool")
        scores = pointwise.where(t, scores, mask)
        p = norm.softmax(t, scores)
        return linear.matmul(t, p, memory)


def weighed(t: Tape, x: Value, width: int) -> Value:
    """x . v with v normalized and scaled by a learned number; x and small vectors are kept."""
    v, length = t.parameter(width), t.parameter(1)
    x = t.low(x)
    out = t.new(x.shape[:-1], x.dtype, x.grad)
    t.emit("reduce", (x, v, length), (out,), vector=2 * x.size)
    if out.grad:
        t.save(x)
        t.keep(v.bytes // width * (2 * width + 1))
        small = out.bytes + v.bytes
        t.backward("elementwise", vector=x.size, read=small, written=x.bytes, product=x.dtype)
        read = x.bytes + out.bytes
        t.backward("reduce", vector=2 * x.size, read=read, written=v.bytes, product=x.dtype)
    return out
