"""The comparison of all denoisers, on images of a few pixels: what is measured, scored, skipped and written down."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import napari_ssdenoise as ssd

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="an installed package has no benchmarks")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import quality

    return quality


def frames(benchmark: ModuleType, count: int = 3) -> Any:
    y, x = np.mgrid[:64, :64] / 9
    truth = (100 + 40 * np.sin(y) * np.cos(x)).astype(np.float32)
    noisy = np.random.default_rng(0).normal(truth, 20, (count, 64, 64)).astype(np.float32)
    learn = ssd.Volume(noisy, "TYX")
    return benchmark.Data(learn, [(ssd.Volume(noisy[0], "YX"), truth)], 100.0, {"sigma": 20.0})


def test_filters_and_means(benchmark: ModuleType) -> None:
    data = frames(benchmark)
    found = {name: benchmark.run(name, data, {})[1]["psnr"] for name in ("noisy", "mean", "gaussian")}
    assert found["noisy"] == pytest.approx(14, abs=0.3)
    assert found["mean"] == pytest.approx(found["noisy"] + 4.77, abs=0.3)
    assert found["gaussian"] > found["mean"]
    assert benchmark.run("mean", frames(benchmark, 1), {}) is None


def test_contrast_and_brightness_do_not_count_where_they_are_unknown(benchmark: ModuleType) -> None:
    data = frames(benchmark)
    truth = data.tests[0][1]
    free = benchmark.Data(data.learn, data.tests, 100.0, affine=True)
    assert benchmark.score([0.5 * truth - 7], free)["psnr"] > 80
    assert benchmark.score([0.5 * truth - 7], data)["psnr"] < 20


def test_a_measurement_is_written_down_and_not_repeated(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(benchmark.TRAINED, "n2n", ("n2n", {"pairs": "frames", "patch": 32, "batch": 1, "width": 4}))
    options = argparse.Namespace(
        seconds=0.2, steps=None, careamics=None, methods=["noisy", "n2n"], pictures=tmp_path / "pictures"
    )
    done: list[dict[str, Any]] = []
    path = tmp_path / "results.jsonl"
    for _ in range(2):
        benchmark.measure("fmd", "drawn", lambda: frames(benchmark), options, done, path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["method"] for line in lines] == ["noisy", "n2n"]
    assert lines == done
    assert {"psnr", "ssim", "seconds", "steps", "of_mean", "augmented"} <= set(lines[1])
    assert (tmp_path / "pictures" / "fmd_drawn.png").exists()
    table = benchmark.table([*done, {**done[0], "case": "other"}])
    assert f"| mean psnr | {lines[0]['psnr']:.2f} | {lines[1]['psnr']:.2f} (1) |" in table


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for the other Python is a shell script")
def test_careamics_is_run_by_a_python_of_its_own(benchmark: ModuleType, tmp_path: Path) -> None:
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "import numpy as np\n"
        "script, job, result = sys.argv[1:]\n"
        "job = json.load(open(job))\n"
        "assert script.endswith('quality_careamics.py') and job['task'] == 'n2v'\n"
        "mean = np.load(job['arguments']['learn']).mean(0)\n"
        "for test in job['arguments']['tests']:\n"
        "    np.save(test, mean)\n"
        "steps = job['arguments']['seconds'] * 10\n"
        "json.dump({'steps': steps, 'train_seconds': 2, 'version': '0', 'rest': 1}, open(result, 'w'))\n"
    )
    stand_in.chmod(0o755)
    data = frames(benchmark)
    results, facts = benchmark.run("careamics", data, {"seconds": 2}, stand_in)
    np.testing.assert_allclose(results[0], np.asarray(data.learn).mean(0), rtol=1e-6)
    assert (facts["steps"], facts["version"]) == (20, "0")
    assert facts["psnr"] == pytest.approx(benchmark.run("mean", data, {})[1]["psnr"])
    assert benchmark.run("careamics", data, {"seconds": 2}) is None
    assert benchmark.run("careamics", data, {"steps": 2}, stand_in) is None
