"""The speed benchmark's bookkeeping; nothing here takes times."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zarr

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not BENCHMARKS.is_dir(), reason="the benchmark reads Linux's /proc"
)


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import speed

    return speed


def arguments(tmp_path: Path, **changes: Any) -> Any:
    known = {
        "data": tmp_path,
        "work": tmp_path,
        "careamics": None,
        "rounds": 2,
        "seconds": 1.0,
        "warmup": 1,
        "memory": "1 GB",
        "shape_2d": (2, 64, 64),
        "shape_3d": (8, 64, 64),
        "quick": 0.0,
    }
    return SimpleNamespace(**known | changes)


def line(case: str, tool: str, number: int, rate: float, **more: Any) -> dict[str, Any]:
    machine = {"cpu": "any", "cores": 2, "flags": [], "memory": 8e9, "code": "abc", "date": "2030-01-01T00:00"}
    process = {"version": "", "torch": "2", "threads": 2, "precision": "float32", "children_peak_rss": 0}
    shares = {"others_share": 0.0, "steal_share": 0.0}
    settings = {"ndim": 2, "patch": [64, 64], "batch": 16, "seconds": 40}
    known = {"case": case, "tool": tool, "round": number, "rate": rate, "peak_rss": 1e9, "settings": settings}
    return {**known, **process, **shares, "machine": machine, **more}


def test_tools_take_turns(speed: Any, tmp_path: Path) -> None:
    runs = list(speed.list_runs(arguments(tmp_path, cases=["train-2d"], careamics=Path("python"))))
    assert [(run.tool, run.round) for run in runs] == [
        *(("ours", 0), ("careamics", 0), ("bare", 0)),
        *(("ours", 1), ("careamics", 1), ("bare", 1)),
    ]


def test_the_peer_is_left_out_where_it_is_absent_or_too_slow(speed: Any, tmp_path: Path) -> None:
    without = speed.list_runs(arguments(tmp_path, cases=["predict-3d"]))
    whole = speed.list_runs(arguments(tmp_path, cases=["whole-3d", "memory"], careamics=Path("python")))
    assert "careamics" not in {run.tool for run in (*without, *whole)}


def test_what_is_measured_is_not_measured_again(
    speed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []

    def start(_: Any, run: Any) -> dict[str, Any]:
        started.append(run)
        return {"rate": 1.0}

    monkeypatch.setattr(speed, "start", start)
    monkeypatch.setattr(speed, "wait_for_quiet", lambda busy_ok: 0.0)
    given, results = arguments(tmp_path, cases=["train-2d"], busy_ok=False), tmp_path / "speed.jsonl"
    speed.measure(given, results)
    assert len(started) == len(speed.read_results(results)) == 4
    speed.measure(given, results)
    assert len(started) == 4
    speed.measure(arguments(tmp_path, cases=["train-2d"], busy_ok=False, seconds=2.0), results)
    assert len(started) == 8


def test_a_volume_is_repeated_without_copies(speed: Any, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 99, (8, 6, 10), np.uint16)
    source = zarr.create_array(tmp_path / "big.zarr" / "vol", shape=image.shape, chunks=(4, 4, 4), dtype="uint16")
    source[...] = image
    target = tmp_path / "long.zarr" / "vol"
    speed.repeat(tmp_path / "big.zarr" / "vol", target, 3)
    np.testing.assert_array_equal(zarr.open_array(target, mode="r")[...], np.concatenate([image] * 3))
    assert all(p.is_symlink() for p in (target / "c").iterdir())


def test_only_whole_chunks_are_repeated(speed: Any, tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "vol", shape=(7, 4, 4), chunks=(4, 4, 4), dtype="uint16")
    with pytest.raises(ValueError, match="7 planes in chunks of 4"):
        speed.repeat(tmp_path / "vol", tmp_path / "long", 2)


def test_ratios_are_of_medians_and_of_neighbours(speed: Any) -> None:
    ours, theirs = (8.0, 10.0, 12.0), (4.0, 2.0, 3.0)
    lines = [line("train-2d", "ours", n, rate) for n, rate in enumerate(ours)]
    lines += [line("train-2d", "careamics", n, rate) for n, rate in enumerate(theirs)]
    text = speed.tables(lines)
    assert "| 10.00 (8.00 to 12.00) | 3.00 (2.00 to 4.00) | - | 3.33 | 4.00 (2.00 to 5.00) |" in text


def test_efficiency_counts_what_is_computed(speed: Any) -> None:
    settings = {"ndim": 3, "shape": []}
    ours = {"work": 1.25, "plan": "one tile", "settings": settings, "voxels": 100, "read": 200, "written": 300}
    bare = {"settings": {"ndim": 3, "seconds": 40}}
    lines = [line("whole-3d", "ours", 0, 0.72, seconds=9.0, **ours), line("whole-3d", "bare", 0, 1.0, **bare)]
    text = speed.tables(lines)
    assert "| whole-3d | 1.25 | 20% | 90% (90% to 90%) | one tile |" in text
    assert "| whole-3d | ours | 9.0 (9.0 to 9.0) | 1.00 (1.00 to 1.00) | 0.00 (0.00 to 0.00) | 2.00 | 3.00 |" in text


@pytest.mark.parametrize(("peak", "word"), [(1.39e9, "yes"), (1.41e9, "**no**")])
def test_memory_is_obeyed_or_not(speed: Any, peak: float, word: str) -> None:
    lines = []
    for copies, share in ((1, 1.0), (8, 0.95)):
        settings = {"ndim": 3, "memory": "1 GB", "cut": 0.0, "copies": copies}
        more = {"shape": [8, 64, 64], "start_rss": 2e8, "seconds": 9.0, "cut": False}
        lines.append(line("memory", "ours", 0, 0.5, settings=settings, **more | {"peak_rss": peak * share}))
    text = speed.tables(lines)
    assert f"| 1.4 | {word} | - |" in text
    assert "-5.0%" in text


def test_of_several_settings_the_last_count(speed: Any) -> None:
    old = line("train-2d", "ours", 0, 1.0)
    new = line("train-2d", "ours", 0, 9.0, settings={**old["settings"], "seconds": 20})
    text = speed.tables([old, new])
    assert "9.00 (9.00 to 9.00)" in text
    assert "batch 16 of 64x64, 20 s" in text


def test_lines_survive_json(speed: Any, tmp_path: Path) -> None:
    path = tmp_path / "speed.jsonl"
    path.write_text(json.dumps(line("train-2d", "ours", 0, 1.0)) + "\n")
    assert speed.read_results(path) == [line("train-2d", "ours", 0, 1.0)]
    assert speed.read_results(tmp_path / "none.jsonl") == []
