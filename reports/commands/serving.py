"""roofcast serving"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

from roofcast.hwdb.errors import BadInput
from roofcast.reports.completion import completing
from roofcast.reports.option_pools import NAMES, pools, pools_of
from roofcast.reports.option_serving import INPUT_LEN, OUTPUT_LEN, POWER_CAP, PREFIX_SHARE, edits_of
from roofcast.reports.option_types import Once, Whole
from roofcast.reports.options import options, print_json
from roofcast.reports.serving_types import Part, Rate, Several

if TYPE_CHECKING:
    from roofcast.simulator.serving.asked import Serving
    from roofcast.simulator.serving.load import Load, Requests
    from roofcast.simulator.serving.pools.asked import Pools
    from roofcast.simulator.serving.result import ServingForecast

LOADS = ("concurrency", "rate", "batch", "offline", "trace")
DEGREES = ("devices", "tp", "pp", "ep", "dp")
TEXT = {
    "devices": "Number of devices. Default: tp * pp, times dp.",
    "tp": "Tensor-parallel size. Default: the devices of a node, as far as heads divide.",
    "pp": "Pipeline-parallel size (stages). Default: 1.",
    "ep": "Expert-parallel size, of the tp * dp ranks. Default: 1.",
    "dp": "With --ep: ranks with sequences of their own (data-parallel attention); else replicas.",
}


def _degrees(function: Any) -> Any:
    """The options of the layout."""
    for name in reversed(DEGREES):
        function = click.option(f"--{name}", type=Whole(), metavar="N", help=TEXT[name])(function)
    return function


def _load(function: Any) -> Any:
    """The options of the load."""
    for option in reversed(
        (
            INPUT_LEN,
            OUTPUT_LEN,
            click.option(
                "--concurrency", type=Several(), metavar="N[,N..]",
                help="Users, each with one request under way; several numbers give a table.",
            ),
            click.option(
                "--rate", type=Rate(), metavar="RATE",
                help="Requests that arrive at random: 3/s, 180/min.",
            ),
            click.option(
                "--batch", type=Several(), metavar="N[,N..]",
                help="A static batch: so many prompts at once, and no others.",
            ),
            click.option(
                "--offline", is_flag=True, help="All requests queued: as many at once as fit."
            ),
            click.option(
                "--trace", metavar="FILE",
                help="Requests of a .csv with the columns time (s), input, output (tokens).",
            ),
            click.option(
                "--slo", metavar="LIMITS",
                help="Find the highest rate that holds ttft=500ms,tpot=30ms (or e2e=10s) for 90 %"
                " of the requests; add p99 for 99 %.",
            ),
            PREFIX_SHARE,
            click.option(
                "--speculate", type=click.IntRange(0, 64), default=0, metavar="N",
                help="Speculative decoding or MTP: tokens drafted per step. Default: 0.",
            ),
            click.option(
                "--acceptance", type=Part(), metavar="SHARE",
                help="Probability that a drafted token is kept. Default: 0.7, assumed.",
            ),
            click.option(
                "--requests", type=Whole(), metavar="N",
                help="Requests that are replayed. Default: 400, more near the capacity; of users 5"
                " each, at least 200; drawn again until means are known.",
            ),
            click.option(
                "--seed", type=click.IntRange(0), default=0, metavar="N",
                help="Seed of arrivals and lengths. Default: 0.",
            ),
        )
    ):  # fmt: skip
        function = option(function)
    return function


@click.command("serving", cls=Once)
@click.argument("model", shell_complete=completing("model"))
@click.option(
    "--on", required=True, metavar="DEVICE", shell_complete=completing("device"),
    help="Device: a name (see roofcast devices) or a .toml file.",
)  # fmt: skip
@_degrees
@pools
@_load
@click.option(
    "--weights", metavar="FORMAT",
    help="Format of the weights: bf16, fp8, int8, int4, nvfp4, mxfp4, or of a GGUF file: q4_k_m."
    " Default: as released.",
)  # fmt: skip
@click.option(
    "--kv", metavar="FORMAT", help="Format of the cache: fp8, bf16. Default: the stack's."
)
@click.option(
    "--stack", metavar="NAME", help="Serving software: vllm, sglang, trt-llm, llama.cpp ..."
)
@options("set")
@POWER_CAP
@options("system", "price")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead, in SI units.")
@click.option(
    "-o", "path", metavar="FILE", help="Also write a row per load to a .csv or .parquet file."
)
@click.option(
    "--plot", metavar="FILE",
    help="Draw throughput per device against speed per user, over the numbers of users (.png, .svg,"
    " .pdf).",
)  # fmt: skip
def command(as_json: bool, path: str | None, plot: str | None, **given: Any) -> None:
    """Latency, throughput, memory, energy and cost of MODEL as a server of generated text.

    Give one load: --concurrency, --rate, --batch, --offline or --trace, or a service level, --slo.
    Without any: numbers of users from 1 to as many as fit. Layouts compared: roofcast search MODEL
    --serving; devices: roofcast choose MODEL --serving.
    """
    from roofcast.reports.files import PICTURES, check_target
    from roofcast.reports.tables.serving import table
    from roofcast.reports.tables.written import check_table, write_table

    if path is not None:
        check_table(path)
    if plot is not None:
        check_target(plot, PICTURES)
    if "," in given["on"] and not given["on"].endswith(".toml"):
        raise BadInput(
            f"--on {given['on']}: a page is of one device; roofcast search MODEL --serving and"
            " choose --serving compare several"
        )
    found = _with_idle(_forecasts(given), given)
    if path is not None:
        write_table(table(found), path)
    if plot is not None:
        from roofcast.reports.pictures.serving import draw

        draw(found, plot)
    if as_json:
        every = [msgspec.to_builtins(each) for each in found]
        print_json(every[0] if len(every) == 1 else {"forecasts": every})
        return
    from roofcast.reports.pages.serving import print_serving
    from roofcast.reports.pages.serving_table import print_table

    print_serving(found[0]) if len(found) == 1 else print_table(found)


def _forecasts(given: dict[str, Any]) -> list[ServingForecast]:
    """A forecast for each number of the load that is asked for."""
    from roofcast.simulator.serving.slo import level

    kind = _kind(given)
    forecast, highest, front = _engines(given)
    if kind == "":
        return front(_asked(given, _of(given, "concurrency", 1)))
    if kind == "slo":
        return [highest(_asked(given, _of(given, "rate", 1)), level(given["slo"]))]
    if kind == "trace":
        load, trace = _traced(given)
        return [forecast(_asked(given, load), trace)]
    amounts = given[kind] if isinstance(given[kind], tuple) else (given[kind],)
    asked_each = [_asked(given, _of(given, kind, amount)) for amount in amounts]
    return [forecast(asked, replays=True if len(asked_each) == 1 else None) for asked in asked_each]


def _with_idle(found: list[ServingForecast], given: dict[str, Any]) -> list[ServingForecast]:
    """The forecasts, with the options that were typed and change nothing among what they say."""
    context = click.get_current_context()
    typed = {n for n in given if context.get_parameter_source(n) is ParameterSource.COMMANDLINE}
    kind = _kind(given)
    why: list[tuple[tuple[str, ...], str]] = []
    if kind == "trace":
        why.append((("input_len", "output_len", "seed"), "a trace has its own requests"))
    elif all(f.replayed is None for f in found):  # of closed loops the first requests are a share
        names = ("requests", "seed") if kind in ("batch", "offline") else ("seed",)
        why.append((names, "these are mean values, nothing is replayed"))
    if all(f.devices == 1 for f in found):
        why.append((("system",), "one device sends nothing"))
    idle = [
        f"--{name.replace('_', '-')} changes nothing: {reason}"
        for names, reason in why
        for name in names
        if name in typed
    ]
    return [msgspec.structs.replace(f, assumptions=(*f.assumptions, *idle)) for f in found]


def _engines(given: dict[str, Any]) -> tuple[Any, Any, Any]:
    """What forecasts a load, a service level and a table: of one pool, or of two."""
    if all(given[name] is None for name in NAMES):
        from roofcast.simulator.serving.chain import serve
        from roofcast.simulator.serving.front import front
        from roofcast.simulator.serving.slo import with_level

        return serve, with_level, front
    from roofcast.simulator.serving.pools import chain, slo

    return chain.serve, slo.with_level, slo.front


def _kind(given: dict[str, Any]) -> str:
    """The load that is asked for; "slo" where that looks for one, "" where none is given."""
    wanted = [name for name in (*LOADS, "slo") if given[name] not in (None, False)]
    for name, example in (("trace", "requests.csv"), ("slo", "ttft=500ms,tpot=30ms")):
        if given[name] is not None and not given[name].strip():
            raise BadInput(f"--{name} is empty; give for example --{name} {example}")
    if len(wanted) > 1:
        both = f"--{wanted[0]} and --{wanted[1]}"
        if "slo" in wanted:
            raise BadInput(f"{both}: --slo looks for the rate itself; give one of them")
        raise BadInput(f"{both}: two loads; give one of them")
    return wanted[0] if wanted else ""


def _of(given: dict[str, Any], kind: str, amount: float | bool) -> Load:
    """The load of one number."""
    from roofcast.simulator.serving.load import Load

    return Load(
        kind=kind,
        amount=1.0 if amount is True else float(amount),
        input_len=given["input_len"],
        output_len=given["output_len"],
        cached=given["prefix_share"],
        requests=given["requests"],
        seed=given["seed"],
    )


def _traced(given: dict[str, Any]) -> tuple[Load, Requests]:
    """The load of a trace, and its requests."""
    from roofcast.simulator.serving.load import of_trace, read_trace

    trace = read_trace(given["trace"], given["prefix_share"])
    if given["requests"] is not None:
        trace = type(trace)(*(values[: given["requests"]] for values in trace))
    return of_trace(trace, given["prefix_share"], given["seed"]), trace


def _asked(given: dict[str, Any], load: Load) -> Serving | Pools:
    """What is asked, of the values of the options."""
    from roofcast.simulator.serving.asked import Serving

    names = ("system", *DEGREES, "weights", "kv", "stack", "speculate", "acceptance",
             "price_per_hour")  # fmt: skip
    asked = Serving(
        model=given["model"],
        device=given["on"],
        load=load,
        set=edits_of(given),
        **{name: given[name] for name in names},
    )
    return pools_of(given, asked) or asked
