"""The reconstruction benchmark's own arithmetic, without its data."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="an installed package has no benchmarks")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import reconstruction

    return reconstruction


def test_masks_keep_the_centre_and_as_many_lines_as_they_say(benchmark: ModuleType) -> None:
    masks = [benchmark.lines(seed) for seed in benchmark.SEEDS]
    for mask in masks:
        assert mask.sum() == 80
        assert mask[147:173].all()
    assert not np.array_equal(masks[0], masks[1])


def test_planes_are_made_smaller_and_stay_where_they_are(benchmark: ModuleType) -> None:
    y, x = np.mgrid[:233, :189]
    small = benchmark._resized(np.exp(-((y - 116) ** 2 + (x - 94) ** 2) / 800).astype(np.float32))
    assert small.shape == benchmark.SHAPE
    top, left = np.unravel_index(small.argmax(), small.shape)
    assert abs(top - 48) <= 1
    assert abs(left - 42) <= 1


def test_without_its_data_it_says_that_it_skips(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["reconstruction.py", "slice", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        benchmark.main()
    assert stopped.value.code == 0
    assert "skipped" in capsys.readouterr().out
