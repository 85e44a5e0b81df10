"""Dense decoders: parameters of shipped ones against transformers, keys of their config.json."""

import csv
import json
from pathlib import Path

import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models import from_config, resolve
from roofcast.simulator.models.families.decoder_facts import FACTS
from roofcast.simulator.models.families.table import FAMILIES
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Parallel

TABLE = Path(__file__).parents[1] / "oracle" / "parameters_dense.csv"
SMALL = {
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
}


def reference():
    lines = (line for line in TABLE.read_text().splitlines() if not line.startswith("#"))
    return [(row["model"], int(row["parameters"])) for row in csv.DictReader(lines)]


def tape_of(config, parallel=None, sequence=32, **options):
    tape = Tape(precision("bf16"), parallel=parallel or Parallel(), **options)
    return from_config("small", config).run(tape, 2, sequence)


def parameters(tape):
    return sum(w.size * w.count for w in tape.weights)


def work(tape):
    return sum(k.matrix * k.count for k in tape.kernels)


@pytest.mark.parametrize(("name", "count"), reference())
def test_parameters_equal_those_of_transformers(name, count):
    assert parameters(resolve(name).run(Tape(precision("bf16")), 1, 16)) == count


def test_every_model_type_with_facts_is_a_family():
    assert set(FACTS) == {kind for kind, module in FAMILIES.items() if module == "decoder"}


@pytest.mark.parametrize("kind", FACTS)
def test_a_key_of_the_configuration_wins_over_the_default_of_its_model_type(kind):
    default = {**FACTS[kind].keys}.get("tie_word_embeddings", False)
    one, other = (
        parameters(tape_of({**SMALL, "model_type": kind, "tie_word_embeddings": tied}))
        for tied in (default, not default)
    )
    assert parameters(tape_of({**SMALL, "model_type": kind})) == one
    assert abs(one - other) == 101 * 48


@pytest.mark.parametrize("kind", FACTS)
@pytest.mark.parametrize("fused", [False, True])
def test_ranks_of_tensor_and_context_parallelism_together_do_all_work_once(kind, fused):
    """Also under a stack whose norms and rotary embeddings are single kernels."""
    kernels = {"rotary": "fused", "rms_norm": "fused", "layer_norm": "fused", "gelu": "fused"}
    options = {"implementations": kernels if fused else {}}
    config = {**SMALL, "model_type": kind, "vocab_size": 128, "sliding_window": None}
    whole = work(tape_of(config, **options))
    tp = tape_of(config, Parallel(tp=2, sp=True), **options)
    assert 2 * work(tp) == whole
    if kind == "baichuan":  # its positions are a mask (ALiBi), unless it is as wide as the 7B
        with pytest.raises(BadInput, match="cp 2: context parallelism needs a fused attention"):
            tape_of(config, Parallel(cp=2), sequence=16, **options)
        return
    cp = tape_of(config, Parallel(cp=2), sequence=16, **options)
    assert 2 * work(cp) == whole


def test_norms_over_all_heads_are_summed_over_the_tensor_parallel_ranks():
    def small(kind):
        tape = tape_of({**SMALL, "model_type": kind}, Parallel(tp=2))
        return sorted({t.bytes for t in tape.traffic})[0]

    assert small("olmo2") == 4 * 2 * 32 < small("exaone4")


def test_a_list_of_layers_that_is_too_short_is_refused():
    with pytest.raises(BadInput, match="'layer_types' has fewer entries than there are layers"):
        from_config("small", {**SMALL, "model_type": "olmo3", "layer_types": ["full_attention"]})


def test_a_missing_size_is_named():
    config = {key: value for key, value in SMALL.items() if key != "hidden_size"}
    with pytest.raises(BadInput, match="missing key 'hidden_size'"):
        from_config("small", {**config, "model_type": "olmo2"})


@pytest.mark.parametrize(
    ("keys", "windows"),
    [
        ({"model_type": "cohere2"}, [4096, 4096, 4096, None]),
        ({"model_type": "olmo3", "sliding_window": 16}, [16, 16, 16, None]),
        ({"model_type": "cwm"}, [None, 8192, 8192, 8192]),
        ({"model_type": "exaone4", "sliding_window_pattern": "LG"}, [4096, None, 4096, None]),
        ({"model_type": "exaone4", "sliding_window": None}, [None] * 4),
        ({"model_type": "ministral", "sliding_window": None}, [None] * 4),
    ],
    ids=json.dumps,
)
def test_windows_follow_the_pattern_of_the_model_type_or_of_the_configuration(keys, windows):
    config = from_config("small", {**SMALL, **keys}).config
    assert [config.kind(layer).window for layer in range(4)] == windows
