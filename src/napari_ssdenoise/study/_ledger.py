"""A file of JSON lines, one per finished measurement, so that a stopped study goes on."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ledger:
    """Measurements on disk, each written as soon as it is there.

    Parameters
    ----------
    path
        A file of JSON lines; made when the first measurement is added. None keeps nothing.
    study
        Identifies what was measured and how. Lines of other studies stay in the file and are not read.
    """

    path: Path | None
    study: str

    def read(self) -> list[dict[str, Any]]:
        """Return this study's measurements, oldest first; a line that a killed run left unfinished is no measurement.

        Raises
        ------
        ValueError
            If the file holds something else.
        """
        if self.path is None or not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        lines = text.splitlines()
        if text and not text.endswith("\n"):
            lines.pop()
        try:
            entries = [json.loads(line) for line in lines if line.strip()]
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{self.path} is not a ledger of measurements (line {error.doc[:30]!r}). Move it away."
            ) from error
        return [entry for entry in entries if isinstance(entry, dict) and entry.get("study") == self.study]

    def add(self, entry: dict[str, Any]) -> None:
        """Write a measurement, on the disk before this returns."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"study": self.study, **entry}) + "\n"
        with self.path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # a run was killed within a line: drop what it left
                    file.seek(0)
                    file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
