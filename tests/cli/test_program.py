"""The group itself: lazy verbs, exit codes, errors in one line."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from importlib import import_module

import click
import pytest
from click.testing import CliRunner

from napari_ssdenoise.cli import program
from napari_ssdenoise.cli._program import VERBS, Program, Stopped, explain
from napari_ssdenoise.cli._report import Reporter, duration


def loaded_after(arguments: list[str]) -> set[str]:
    """Run the program in a fresh Python and return the packages it loaded."""
    code = (
        "import sys, contextlib\nfrom napari_ssdenoise.cli import main\nsys.argv[1:] = " + repr(arguments) + "\n"
        "with contextlib.suppress(SystemExit):\n    main()\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--help"], {"torch", "rich", "numpy", "zarr", "tifffile"}),
        (["train", "--help"], {"torch", "rich", "zarr", "tifffile"}),
        (["denoise", "missing.tif", "-o", "out.tif"], {"torch"}),
        (["train", "missing.tif", "-o", "x.model"], {"torch"}),
    ],
    ids=["help", "help of a verb", "denoise a missing file", "train on a missing file"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(arguments, absent):
    assert not loaded_after(arguments) & absent


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_module_and_help(verb, run):
    command = import_module(f"napari_ssdenoise.cli.{verb}").command
    assert command.name == verb
    text = run(verb, "--help").output
    assert "--json" in text
    assert "--debug" in text


def test_group_lists_the_verbs(run):
    text = run("--help").output
    assert all(verb in text for verb in VERBS)
    assert run("--version").output.strip()


def test_a_wrong_command_is_a_usage_error(run):
    assert "No such command" in run("denoize", code=2).stderr
    assert "--output" in run("train", "a.tif", code=2).stderr


def failing(error: BaseException) -> click.Group:
    """Make a program whose only verb raises."""

    class Failing(Program):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
            def fail() -> None:
                raise error

            command = program.get_command(ctx, "algorithms")
            assert command is not None
            return click.Command(cmd_name, params=command.params, callback=lambda as_json: fail())

    return Failing(name="ssdenoise")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ValueError("wrong\n   axes"), 1, "error: wrong axes"),
        (MemoryError(), 1, "error: not enough memory"),
        (ArithmeticError("diverged"), 1, "error: diverged"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 1, "error: /data/x: No space left on device"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, "can't allocate memory"),
        (KeyboardInterrupt(), 130, "stopped: "),
        (Stopped("at step 4"), 130, "stopped: at step 4"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_become_one_line_and_a_code(error, code, words):
    result = CliRunner().invoke(failing(error), ["any"])
    assert result.exit_code == code
    assert words in result.stderr
    assert "Traceback" not in result.output
    with_json = CliRunner().invoke(failing(error), ["any", "--json"])
    assert with_json.exit_code == code
    assert json.loads(with_json.stdout)[words.split(":")[0] if ":" in words else "error"]


def test_debug_shows_where_an_error_comes_from():
    result = CliRunner().invoke(failing(ValueError("here")), ["any", "--debug"])
    assert isinstance(result.exception, ValueError)


def test_a_mistake_of_the_program_is_not_hidden():
    result = CliRunner().invoke(failing(TypeError("a bug")), ["any"])
    assert isinstance(result.exception, TypeError)


def test_explain_names_the_file_once():
    assert explain(FileNotFoundError(errno.ENOENT, "no such file", "a.tif")) == "a.tif: no such file"
    assert explain(OSError(errno.EIO, "a.tif cannot be read", "a.tif")) == "a.tif cannot be read"
    assert "space" in explain(OSError(errno.ENOSPC, "Errno 28"))
    assert explain(ZeroDivisionError()) == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(7.6, "8 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (float("nan"), "?"), (-1, "0 s")],
)
def test_durations_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_json_has_no_infinity_and_keeps_letters(capsys):
    Reporter(as_json=True).result({"psnr": float("inf"), "name": "µ", "parts": (1, 2.5, None, True)})
    assert json.loads(capsys.readouterr().out) == {"psnr": None, "name": "µ", "parts": [1, 2.5, None, True]}


def test_progress_of_a_terminal_is_a_bar(monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with Reporter(as_json=False).progress("training") as update:
        update(0.5, 30.0, "step 1/2, loss [0.5]")
        update(1.0, 0.0, "step 2/2, loss [0.25]")
    shown = sys.stderr.getvalue()
    assert "training" in shown
    assert "[0.25]" in shown
    assert "100%" in shown
