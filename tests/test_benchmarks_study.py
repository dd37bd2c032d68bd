"""The study benchmark's own arithmetic, without its data."""

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
    import study

    return study


def test_images_are_cut_into_parts(benchmark: ModuleType) -> None:
    image = np.arange(7 * 9).reshape(7, 9)
    cut = benchmark.parts(image, 3)
    assert cut.shape == (6, 3, 3)
    np.testing.assert_array_equal(cut[4], image[3:6, 3:6])


def test_predictions_are_compared_with_what_came(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_ssdenoise.study.data import DataStudy, DataTraining

    rng = np.random.default_rng(0)
    found = tuple(
        DataTraining(n, s, (10 + 20 / n) * (1 + 0.01 * rng.standard_normal()), 0)
        for s in range(3)
        for n in (1, 2, 4, 8)
    )
    monkeypatch.setattr(benchmark.ssd, "study_data", lambda **_: DataStudy(8, 3, "target", 100.0, found))
    row = benchmark.predicted({"images": None}, 3)
    assert row["half"] == 4
    assert row["measured"] == pytest.approx(10 * np.log10(15 / 12.5), abs=0.1)
    assert row["close"]
    few = tuple(t for t in found if t.size < 8)
    monkeypatch.setattr(benchmark.ssd, "study_data", lambda **_: DataStudy(4, 3, "target", 100.0, few))
    with pytest.raises(ValueError, match="too few"):
        benchmark.predicted({"images": None}, 3)


def test_without_its_data_it_says_that_it_skips(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["study.py", "predictions"])
    benchmark.main()
    assert "skipped" in capsys.readouterr().out
