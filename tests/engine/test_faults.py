"""Runs that die at any moment go on where they were, and end in the same bytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# One process makes the model, and forks a child for every run: torch is loaded once. A child counts what Python does in
# all of its threads, and kills itself at the number it is told: in the middle of reading, computing, writing chunks and
# the ledger, building the pyramid, or renaming.
KILLS = r"""
import gc, json, os, random, signal, sys, threading
import numpy as np, torch
from pathlib import Path
from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.engine import plan, stream
from napari_ssdenoise.engine.job import Ledger
from napari_ssdenoise.io import _pyramid, ome_zarr_writer, tiff_writer, npy
from napari_ssdenoise.model import Geometry, TrainedModel
from napari_ssdenoise.normalize import Normalization
from napari_ssdenoise.volume import Volume

folder, name, way, kills, seed = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
torch.set_num_threads(1)
stream.OUTPUT_CHUNK = {"Z": 4, "Y": 16, "X": 16, "T": 1, "C": 1}
_pyramid.SMALLEST, _pyramid.SMALLEST_CHUNK = 4, 256  # two levels from the blocks, the others at the end
spatial, axes, shape = ("ZYX", "TZYX", (2, 18, 40, 36)) if way == "flow" else ("YX", "ZYX", (5, 40, 36))
if way == "flow":
    plan._Planner._choices = lambda self: iter([(0, 2)])
algorithm = get_algorithm("n2v", width=4, depth=1)
geometry = Geometry(spatial, 1, "auto", (True,) * len(spatial))
with torch.random.fork_rng():
    torch.manual_seed(0)
    model = TrainedModel(algorithm, geometry.build(algorithm).eval(), geometry, Normalization((100.0,), (20.0,)))
image = np.random.default_rng(0).poisson(100, shape).astype(np.uint16)
volume = Volume(image, axes, scale=(1.0,) * len(axes), units=("micrometer",) * len(axes), name="noisy")


def run(out, limit, log):
    "Make the output in a child; return its signal (0: it came to its end)."
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        count = [0]

        def event(*_):
            count[0] += 1
            if count[0] == limit:
                os.kill(os.getpid(), signal.SIGKILL)

        note = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        add = Ledger.add

        def noted(self, tile):
            os.write(note, f"{tile}\n".encode())
            add(self, tile)

        Ledger.add = noted
        gc.disable()  # CPython 3.11 may crash where it collects while a profile function runs
        threading.setprofile(event)
        sys.setprofile(event)
        options = {"tile": (16, 16)} if way == "tiles" else {"memory": "300 MB"}
        for done in model.predict_into(volume, out, device="cpu", precision="float32", dtype="float32", **options):
            pass
        sys.setprofile(None)
        threading.setprofile(None)
        os.write(note, f"events {count[0]} total {done.total}\n".encode())
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def check(good, text):
    if not good:
        raise SystemExit(text)


whole = folder / f"whole{name}"
log = folder / "log"
check(run(whole, 0, log) == 0, "the uninterrupted run failed")
_, events, _, total = lines(log)[-1].split()
events, total = int(events), int(total)
rng = random.Random(seed)
moments, outputs, computed_again = [], 0, []
while len(moments) < kills:
    out = folder / f"{outputs}{name}"
    ledger = folder / f".{out.name}.ledger"
    outputs += 1
    while not out.exists():
        log.unlink(missing_ok=True)
        before = len(lines(ledger)) - 1
        limit = rng.randrange(1, events) if len(moments) < kills else 0
        status = run(out, limit, log)
        written = [line for line in lines(log) if line.startswith("[")]
        if status == 0:
            check(before < 0 or len(written) == total - before, f"{len(written)} blocks computed, {before} were done")
        else:
            check(status == signal.SIGKILL, f"a run after {len(moments)} kills ended with status {status}")
            moments.append(limit)
            # What was noted stays noted; one block at most was on disk without a note.
            done = len(lines(ledger)) - 1
            if not out.exists() and done >= 0:
                check(len(written) + max(before, 0) - done in (0, 1), f"{len(written)} + {before} made, {done} noted")
print(json.dumps({"kills": len(moments), "outputs": outputs, "total": total, "events": events}))
"""


def contents(path: Path) -> dict[str, bytes]:
    """Return the bytes of a file, or of all files of a folder; but for the random name that OME-TIFF has inside."""
    if path.is_file():
        return {"": re.sub(rb"uuid:[0-9a-f-]{36}", b"", path.read_bytes())}
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(
    ("name", "way", "kills"),
    [
        (".ome.zarr", "flow", 12),
        (".ome.zarr", "tiles", 6),
        (".tif", "tiles", 4),
        (".ome.tif", "flow", 3),
        (".npy", "flow", 3),
    ],
)
def test_killed_at_random_moments_it_ends_in_the_same_bytes(tmp_path: Path, name: str, way: str, kills: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path), name, way, str(kills), "1"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["kills"] == kills
    expected = contents(tmp_path / f"whole{name}")
    for number in range(found["outputs"]):
        assert contents(tmp_path / f"{number}{name}") == expected
