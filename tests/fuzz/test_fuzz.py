"""Thousands of damaged files and odd words: each is read, or refused in words that name it; nothing else happens.

A few hundred cases run with the other tests. More, and others:

    pytest tests/fuzz --fuzz-cases 10000 --fuzz-first 1000

A case is a function of its number, so ``--fuzz-first`` at a number that failed repeats it.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TARGETS = {
    "tiff": 4,
    "npy": 1,
    "png": 1,
    "zarr": 3,
    "nifti": 2,
    "dicom": 2,
    "kspace": 2,
    "models": 3,
    "axes": 2,
    "tiles": 2,
    "words": 1,
}


def run_cases(name: str, first: int, count: int, folder: Path) -> tuple[list[str], dict[str, int]]:
    """Run cases; one that takes its process along is noted, and the rest run in another one."""
    failures: list[str] = []
    outcomes: collections.Counter[str] = collections.Counter()
    end = first + count
    while first < end:
        command = [sys.executable, str(HERE / "worker.py"), name, str(first), str(end - first), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        begun = None
        for line in done.stdout.splitlines():
            said: dict[str, Any] = json.loads(line)
            begun = said.get("begin", begun)
            outcomes.update(said.get("outcomes", {}))
            if "failed" in said:
                failures.append(f"{name} {said['failed']}: {said['why']}")
        if done.returncode == 0:
            break
        if begun is None:
            raise RuntimeError(done.stderr)
        failures.append(f"{name} {begun} crashed or hung ({done.returncode}): {done.stderr[-2000:]}")
        first = begun + 1
    return failures, outcomes


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_told_and_nothing_is_left_half_done(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    total, first = request.config.getoption("--fuzz-cases"), request.config.getoption("--fuzz-first")
    count = -(-total * TARGETS[name] // sum(TARGETS.values()))
    failures, outcomes = run_cases(name, first, count, tmp_path)
    with capsys.disabled():
        if total > 1000:
            sys.stdout.write(f"\n{name}: {count} cases, {len(failures)} failed; {json.dumps(outcomes)}\n")
    assert not failures, "\n\n".join(failures[:20])
    assert sum(outcomes.values()) == count
