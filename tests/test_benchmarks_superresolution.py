"""The super-resolution benchmark's bookkeeping, on an image of a few pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.torch import save_file

from napari_ssdenoise.networks.resnet_sr import ResidualNet
from napari_ssdenoise.ops.degrade import Degradation
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from types import ModuleType

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="an installed package has no benchmarks")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import superresolution

    return superresolution


def case(benchmark: ModuleType) -> Any:
    truth = np.random.default_rng(0).normal(100, 20, (48, 48)).astype(np.float32)
    coarse = truth.reshape(24, 2, 24, 2).mean((1, 3))
    made = Degradation.gaussian([1.0, 1.0], (2, 2))
    return benchmark.Case("noise", "drawn x2", 2, lambda: (Volume(coarse, "YX"), truth, made, benchmark.score_range))


def test_one_run_scores_as_several_do(benchmark: ModuleType) -> None:
    drawn = case(benchmark)
    weights = benchmark.shipped(drawn)
    together = dict(benchmark.measure(drawn, ["mzsr 1 sgd", "mzsr 0"], weights))
    alone = dict(benchmark.measure(drawn, ["mzsr 0"], weights))
    assert list(together) == ["mzsr 0", "mzsr 1 sgd"]
    assert together["mzsr 0"]["psnr"] == alone["mzsr 0"]["psnr"] != together["mzsr 1 sgd"]["psnr"]


def test_other_weights_are_begun_with(benchmark: ModuleType, tmp_path: Path) -> None:
    drawn = case(benchmark)
    network = ResidualNet(2)
    for parameter in network.parameters():
        parameter.detach().zero_()  # which leaves the interpolated image as it is
    save_file(network.state_dict(), tmp_path / "zero.safetensors")
    assert benchmark.digest(tmp_path / "zero.safetensors") != benchmark.digest(benchmark.shipped(drawn))
    ((_, begun),) = benchmark.measure(drawn, ["mzsr 0"], tmp_path / "zero.safetensors")
    ((_, cubic),) = benchmark.measure(drawn, ["cubic"], benchmark.shipped(drawn))
    assert begun["psnr"] == pytest.approx(cubic["psnr"], abs=1e-3)


def test_a_table_says_how_many_images_a_mean_is_of(benchmark: ModuleType) -> None:
    group = "set5 x2 g_ani"
    lines = [
        {"name": name, "group": group, "method": method, "psnr": psnr, "seconds": 2.0}
        for name, method, psnr in (("a", "ibp", 30.0), ("b", "ibp", 31.0), ("a", "zssr 1000", 32.0))
    ]
    last = benchmark.table(lines).splitlines()[-1]
    assert last == f"| {group} | - | 30.50 (2.0) | 32.00 (2.0, n=1) | 28.15, 33.96, 34.05, 34.78 |"
