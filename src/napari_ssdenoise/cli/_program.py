"""The command group: verbs are loaded lazily, and errors become one line and an exit code."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NoReturn, TypeVar

import click

from napari_ssdenoise._errors import explain, is_input_error
from napari_ssdenoise._threads import share_processor

# What a verb does, so that listing them imports none of them.
VERBS: Final = {
    "demo": "Denoise a built-in noisy image whose truth is known.",
    "train": "Learn to denoise from noisy images, and save the model.",
    "denoise": "Denoise images with a saved model, or learn from each image first.",
    "upscale": "Give an image smaller pixels, with details learnt from itself.",
    "reconstruct": "Make images of raw MRI data, judged by lines that were held out.",
    "diagnose": "Measure an image's noise and recommend an algorithm.",
    "export": "Write a saved model as a package of the BioImage Model Zoo.",
    "study": "Tell whether more images would help, and what learning without clean ones costs.",
    "info": "Say what a model or an image file is.",
    "algorithms": "List the algorithms, their papers and settings.",
}
STOPPED: Final = 130
_STARTED: Final = time.perf_counter()

Command = TypeVar("Command", bound=Callable[..., Any])


class Stopped(Exception):
    """The user stopped the run; the message says what was kept."""


class FailedError(Exception):
    """Some inputs failed, and each was reported when it did."""


def seconds_since_start() -> float:
    """Return the time since the command began to load."""
    return time.perf_counter() - _STARTED


def common(command: Command) -> Command:
    """Add the options that every verb has: ``--json``, passed on as ``as_json``, and ``--debug``."""

    def remember(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
        context.find_root().meta[str(parameter.name)] = value
        return value

    debug = click.option(
        "--debug", is_flag=True, expose_value=False, callback=remember, help="Show the traceback of an error."
    )
    as_json = click.option(
        "--json", "as_json", is_flag=True, callback=remember, help="End with one line of JSON on standard output."
    )
    return as_json(debug(command))


class Program(click.Group):
    """Verbs in their own modules; `common` exceptions become messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the verbs, in the order in which one meets them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb's module."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = import_module(f"napari_ssdenoise.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb, and turn its exceptions into exit codes."""
        try:
            return super().invoke(ctx)
        except (Stopped, KeyboardInterrupt) as stopped:
            self._end(ctx, "stopped", str(stopped) or "nothing was kept.", STOPPED)
        except FailedError:
            ctx.exit(1)
        except Exception as error:
            if ctx.meta.get("debug") or not is_input_error(error):
                raise
            self._end(ctx, "error", explain(error), 1)

    @staticmethod
    def _end(ctx: click.Context, kind: str, text: str, code: int) -> NoReturn:
        click.echo(f"{kind}: {text}", err=True)
        if ctx.meta.get("as_json"):
            click.echo(json.dumps({kind: text}, ensure_ascii=False))
        ctx.exit(code)


def _show_version(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        from napari_ssdenoise import __version__

        click.echo(__version__)
        context.exit()


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: 0 done; 1 the input is wrong; 2 the command is wrong; 130 stopped by Ctrl-C (what is done is "
        "kept, and the same command goes on from there)."
    ),
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
def program() -> None:
    """Remove noise from scientific images by learning from the noisy images themselves.

    Try "ssdenoise demo" first, and "ssdenoise COMMAND --help" for what a command takes.
    """


def main() -> NoReturn:
    """Run the program and exit."""
    share_processor()
    program(prog_name="ssdenoise")
    sys.exit(0)
