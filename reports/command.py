"""The `roofcast` command: a group whose subcommands are imported when they are called, and one
place where errors become one line.
"""

from __future__ import annotations

import codecs
import difflib
import os
import sys
from importlib import import_module

import click

from roofcast.hwdb.errors import RoofcastError

# Subcommand: its one line in `roofcast --help`. Its code is reports/commands/<name>.py, imported
# when it is called.
COMMANDS = {
    "predict": "Forecast a step: its time, its memory, what limits it.",
    "memory": "What needs how much memory, and the largest batch that fits.",
    "count": "Parameters, FLOPs, bytes kept and moved, layer by layer; no device.",
    "roofline": "Draw the roofline: every op under the roofs of the device.",
    "trace": "Write the timeline of a step, for Perfetto.",
    "run": "Forecast what a scenario file describes.",
    "devices": "List the known devices, or show one with its sources.",
    "models": "List the known models, or show one.",
    "stacks": "List the software stacks, or show one.",
    "calibrate": "Measure this machine: a device like any other, named this-machine.",
    "crosscheck": "Forecast kernels and training steps of this machine, and measure them.",
    "validate": "How far forecasts are from measured runs and kernels.",
}
_LIKENESS = str.maketrans("µ×·—–…█▉▊▋▌▍▎▏░²", "ux.--~#####::..2")


class Commands(click.Group):
    """Knows its subcommands by name only."""

    def list_commands(self, ctx):
        """Names of the subcommands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx, name):
        """The subcommand, imported now."""
        return (
            import_module(f"roofcast.reports.commands.{name}").command if name in COMMANDS else None
        )

    def format_commands(self, ctx, formatter):
        """The list of subcommands for the help, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(self, ctx, args):
        """The subcommand that was typed; a word that is none is refused with the closest one."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, args=None, prog_name="roofcast", **extra):
        """Run; a mistake of the user's is one line on stderr and exit code 2, an interrupt is 130,
        a closed pipe is quiet.
        """
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="likeness")
        try:
            extra["standalone_mode"] = False
            args = (sys.argv[1:] if args is None else list(args)) or ["--help"]
            status = super().main(args=args, prog_name=prog_name, **extra)
            sys.stdout.flush()
        except click.exceptions.Exit as done:
            status = done.exit_code
        except (click.Abort, KeyboardInterrupt):
            status = 130
        except click.UsageError as error:
            status = _fail(_usage(error, args[0] if args[0] in COMMANDS else ""))
        except (RoofcastError, click.ClickException) as error:
            status = _fail(
                str(error) if isinstance(error, RoofcastError) else error.format_message()
            )
        except BrokenPipeError:
            _drop_output()
            status = 0
        except OSError as error:
            _drop_output()
            where = f"{error.filename}: " if error.filename else ""
            status = _fail(
                f"{where}cannot be read or written ({error.strerror or error}); check the place and"
                " try again"
            )
        sys.exit(status if isinstance(status, int) else 0)


def _drop_output() -> None:
    """Let what is left in the buffer go nowhere: nobody can take it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(message: str) -> int:
    print(f"roofcast: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _usage(error: click.UsageError, command: str = "") -> str:
    """A mistake in the command line, and its cure, on one line."""
    name = error.ctx.command_path if error.ctx else f"roofcast {command}".rstrip()
    if isinstance(error, click.exceptions.NoSuchOption):
        known = (
            [o for p in error.ctx.command.params for o in (*p.opts, *p.secondary_opts)]
            if error.ctx
            else []
        )
        meant = _MEANT.get(error.option_name)
        close = (
            [meant]
            if meant in known
            else difflib.get_close_matches(error.option_name, known, n=1, cutoff=0.7)
        )
        return f"no option {error.option_name}; " + (
            f"did you mean {close[0]}?" if close else f"see: {name} --help"
        )
    if isinstance(error, click.MissingParameter) and error.param is not None:
        wanted = (
            error.param.opts[0]
            if error.param.param_type_name == "option"
            else error.param.human_readable_name
        )
        example = _EXAMPLE.get(f"{name} {wanted}") or _EXAMPLE.get(wanted, f"see: {name} --help")
        return f"{wanted} is missing; {example}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        given = (
            error.param.opts[-1]
            if error.param.param_type_name == "option"
            else error.param.human_readable_name
        )
        return f"{given}: {error.message.rstrip('.')}"
    if isinstance(error, click.exceptions.BadOptionUsage):
        return (
            f"{error.option_name}:"
            f" {_EXAMPLE.get(error.option_name, f'needs a value; see: {name} --help')}"
        )
    if error.message.startswith("Got unexpected extra argument"):
        return f"{error.message}; a value with a space in it wants quotes; see: {name} --help"
    return error.format_message().rstrip(".") + (
        "" if "did you mean" in error.message else f"; see: {name} --help"
    )


# What other tools call our options.
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
    **dict.fromkeys(("--checkpointing", "--activation-checkpointing", "--remat"), "--recompute"),
    **dict.fromkeys(("--fsdp", "--zero-stage"), "--zero"),
    "--inference": "--mode",
    "--mbs": "--micro-batch",
    "--output": "-o",
}
_EXAMPLE = {
    "--on": "say which device, for example --on h100-sxm5 (list: roofcast devices)",
    "MODEL": "say which model, for example llama-3-8b (list: roofcast models)",
    "roofcast trace -o": "say where the timeline goes, for example -o step.json",
    "-o": "say where the picture goes, for example -o roofline.png",
    "--offload": (
        "say what goes to the host: --offload activations, --offload optimizer, or both, one after"
        " the other"
    ),
    "--recompute": (
        "say what is computed again, for example --recompute full (docs/usage.md lists all)"
    ),
    "--system": (
        "say which node or pod, for example --system dgx-h100 (list: roofcast devices --systems)"
    ),
    "SCENARIO": (
        "say which file, for example scenario.toml (write one: roofcast predict .. --save"
        " scenario.toml)"
    ),
}


def _likeness(error: UnicodeEncodeError) -> tuple[str, int]:
    """What stands for a character that the terminal cannot show: the ASCII letter most like it."""
    return (
        error.object[error.start : error.end]
        .translate(_LIKENESS)
        .encode("ascii", "replace")
        .decode(),
        error.end,
    )


codecs.register_error("likeness", _likeness)


@click.command(
    "roofcast",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="roofcast", prog_name="roofcast", message="%(prog)s %(version)s")
def main() -> None:
    """How long a neural network takes to train, what it needs in memory, and what limits it: on any
    hardware, real or imagined.

    \b
    roofcast predict llama-3-8b --on h100-sxm5
    roofcast predict ./config.json --on h100-sxm5 --set memory.bandwidth="8 TB/s"
    roofcast count resnet50 --batch 64
    roofcast COMMAND --help
    """


if __name__ == "__main__":
    main()
