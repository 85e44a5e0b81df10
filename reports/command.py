"""The `roofcast` command: a group that imports a subcommand when it is called, and the one place
where an error becomes a line of text.
"""

from __future__ import annotations

import atexit
import codecs
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from roofcast.hwdb.errors import QUOTED, RoofcastError, escaped, quoted, shortened
from roofcast.reports.progress import tracing

# Subcommands with their lines in `roofcast --help`. The code is reports/commands/<name>.py.
COMMANDS = {
    "predict": "Forecast one step: time, memory, what limits it.",
    "search": "Find the fastest layout on a number of devices.",
    "serving": "Forecast a server of generated text: latency, throughput, memory, cost.",
    "choose": "Choose devices, how many, and the layout for a run.",
    "assign": "Assign trainings to a pool of unlike devices.",
    "compress": "One net in fewer bits, pruned, sparse: memory, time, energy.",
    "plan": "Model size and tokens that a budget buys best.",
    "memory": "Memory at peak by kind, layer or stage; the largest batch that fits.",
    "count": "Parameters, FLOPs, activations and traffic by module; no device.",
    "roofline": "Draw the roofline of a step.",
    "report": "Write a report of a step, as one HTML file or Markdown.",
    "explore": "Move the numbers of a chip on a local page.",
    "sensitivity": "What each number of the hardware is worth for a step.",
    "sweep": "Forecast over a grid of options and hardware numbers.",
    "trace": "Write the timeline of a step for Perfetto.",
    "run": "Forecast a scenario: a saved set of predict options.",
    "compare": "Compare scenarios, and say why they differ.",
    "devices": "List the known devices, or show one with its sources.",
    "systems": "List the known nodes and pods, or show one.",
    "links": "List the known links between devices, or show one.",
    "models": "List the known models, or show one.",
    "stacks": "List the software stacks, or show one.",
    "calibrate": "Measure this machine and save it as a device.",
    "crosscheck": "Compare forecasts with measurements on this machine.",
    "validate": "Compare forecasts with published runs and kernels.",
}
LONGEST = 500  # characters of a message
SELDOM = 200_000  # new containers between two passes of the garbage collector; Python's own: 700
_ASCII = str.maketrans("µ×·—–…█▉▊▋▌▍▎▏░²", "ux.--~#####::..2")
# names that other tools give to our options
_MEANT = {
    **dict.fromkeys(("--device", "--gpu", "--hardware", "--chip"), "--on"),
    **dict.fromkeys(("--dtype", "--data-type", "--amp"), "--precision"),
    **dict.fromkeys(("--bs", "--batch-size", "--global-batch-size"), "--batch"),
    **dict.fromkeys(("--gpus", "--num-gpus", "--world-size", "--num-devices"), "--devices"),
    **dict.fromkeys(
        ("--seq-len", "--seqlen", "--sequence-length", "--length", "--context", "--ctx"), "--seq"
    ),
    **dict.fromkeys(("--img-size", "--image-size", "--resolution", "--size"), "--image"),
    **dict.fromkeys(("--optim", "--opt"), "--optimizer"),
    **dict.fromkeys(
        ("--checkpointing", "--activation-checkpointing", "--gradient-checkpointing", "--remat"),
        "--recompute",
    ),
    **dict.fromkeys(("--fsdp", "--zero-stage"), "--zero"),
    **dict.fromkeys(("--budget", "--cost", "--max-cost", "--max-price"), "--under"),
    **dict.fromkeys(("--rate", "--qps", "--slo", "--concurrency", "--users"), "--serving"),
    "--within": "--deadline",
    "--deadline": "--within",
    "--inference": "--mode",
    "--mbs": "--micro-batch",
    "--output": "-o",
}
# of servers, where a command has --input-len
_SERVED = {
    **dict.fromkeys(("--qps", "--rps", "--request-rate", "--requests-per-second"), "--rate"),
    **dict.fromkeys(
        ("--seq", "--seq-len", "--prompt-len", "--isl", "--input-length", "--input-tokens"),
        "--input-len",
    ),
    **dict.fromkeys(
        ("--osl", "--output-length", "--output-tokens", "--max-tokens", "--max-new-tokens"),
        "--output-len",
    ),
    **dict.fromkeys(("--precision", "--dtype", "--quantization", "--quant"), "--weights"),
    **dict.fromkeys(("--kv-cache-dtype", "--kv-cache", "--kv-dtype"), "--kv"),
    **dict.fromkeys(("--engine", "--backend", "--framework", "--software"), "--stack"),
    **dict.fromkeys(("--tensor-parallel-size", "--devices"), "--tp"),
    **dict.fromkeys(("--users", "--parallel", "--concurrent", "--clients"), "--concurrency"),
    "--pipeline-parallel-size": "--pp",
    "--data-parallel-size": "--dp",
    "--num-speculative-tokens": "--speculate",
    "--sla": "--slo",
}
# of these the first command that has an option is named where the one that was typed has not
_ASKED = ("predict", "serving", "choose")
_TASKS = {  # what people look for by the name of a task
    **dict.fromkeys(
        ("finetune", "fine-tune", "finetuning", "lora", "qlora"), "predict MODEL --lora 16"
    ),
    **dict.fromkeys(("train", "training", "step", "estimate"), "predict MODEL"),
    **dict.fromkeys(("cost", "price", "rent", "buy"), "choose MODEL --tokens 1T"),
    **dict.fromkeys(("inference", "decode", "generate", "latency"), "serving MODEL"),
}
# what to give where a value is missing
_EXAMPLE = {
    "--on": "give a device, for example --on h100-sxm5 (list: roofcast devices)",
    "MODEL": "give a model, for example llama-3-8b (list: roofcast models)",
    "roofcast trace -o": "give the file to write, for example -o step.json",
    "roofcast report -o": "give the file to write, for example -o report.html",
    "-o": "give the file to write, for example -o roofline.png",
    "--budget": "give FLOP, dollars or devices and days, for example --budget 1e23FLOP",
    "--offload": "give --offload activations, --offload optimizer or --offload parameters",
    "--nvme-bandwidth": "give the bandwidth of the drives, for example --nvme-bandwidth '6 GB/s'",
    "--recompute": "give a kind, for example --recompute full (docs/usage.md lists all)",
    "--system": "give a node or pod, for example --system dgx-h100 (list: roofcast systems)",
    "SCENARIO...": "give two scenario files or more (roofcast predict .. --save a.toml writes one)",
    "SCENARIO": "give a scenario file (roofcast predict .. --save scenario.toml writes one)",
}


class Commands(click.Group):
    """A group that knows its subcommands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the subcommands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import a subcommand; None for an unknown name."""
        if name not in COMMANDS:
            return None
        return import_module(f"roofcast.reports.commands.{name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands for the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand that was typed; an unknown one is an error with the closest name."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            import difflib

            if args[0] in _TASKS:
                hint = f"try roofcast {_TASKS[args[0]]}"
                raise click.UsageError(f"no command {quoted(args[0])}; {hint}", ctx)
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {quoted(args[0])}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = "roofcast",
        complete_var: str | None = None,
        standalone_mode: bool = False,
        **extra: Any,
    ) -> Any:
        """Run a command line and exit.

        Exit code 2 and one line on stderr for a mistake of the user, 130 for an interrupt, 0 for a
        closed pipe.
        """
        _prepare_streams()
        if args is None:  # in a process of its own
            _collect_seldom()
        words = (sys.argv[1:] if args is None else list(args)) or ["--help"]
        try:
            with tracing(words):
                status = super().main(
                    words, prog_name, complete_var, standalone_mode=False, **extra
                )
            sys.stdout.flush()
        except click.exceptions.Exit as done:
            status = done.exit_code
        except (click.Abort, KeyboardInterrupt):
            status = 130
        except click.UsageError as error:
            status = _fail(_usage(error, words[0] if words[0] in COMMANDS else ""), words)
        except click.ClickException as error:
            status = _fail(error.format_message(), words)
        except RoofcastError as error:
            status = _fail(str(error), words)
        except (BrokenPipeError, SystemExit):  # click exits where it meets a closed pipe first
            _drop_output()
            status = 0
        except OSError as error:
            _drop_output()
            where = f"{shortened(str(error.filename))}: " if error.filename else ""
            status = _fail(f"{where}cannot be read or written ({error.strerror or error})", words)
        sys.exit(status if isinstance(status, int) else 0)


def _drop_output() -> None:
    """Discard what is left in the output buffer, which cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _collect_seldom() -> None:
    """Few passes of the garbage collector: imports make objects that stay, which it would visit
    over and over, and once more at exit.
    """
    gc.set_threshold(SELDOM)
    atexit.register(gc.freeze)


def _prepare_streams() -> None:
    """Streams that print what a terminal cannot show in ASCII; a closed one is /dev/null."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        if hasattr(stream := getattr(sys, name), "reconfigure"):
            stream.reconfigure(errors="roofcast-ascii")


def _fail(message: str, words: Sequence[str]) -> int:
    """Print an error as one line on stderr; the exit code.

    words: the command line, of which long words are cut in the message.
    """
    for word in sorted(words, key=len, reverse=True):
        if len(word) > QUOTED:
            message = message.replace(word, shortened(word))
    line = shortened(escaped(" ".join(message.split())), LONGEST - len("roofcast: "))
    try:
        print(f"roofcast: {line}", file=sys.stderr, flush=True)
    except OSError:
        pass  # nowhere to say it
    return 2


def _usage(error: click.UsageError, command: str = "") -> str:
    """A mistake in the command line and its correction, as one line."""
    name = error.ctx.command_path if error.ctx else f"roofcast {command}".rstrip()
    see = f"see: {name} --help"
    if isinstance(error, click.exceptions.NoSuchOption):
        close = _closest(error)
        if close:
            return f"no option {error.option_name}; did you mean {close}?"
        return f"no option {error.option_name}{_elsewhere(error)}; {see}"
    if isinstance(error, click.MissingParameter) and error.param is not None:
        wanted = _typed(error.param, 0)
        return f"{wanted} is missing; {_EXAMPLE.get(f'{name} {wanted}', _EXAMPLE.get(wanted, see))}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        return f"{_typed(error.param, -1)}: {error.message.rstrip('.')}"
    if isinstance(error, click.exceptions.BadOptionUsage):
        example = _EXAMPLE.get(error.option_name, f"a value is missing; {see}")
        return f"{error.option_name}: {example}"
    if error.message.startswith("Got unexpected extra argument"):
        return f"{error.message}; quote a value that has spaces; {see}"
    message = error.format_message().rstrip(".")
    return message if "did you mean" in message else f"{message}; {see}"


def _closest(error: click.exceptions.NoSuchOption) -> str | None:
    """The option of the command that was most likely meant."""
    parameters = error.ctx.command.params if error.ctx else []
    known = [option for p in parameters for option in (*p.opts, *p.secondary_opts)]
    served = _SERVED.get(error.option_name) if "--input-len" in known else None
    for meant in (_MEANT.get(error.option_name), served):
        if meant in known:
            return meant
    import difflib

    bare = {option.lstrip("-"): option for option in known}
    name = error.option_name.lstrip("-")
    return next((bare[n] for n in difflib.get_close_matches(name, bare, n=1, cutoff=0.7)), None)


def _elsewhere(error: click.exceptions.NoSuchOption) -> str:
    """The command that has the option, under this or our own name; empty where none has."""
    name, ctx = error.option_name, error.ctx
    here = ctx.info_name if ctx is not None else None
    if here is not None and ctx is not None and (here == "serving" or here.endswith(" --serving")):
        return _of_servers(name, ctx)
    if ctx is None or here not in COMMANDS or here in ("validate", "explore", "run"):
        return ""
    if name == "--serving":
        return "; roofcast serving MODEL forecasts a server"
    for command in _ASKED:
        other = Commands().get_command(ctx, command)
        known = {o for p in other.params for o in p.opts} if other is not None else set()
        ours = [name, _SERVED.get(name) if command == "serving" else None, _MEANT.get(name)]
        if command != here and (found := [each for each in ours if each in known]):
            return f"; roofcast {command} MODEL has {found[0]}"
    return ""


def _of_servers(name: str, ctx: click.Context) -> str:
    """The other command on servers that has an option; empty where none has."""
    for file, typed in (
        ("serving", "serving MODEL"),
        ("serving_search", "search MODEL --serving"),
        ("serving_choose", "choose MODEL --serving"),
    ):
        other = import_module(f"roofcast.reports.commands.{file}").command
        known = {o for p in other.params for o in p.opts}
        found = next((n for n in (name, _SERVED.get(name)) if n in known), None)
        if found is not None and other.name != ctx.command.name:
            return f"; roofcast {typed} has {found}"
    return ""


def _typed(param: click.Parameter, which: int) -> str:
    """An option or argument as the help names it."""
    return param.opts[which] if param.param_type_name == "option" else param.human_readable_name


def _ascii(error: UnicodeError) -> tuple[str, int]:
    """The ASCII characters that replace those the terminal cannot show."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = error.object[error.start : error.end].translate(_ASCII)
    return shown.encode("ascii", "replace").decode(), error.end


codecs.register_error("roofcast-ascii", _ascii)


@click.command(
    "roofcast",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="roofcast", prog_name="roofcast", message="%(prog)s %(version)s")
def main() -> None:
    """Forecast how long a neural network takes to train, the memory it needs, and what limits it,
    on existing or hypothetical hardware.

    \b
    roofcast predict llama-3-8b --on h100-sxm5
    roofcast predict ./config.json --on h100-sxm5 --set memory.bandwidth="8 TB/s"
    roofcast count resnet50 --batch 64
    roofcast COMMAND --help
    """


if __name__ == "__main__":
    main()
