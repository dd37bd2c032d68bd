"""What can be made again: as a command, as Python, or as a notebook of both."""

from __future__ import annotations

import json
import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "spatial": None,
    "channels": "auto",
    "device": "auto",
    "precision": "auto",
    "axes": None,
    "augment": False,
}


@cache
def versions() -> dict[str, str]:
    """Return the versions of all that results depend on."""
    found = {"python": platform.python_version()}
    for package in ("napari-ssdenoise", "torch", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # used from its source folder
            found[package] = "unknown"
    return found


class Repeatable(ABC):
    """A result that a command or Python code makes from a file.

    Attributes
    ----------
    source
        The file.
    """

    source: Path

    @property
    @abstractmethod
    def output(self) -> Path:
        """Where the result goes: beside the file."""

    @abstractmethod
    def command(self, output: Path | None = None) -> str:
        """Return the command line that makes the result, for a shell."""

    @abstractmethod
    def python(self, output: Path | None = None) -> str:
        """Return the Python code that makes the result."""

    def notebook(self, output: Path | None = None) -> str:
        """Return a Jupyter notebook, as JSON, that makes the result."""
        made = ", ".join(f"{name} {number}" for name, number in versions().items())
        title = f"# {self.source.name}\n\nMade with {made}. The same as a command:\n\n    {self.command(output)}\n"
        code: dict[str, Any] = {
            "cell_type": "code",
            "id": "code",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
        }
        return json.dumps(
            {
                "nbformat": 4,
                "nbformat_minor": 5,
                "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
                "cells": [
                    {"cell_type": "markdown", "id": "about", "metadata": {}, "source": title.splitlines(keepends=True)},
                    {**code, "source": self.python(output).splitlines(keepends=True)},
                ],
            },
            indent=1,
        )


def telling(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is so by default."""
    return {name: value for name, value in values.items() if name not in DEFAULTS or DEFAULTS[name] != value}


def flag(name: str, value: Any) -> list[str]:
    """Write one setting as words of a command."""
    written = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{written}" if value else f"--no-{written}"]
    return [f"--{written}", "auto" if value is None else str(value)]


def arguments(*positional: Any, **named: Any) -> str:
    """Write the arguments of a call."""
    return ", ".join([*map(literal, positional), *(f"{name}={literal(value)}" for name, value in named.items())])


def literal(value: Any) -> str:
    """Write a value as Python code, strings in double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    value = value.item() if isinstance(value, np.generic) else value
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
