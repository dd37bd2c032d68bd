"""Measure the study of sample complexity: against its theory, on synthetic images, and its predictions on real ones.

``theory``: simulations of the linear denoiser against the closed forms, from 164 pairs on, and the slopes of the excess
risk. ``variance``: how much the gradients of a network scatter with clean targets and those with noise of 25 and 50;
the growth to 50 should be four times that to 25. ``networks``: a U-Net on 8 to 256 synthetic images, with clean and
noisy targets. ``predictions``: what half of the images foretell for all of them, and what came: on FMD (frames 1 and 2,
and 3 and 4, of each of six confocal and two-photon images, in parts of 128 x 128 pixels), on W2S (single frames, in
parts of 256 x 256, whose pixels are split; one study a channel), on a FRAP time-lapse (neighbouring frames), and on
eleven repeats of an abdominal MRI slice (real and imaginary part of neighbouring repeats, in parts of 80 x 80).

``--data`` is the folder with ``microscopy`` and ``mri``; only ``predictions`` needs it. Each measurement is a line of
JSON in ``--results`` and is not repeated. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from napari_ssdenoise._threads import share_processor

share_processor()

import napari_ssdenoise as ssd  # noqa: E402

FMD = (
    "Confocal_BPAE_B",
    "Confocal_BPAE_G",
    "Confocal_BPAE_R",
    "TwoPhoton_BPAE_B",
    "TwoPhoton_BPAE_G",
    "TwoPhoton_BPAE_R",
)
LARGE = 164  # pairs from which the closed forms should hold
CLOSE = 0.3  # decibels
DRAWS = 12  # of the noise


def parts(image: np.ndarray, side: int) -> np.ndarray:
    """Cut an image (Y, X) into parts (N, side, side)."""
    high, wide = (n // side for n in image.shape)
    cut = image[: high * side, : wide * side].reshape(high, side, wide, side)
    return cut.swapaxes(1, 2).reshape(-1, side, side)


def theory() -> list[dict[str, Any]]:
    """Compare the simulation with the closed forms."""
    study = ssd.linear_theory()
    rows = []
    for level in sorted({p.target_noise for p in study.points}):
        large = [p for p in study.curve(level) if p.size >= LARGE]
        off = {
            kind: max(abs(getattr(p, kind) / getattr(p, f"{kind}_theory") - 1) for p in large)
            for kind in ("stopped", "converged")
        }
        slopes = study.slope(level)
        rows.append({"target_noise": level, **{f"{kind}_off": v for kind, v in off.items()}, "slopes": slopes})
    return rows


def variance() -> dict[str, Any]:
    """Compare how gradients scatter at three levels of the targets' noise."""
    import torch

    from napari_ssdenoise.study._images import dead_leaves
    from napari_ssdenoise.study.networks import NetworkStudy, gradient_variance, train_once

    study = NetworkStudy(sizes=(64,), seeds=1, steps=200)
    images = dead_leaves(study.images + 500, 64)
    _, network = train_once(images[: study.images], study, 64, 0.0, 0, torch.device("cpu"))
    # A few images have most of the scatter, so one draw of the noise is uncertain by a tenth or more.
    draws = np.array([gradient_variance(network, images[study.images :], seed=seed) for seed in range(DRAWS)])
    none, some, much = draws.mean(0).tolist()
    single = ((draws[:, 2] - draws[:, 0]) / (draws[:, 1] - draws[:, 0])).tolist()
    return {"variances": [none, some, much], "ratio": (much - none) / (some - none), "single_draws": single}


def networks() -> list[dict[str, Any]]:
    """Train on all sizes with all targets, three seeds each."""
    from dataclasses import asdict

    from napari_ssdenoise.study._images import dead_leaves
    from napari_ssdenoise.study.networks import NetworkStudy

    study = NetworkStudy()
    return [asdict(training) for training in ssd.study_networks(dead_leaves(study.images, 64), study)]


def fmd(data: Path, name: str) -> dict[str, Any]:
    from napari_ssdenoise.io import read_volume

    frames = [
        parts(np.asarray(read_volume(data / "microscopy/fmd_bpae/raw" / f"{name}_{n}.png")[...], np.float32), 128)
        for n in (1, 2, 3, 4)
    ]
    return {"images": np.concatenate(frames[::2]), "target": np.concatenate(frames[1::2])}


def w2s(data: Path, channel: int) -> dict[str, Any]:
    from napari_ssdenoise.io import read_volume

    paths = sorted((data / "microscopy/w2s/avg1").glob(f"*_{channel}.tif"))
    return {"images": np.concatenate([parts(np.asarray(read_volume(p)[...], np.float32), 256) for p in paths])}


def frap(data: Path) -> dict[str, Any]:
    return {"images": sorted((data / "microscopy/frap_timeseries").glob("*.tif")), "series": True}


def repeats(data: Path) -> dict[str, Any]:
    from mri_denoising import read_frames

    frames = read_frames(data / "mri/kspace")
    views = [
        np.concatenate([parts(part, 80) for frame in frames[start:10:2] for part in (frame.real, frame.imag)])
        for start in (0, 1)
    ]
    return {"images": views[0], "target": views[1]}


def predicted(arguments: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Study images, and compare what half of them foretell with what all of them give."""
    series = arguments.get("series", False)
    axes = "YX" if series else "ZYX"
    study = ssd.study_data(axes=axes, settings=ssd.DataStudySettings(seeds=seeds), **arguments)
    check = study.check
    if check is None:
        raise ValueError(f"{study.images} images are too few to foretell anything.")
    half, foretold, measured = check
    return {
        "views": study.kind,
        "images": study.images,
        "half": half,
        "foretold": foretold.value,
        "low": foretold.low,
        "high": foretold.high,
        "measured": measured.value,
        "measured_low": measured.low,
        "measured_high": measured.high,
        "off": foretold.value - measured.value,
        "close": abs(foretold.value - measured.value) <= CLOSE,
        "to_gain": study.to_gain.to_json(),
        "noise": study.noise,
        "table": study.table,
    }


def measure(options: argparse.Namespace) -> Iterable[tuple[dict[str, Any], Callable[[], Any]]]:
    """Yield the name of every measurement and how it is done."""
    part, data, seeds = options.part, options.data, options.seeds
    if part != "predictions":
        yield {"part": part}, {"theory": theory, "variance": variance, "networks": networks}[part]
        return
    sets: dict[str, Callable[[], dict[str, Any]]] = {f"FMD {name}": lambda n=name: fmd(data, n) for name in FMD}
    sets |= {f"W2S channel {c}": lambda c=c: w2s(data, c) for c in (0, 1, 2)}
    sets |= {"FRAP": lambda: frap(data), "abdomen": lambda: repeats(data)}
    for name in options.sets or sets:
        read = sets[name]
        yield {"part": part, "set": name, "seeds": seeds}, lambda r=read: predicted(r(), seeds)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["theory", "variance", "networks", "predictions"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="+", help='of the predictions, e.g. "FMD Confocal_BPAE_B" "W2S channel 0" FRAP')
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "study.jsonl")
    options = parser.parse_args()
    if options.part == "predictions" and (options.data is None or not (options.data / "microscopy").is_dir()):
        print("skipped: --data has no folder microscopy.")
        return
    options.results.parent.mkdir(exist_ok=True)
    kept = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    for name, work in measure(options):
        rows = [row for row in kept if name.items() <= row.items()]
        if not rows:
            started = time.process_time()
            made = work()
            seconds = round(time.process_time() - started, 1)
            rows = [{**name, **row, "seconds": seconds} for row in (made if isinstance(made, list) else [made])]
            with options.results.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        for row in rows:
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
