"""Measure the blind-spot network (HQ-SSL): against BM3D, its own parts and Noise2Void, with its uncertainty.

``camera``: one image; a folder with ``camera_gt.npy``, ``camera_g25.npy`` (Gaussian noise, sigma 25/255) and
``camera_pg.npy`` (Poisson(30 x) / 30 with read noise 0.02). The noise is given, and estimated from the image.
``fmd``: four noisy frames and the mean of fifty for each type (doi 10.7274/r0-ed2r-4052), as for ``denoising.py``.
``natural``: images with noise of sigma 25 made here, each learnt from by itself; a folder with PNG images.

Everything is trained from the noisy images alone. Each measurement is a line of JSON, and is not repeated. BM3D
(``pip install bm3d``) is left out where it is missing. Figures need a quiet machine, or a budget in ``--steps``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import napari_ssdenoise as ssd
from napari_ssdenoise._threads import share_processor
from napari_ssdenoise.algorithms import BlindSpot, Noise2Void
from napari_ssdenoise.demo import Panel, best_gaussian, save_picture

FMD_TYPES = [f"{kind}_BPAE_{colour}" for kind in ("Confocal", "TwoPhoton") for colour in "BGR"]
CROP = 256
SETTINGS = ("noise", "sigma", "gain", "offset", "read_noise", "from_scratch")
COLUMNS = (
    "noisy",
    "gaussian",
    "bm3d",
    "n2v",
    "prior",
    "psnr",
    "psnr_augmented",
    "psnr_series",
    "assessed",
    "68 %",
    "95 %",
    "steps",
    "train_seconds",
)
Case = tuple[str, Callable[[], dict[str, Any]]]


def measure(
    algorithm: Any,
    volume: Any,
    frame: Any,
    truth: Any,
    data_range: float,
    options: argparse.Namespace,
    name: str,
    *,
    series: Any = None,
) -> dict[str, Any]:
    """Train, denoise one frame, and compare all outputs with the truth.

    With a ``series`` of frames, the true PSNR is estimated from them, and is that of all frames (``psnr_series``).
    """
    trainer = ssd.Trainer(algorithm, volume, seconds=options.seconds, steps=options.steps)
    for _ in trainer:
        pass
    model = trainer.model
    started = time.perf_counter()
    clean, prior, std = model.predict(frame, outputs=("mean", "prior", "std"))
    spent = time.perf_counter() - started
    augmented, spread = model.predict(frame, outputs=("mean", "std"), augment=True)
    noisy = np.asarray(frame, np.float32)
    filtered, sigmas = best_gaussian(noisy, truth)
    if options.pictures:
        images = {"noisy": noisy, "best Gaussian": filtered, algorithm.title: augmented, "truth": truth}
        panels = [
            Panel(i, t, "" if t == "truth" else f"{ssd.psnr(i, truth, data_range):.2f} dB") for t, i in images.items()
        ]
        save_picture(options.pictures / f"{name.replace(' ', '_')}.png", panels, truth)
    error = np.abs(clean - truth)
    quality = ssd.assess(model, frame if series is None else series, data_range=data_range).psnr
    every = clean[None] if series is None else model.predict(series)
    return {
        "settings": {k: v for k, v in vars(trainer.algorithm).items() if k in SETTINGS},
        "train_seconds": round(trainer.seconds, 1),
        "steps": trainer.step,
        "noisy": ssd.psnr(noisy, truth, data_range),
        "gaussian": ssd.psnr(filtered, truth, data_range),
        "gaussian_sigma": sigmas,
        "prior": ssd.psnr(prior, truth, data_range),
        "psnr": ssd.psnr(clean, truth, data_range),
        "psnr_series": ssd.psnr(every, np.broadcast_to(truth, every.shape), data_range),
        "ssim": ssd.ssim(clean, truth, data_range),
        "psnr_augmented": ssd.psnr(augmented, truth, data_range),
        "ssim_augmented": ssd.ssim(augmented, truth, data_range),
        "assessed": quality and quality.value,
        "assessed_between": quality and [quality.low, quality.high],
        "from_std": float(10 * np.log10(data_range**2 / np.mean(std**2))),
        "68 %": float((error < std).mean()),
        "95 %": float((error < 1.96 * std).mean()),
        "augmented 68 %": float((np.abs(augmented - truth) < spread).mean()),
        "error_correlation": float(np.corrcoef(std.ravel(), error.ravel())[0, 1]),
        "predict_seconds": round(spent, 2),
    }


def with_n2v(found: dict[str, Any], volume: Any, frame: Any, truth: Any, data_range: float) -> dict[str, Any]:
    """Add what Noise2Void reaches in the same time."""
    model = ssd.train(volume, Noise2Void(), seconds=found["train_seconds"])
    return {**found, "n2v": ssd.psnr(model.predict(frame), truth, data_range)}


def bm3d(noisy: Any, sigma: float = 0.0, gain: float = 0.0, offset: float = 0.0) -> Any:
    """Return BM3D's result, of Poisson-Gaussian noise after the generalised Anscombe transform; None without BM3D."""
    if not find_spec("bm3d"):
        return None
    from bm3d import bm3d as filtered

    if not gain:
        return filtered(noisy, sigma)
    light = (noisy - offset) / gain
    read = sigma / gain
    stable = 2 * np.sqrt(np.maximum(light + 3 / 8 + read**2, 0))
    d = np.maximum(filtered(stable, 1.0), 1e-3)
    # Closed form of the unbiased inverse (Makitalo and Foi 2011).
    back = d**2 / 4 + np.sqrt(1.5) / 4 / d - 11 / 8 / d**2 + 5 / 8 * np.sqrt(1.5) / d**3 - 1 / 8 - read**2
    return gain * back + offset


def camera(options: argparse.Namespace) -> Iterator[Case]:
    """List the measurements on the camera image."""
    truth = np.load(options.data / "camera_gt.npy")
    cases: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
        "camera gaussian, sigma given": ("g25", {"noise": "gaussian", "sigma": 25 / 255}, {"sigma": 25 / 255}),
        "camera gaussian, sigma unknown": ("g25", {"noise": "gaussian"}, {"sigma": 25 / 255}),
        "camera gaussian, all unknown": ("g25", {}, {"sigma": 25 / 255}),
        "camera poisson-gaussian, given": (
            "pg",
            {"noise": "poisson-gaussian", "gain": 1 / 30, "offset": 0.0, "read_noise": 0.02},
            {"sigma": 0.02, "gain": 1 / 30},
        ),
        "camera poisson-gaussian, unknown": ("pg", {}, {"sigma": 0.02, "gain": 1 / 30}),
    }
    for name, (file, settings, noise) in cases.items():

        def case(name: str = name, file: str = file, settings: Any = settings, noise: Any = noise) -> dict[str, Any]:
            noisy = np.load(options.data / f"camera_{file}.npy")
            found = measure(BlindSpot(**settings), noisy, noisy, truth, 1.0, options, name)
            other = bm3d(noisy, **noise)
            return found if other is None else {**found, "bm3d": ssd.psnr(other, truth, 1.0)}

        yield name, case


def fmd(options: argparse.Namespace) -> Iterator[Case]:
    """List the measurements on FMD: train on the four frames of a type, score the first."""
    for kind in FMD_TYPES:

        def case(kind: str = kind) -> dict[str, Any]:
            files = [options.data / "raw" / f"{kind}_{i}.png" for i in range(1, 5)]
            frames = np.stack([np.asarray(ssd.open_volume(file)) for file in files])
            truth = np.asarray(ssd.open_volume(options.data / "gt" / f"{kind}_1.png"), np.float32)
            volume, frame = ssd.Volume(frames, "TYX", name=kind), ssd.Volume(frames[0], "YX")
            found = measure(BlindSpot(), volume, frame, truth, 255.0, options, kind, series=volume)
            settings = found["settings"]
            noise = {"sigma": settings["read_noise"] or settings["sigma"] or 0.0, "gain": settings["gain"] or 0.0}
            other = bm3d(frames[0].astype(np.float64), **noise, offset=settings["offset"] or 0.0)
            return found if other is None else {**found, "bm3d": ssd.psnr(other, truth, 255.0)}

        yield kind, case


def natural(options: argparse.Namespace) -> Iterator[Case]:
    """List the measurements on crops of natural images."""
    for path in sorted(options.data.glob("*.png"))[: options.images]:

        def case(path: Path = path) -> dict[str, Any]:
            image = np.asarray(ssd.open_volume(path), np.float32)
            image = image.mean(-1) if image.ndim == 3 else image
            truth = image[tuple(slice((n - CROP) // 2, (n + CROP) // 2) for n in image.shape)]
            noisy = truth + np.random.default_rng(0).normal(0, 25, truth.shape).astype(np.float32)
            found = measure(BlindSpot(noise="gaussian", sigma=25.0), noisy, noisy, truth, 255.0, options, path.stem)
            found = with_n2v(found, noisy, noisy, truth, 255.0)
            other = bm3d(noisy, 25.0)
            return found if other is None else {**found, "bm3d": ssd.psnr(other, truth, 255.0)}

        yield path.stem, case


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| case | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]

    def row(name: str, values: dict[str, Any]) -> str:
        cells = [f"{values[c]:.2f}" if isinstance(values.get(c), float) else str(values.get(c, "-")) for c in COLUMNS]
        return f"| {name} | " + " | ".join(cells) + " |"

    lines += [row(r["case"], r) for r in results]
    if len(results) > 1:
        shared = [c for c in COLUMNS if all(c in r for r in results)]
        lines.append(row("mean", {c: float(np.mean([r[c] for r in results])) for c in shared}))
    return "\n".join(lines)


def main() -> None:
    share_processor()  # as the command line and the widget do, before torch is imported
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=("camera", "fmd", "natural"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the images, see above")
    parser.add_argument("--seconds", type=float, help="of training, each")
    parser.add_argument("--steps", type=int, help="of training, each, instead of --seconds")
    parser.add_argument("--images", type=int, default=12, help="of the natural ones (default: 12)")
    parser.add_argument("--only", help="cases whose name holds this text")
    parser.add_argument("--results", type=Path, help="JSON lines to add to (default: results/blindspot.jsonl)")
    parser.add_argument("--pictures", type=Path, help="folder for noisy/filtered/denoised/true pictures")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"skipped: there is no folder {options.data}; this benchmark needs its images.")
    if not options.seconds and not options.steps:
        parser.error("give --seconds or --steps")
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    results = options.results or Path(__file__).parent / "results" / "blindspot.jsonl"
    results.parent.mkdir(exist_ok=True)
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    key = {"set": options.set, "seconds": options.seconds, "budget_steps": options.steps}
    for name, run in {"camera": camera, "fmd": fmd, "natural": natural}[options.set](options):
        if options.only and options.only not in name:
            continue
        if any(r["case"] == name and all(r[k] == v for k, v in key.items()) for r in done):
            continue
        done.append({"case": name, **key, **run()})
        with results.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), flush=True)
    print(summarise([r for r in done if all(r[k] == v for k, v in key.items())]))


if __name__ == "__main__":
    main()
