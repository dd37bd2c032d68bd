"""The scripts that make the program's weights run, log and go on where they were stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "training"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the scripts are in a clone of the repository only"),
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        plane = np.random.default_rng(number).uniform(0, 255, (20, 20)).astype(np.uint8)
        Image.fromarray(plane).resize((160, 144), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("script", "options", "budget"),
    [
        ("denoising", ["--network", "blindspot"], "--minutes"),
        ("denoising", ["--network", "unet"], "--minutes"),
        ("superresolution", ["--meta", "0", "--judges", "1"], "--supervised"),
    ],
    ids=["blindspot", "unet", "superresolution"],
)
def test_a_script_trains_and_goes_on(
    script: str, options: list[str], budget: str, images: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    out = tmp_path / "weights.safetensors"
    common = ["--images", str(images), "--procedural", "1", "--out", str(out), *options]
    weights, used = [], 0.0
    for _ in range(2):
        # A busy machine may have used up more for its first step than it was given.
        command = [sys.executable, str(FOLDER / f"{script}.py"), *common, budget, str(used / 60 + 0.005)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        weights.append(load_file(out))
        used = json.loads(out.with_suffix(".json").read_text())["used"]
    log = [json.loads(line) for line in out.with_suffix(".jsonl").read_text().splitlines()]
    starts = [line for line in log if line.get("event") == "start"]
    assert starts[0]["step"] == 0 < starts[1]["step"]
    assert all(
        np.isfinite(value)
        for line in log
        if "held" in line and isinstance(line["held"], dict)
        for value in line["held"].values()
    )
    assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
