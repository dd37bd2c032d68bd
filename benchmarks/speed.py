"""Measure speed, memory and traffic: ours, the bare network's and CAREamics', on the same data with the same network.

The folder ``--data`` must hold ``camera_g25.npy`` (2D), ``vol_noisy.npy`` (3D) and ``big.zarr/vol`` (ZYX, zarr 3).
Every run is a process of its own, and the tools take turns; see ``--cases`` for what is measured:

- ``train-2d``, ``train-3d``: steps per second. "bare" repeats the network's steps on one batch, without any data.
- ``predict-2d``, ``predict-3d``: from a zarr into a zarr, a part of the volume. "bare" is the network's forward pass on
  tiles that are there, in the fastest of several sizes.
- ``whole-2d``, ``whole-3d``: the same for the whole volume, without CAREamics, which takes about an hour.
- ``memory``: the whole volume in 1, 2 and 4 GB, and one of eight times as many planes in 4 GB.

Each run is one line of JSON, added to ``--results`` as soon as it is there; a run that is there already is not
repeated, so a stopped benchmark goes on. ``--table`` prints the results in Markdown and measures nothing. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed_process import machine_seconds
from speed_table import tables

HERE = Path(__file__).resolve().parent
CASES = ("train-2d", "train-3d", "predict-2d", "predict-3d", "whole-2d", "whole-3d", "memory")
PARAMETERS = {2: 333_729, 3: 997_857}  # of the network that all compare
TRAINING = {2: ("camera_g25.npy", [64, 64], 16), 3: ("vol_noisy.npy", [16, 64, 64], 4)}
TILES = {2: ([256, 256], [48, 48]), 3: ([32, 128, 128], [8, 48, 48])}  # CAREamics': tile, overlap
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
QUIET = 0.1  # of the machine that others may use


@dataclass(frozen=True)
class Run:
    """One process: a tool's task, with what tells it from others (``settings``) and where its files are (``files``)."""

    case: str
    tool: str
    round: int
    task: str
    settings: dict[str, Any]
    files: dict[str, str]
    makes: str = ""  # name of the output, where there is one

    @property
    def key(self) -> dict[str, Any]:
        return {"case": self.case, "tool": self.tool, "round": self.round, "settings": self.settings}


def list_runs(arguments: argparse.Namespace) -> Iterator[Run]:
    """List all runs in order: round by round, and within a round the tools in turn."""
    for case in arguments.cases:
        if case == "memory":
            yield from _memory_runs(arguments)
            continue
        kind, ndim = case[:-3], int(case[-2])
        for number in range(arguments.rounds):
            for tool in ("ours", "careamics", "bare"):
                if tool == "careamics" and (kind == "whole" or not arguments.careamics):
                    continue
                if kind == "train":
                    yield _training(arguments, case, tool, ndim, number)
                else:
                    yield _prediction(arguments, case, tool, ndim, number)


def _training(arguments: argparse.Namespace, case: str, tool: str, ndim: int, number: int) -> Run:
    name, patch, batch = TRAINING[ndim]
    settings = {
        "ndim": ndim,
        "patch": patch,
        "batch": batch,
        "seconds": arguments.seconds,
        "warmup": arguments.warmup,
    }
    files = {} if tool == "bare" else {"data": str(arguments.data / name)}
    return Run(case, tool, number, "train_bare" if tool == "bare" else "train", settings, files)


def _prediction(arguments: argparse.Namespace, case: str, tool: str, ndim: int, number: int) -> Run:
    if tool == "bare":
        return Run(case, tool, number, "forward", {"ndim": ndim, "seconds": arguments.seconds}, {})
    shape = _shape(arguments, ndim)
    whole = case.startswith("whole")
    source = arguments.data / "big.zarr" / "vol" if whole else _part(arguments.work, ndim, shape) / "vol"
    settings: dict[str, Any] = {"ndim": ndim, "shape": [] if whole else shape}
    if tool == "careamics":
        tile, overlap = TILES[ndim]
        settings |= {"tile": tile, "overlap": overlap}
    else:
        settings |= {"memory": arguments.memory}
    files = {"model": str(_model(arguments.work, tool, ndim)), "source": str(source)}
    return Run(case, tool, number, "predict", settings, files, "out.ome.zarr")


def _memory_runs(arguments: argparse.Namespace) -> Iterator[Run]:
    big = arguments.data / "big.zarr" / "vol"
    for memory, copies in (("1 GB", 1), ("2 GB", 1), ("4 GB", 1), ("4 GB", 8)):
        source = big if copies == 1 else arguments.work / f"big_x{copies}.zarr" / "vol"
        settings = {"ndim": 3, "memory": memory, "cut": arguments.quick, "copies": copies}
        files = {"model": str(_model(arguments.work, "ours", 3)), "source": str(source)}
        yield Run("memory", "ours", 0, "predict", settings, files, "out.ome.zarr")


def prepare(run: Run, arguments: argparse.Namespace) -> None:
    """Make a run's inputs where they are missing: models, parts of the volume, the volume repeated."""
    if run.task != "predict":
        return
    ndim, big = run.settings["ndim"], arguments.data / "big.zarr" / "vol"
    source, copies = Path(run.files["source"]), run.settings.get("copies", 1)
    part, model = _part(arguments.work, ndim, _shape(arguments, ndim)), _model(arguments.work, run.tool, ndim)
    if copies > 1 and not source.exists():
        repeat(big, source, copies)
    ours = _model(arguments.work, "ours", ndim)
    if not part.exists() or not ours.exists():
        shape = {"ndim": ndim, "shape": _shape(arguments, ndim)}
        files = {"data": str(arguments.data), "source": str(big), "out": str(ours), "part": str(part)}
        start(arguments, Run("prepare", "ours", 0, "prepare", shape, files))
    if not model.exists():
        name, patch, batch = TRAINING[ndim]
        settings = {"ndim": ndim, "patch": patch, "batch": batch}
        files = {"data": str(arguments.data / name), "out": str(model)}
        start(arguments, Run("prepare", run.tool, 0, "checkpoint", settings, files))


def repeat(source: Path, target: Path, copies: int) -> None:
    """Make a zarr array of ``copies`` times as many planes, whose chunks are links to those of ``source``."""
    facts = json.loads((source / "zarr.json").read_text())
    planes, depth = facts["shape"][0], facts["chunk_grid"]["configuration"]["chunk_shape"][0]
    if planes % depth:
        raise ValueError(f"{source} has {planes} planes in chunks of {depth}; only whole chunks can be repeated.")
    facts["shape"][0] = planes * copies
    (target / "c").mkdir(parents=True)
    layers = planes // depth
    for layer in range(layers * copies):
        (target / "c" / str(layer)).symlink_to((source / "c" / str(layer % layers)).resolve())
    (target / "zarr.json").write_text(json.dumps(facts))


def start(arguments: argparse.Namespace, run: Run) -> dict[str, Any]:
    """Do a run in a new process, and return its figures, with the share of the machine that others took."""
    theirs = run.tool == "careamics"
    script = HERE / ("speed_careamics.py" if theirs else "speed_ours.py")
    environment = dict(os.environ)
    if theirs:
        environment.pop("PYTHONPATH", None)  # ours
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="run-") as name:
        folder = Path(name)
        values = {k: v for k, v in run.settings.items() if k not in {"copies", *(("shape",) if run.makes else ())}}
        values |= run.files | ({"out": str(folder / run.makes)} if run.makes else {})
        (folder / "job.json").write_text(json.dumps({"task": run.task, "arguments": values}))
        command = [str(arguments.careamics if theirs else sys.executable), str(script), "job.json", "result.json"]
        before, used = machine_seconds(), _children_seconds()
        began = time.perf_counter()
        with (folder / "log").open("w") as log:
            code = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log).returncode
        seconds = (time.perf_counter() - began) * (os.cpu_count() or 1)
        after = machine_seconds()
        if code:
            end = "\n".join((folder / "log").read_text(errors="replace").splitlines()[-15:])
            sys.exit(f"{run.case}, {run.tool}: the process failed with {code}; it said at last:\n{end}")
        figures: dict[str, Any] = json.loads((folder / "result.json").read_text())
    others = after[0] - before[0] - (_children_seconds() - used)
    figures["others_share"] = round(max(0.0, others) / seconds, 3)
    figures["steal_share"] = round((after[1] - before[1]) / seconds, 3)
    if figures["parameters"] != PARAMETERS[run.settings["ndim"]]:
        sys.exit(f"{run.case}, {run.tool}: the network has {figures['parameters']} parameters: no fair comparison.")
    return figures


def wait_for_quiet(busy_ok: bool, tries: int = 15, pause: float = 4.0) -> float:
    """Return the share of the machine that others use; wait for them, and refuse to measure beside them."""
    share = 0.0
    for _ in range(1 if busy_ok else tries):
        before, began = machine_seconds()[0], time.perf_counter()
        time.sleep(pause)
        share = (machine_seconds()[0] - before) / (time.perf_counter() - began) / (os.cpu_count() or 1)
        if share <= QUIET:
            return share
    words = f"other programs use {share:.0%} of this machine"
    if not busy_ok:
        sys.exit(f"refused: {words}; figures would say little. Stop them, or pass --busy-ok.")
    print(f"WARNING: {words}; these figures say little.", file=sys.stderr, flush=True)
    return share


def machine() -> dict[str, Any]:
    """Describe where this runs, and which version of the code."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    facts = {name.strip(): value.strip() for name, _, value in lines}
    flags = set(facts.get("flags", "").split())
    commit = _git("describe", "--always", "--tags")
    changed = _git("status", "--porcelain", "--", "../src", "*.py")  # the results themselves change all the time
    return {
        "cpu": facts.get("model name", "unknown"),
        "cores": os.cpu_count(),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "code": f"{commit}, changed" if changed else commit,
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def measure(arguments: argparse.Namespace, results: Path) -> None:
    """Do all runs that are not there yet."""
    done = read_results(results)
    for run in list_runs(arguments):
        if any(all(line[k] == v for k, v in run.key.items()) for line in done):
            continue
        prepare(run, arguments)
        share = wait_for_quiet(arguments.busy_ok)
        line = {**run.key, **start(arguments, run), "busy_before": round(share, 3), "machine": machine()}
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        done.append(line)
        print(f"{run.case} {run.tool} {run.round}: {line['rate']:.3f}", file=sys.stderr, flush=True)


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the measurements of a file, none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check_peer(python: Path | None) -> Path | None:
    """Return the interpreter if CAREamics can be imported there."""
    if python is None:
        print("skipped: CAREamics; give --careamics PYTHON, an interpreter that has it.", file=sys.stderr)
        return None
    python = Path(shutil.which(python) or python).absolute()  # not resolved: a link tells Python its environment
    try:
        found = subprocess.run([str(python), "-c", "import careamics, lightning, zarr"], capture_output=True, text=True)
        problem = (found.stderr.strip().splitlines() or ["it failed"])[-1] if found.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        print(f"skipped: CAREamics cannot be imported by {python}: {problem}", file=sys.stderr)
    return None if problem else python


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True).stdout.strip()


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _shape(arguments: argparse.Namespace, ndim: int) -> list[int]:
    return list(arguments.shape_2d if ndim == 2 else arguments.shape_3d)


def _part(folder: Path, ndim: int, shape: list[int]) -> Path:
    return folder / f"part_{ndim}d_{'x'.join(map(str, shape))}.zarr"


def _model(folder: Path, tool: str, ndim: int) -> Path:
    return folder / f"{tool}_{ndim}d{'.ckpt' if tool == 'careamics' else '.model'}"


def _lengths(text: str) -> tuple[int, ...]:
    lengths = tuple(int(n) for n in text.split(","))
    if len(lengths) != 3 or min(lengths) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not planes, rows, columns; write it as 64,512,512.")
    return lengths


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the images, see above")
    parser.add_argument("--careamics", type=Path, metavar="PYTHON", help="interpreter that has CAREamics and lightning")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument("--rounds", type=int, default=3, help="alternations (default: 3)")
    parser.add_argument("--seconds", type=float, default=40, help="of training, and of the forward pass (default: 40)")
    parser.add_argument("--warmup", type=int, default=5, help="steps before the clock starts (default: 5)")
    parser.add_argument("--memory", default="4 GB", help="for predictions (default: 4 GB)")
    parser.add_argument("--shape-2d", type=_lengths, default=(16, 1024, 1024), help="part (default: 16,1024,1024)")
    parser.add_argument("--shape-3d", type=_lengths, default=(64, 512, 512), help="part (default: 64,512,512)")
    parser.add_argument(
        "--quick", type=float, nargs="?", const=90.0, default=0.0, help="cut memory's runs after so long (90 s)"
    )
    parser.add_argument("--busy-ok", action="store_true", help="measure beside other programs, with a warning")
    parser.add_argument("--work", type=Path, help="folder for models and outputs (default: in the temporary folder)")
    parser.add_argument("--results", type=Path, help="JSON lines to add to (default: results/speed.jsonl)")
    parser.add_argument("--table", action="store_true", help="print the results and measure nothing")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    results = arguments.results or HERE / "results" / "speed.jsonl"
    if not arguments.table:
        names = [name for name, _, _ in TRAINING.values()] + ["big.zarr/vol/zarr.json"]
        missing = [name for name in names if not arguments.data or not (arguments.data / name).exists()]
        if missing:
            sys.exit(f"skipped: {arguments.data or 'no --data folder'} has no {', '.join(missing)}; see --help.")
        arguments.data = arguments.data.resolve()
        arguments.work = (arguments.work or Path(tempfile.gettempdir()) / "ssdenoise-speed").resolve()
        arguments.work.mkdir(parents=True, exist_ok=True)
        results.parent.mkdir(parents=True, exist_ok=True)
        arguments.careamics = check_peer(arguments.careamics)
        measure(arguments, results)
    print(tables(read_results(results)))


if __name__ == "__main__":
    main()
