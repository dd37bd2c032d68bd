"""Measure the denoisers on images with a known truth.

``peers``: the camera image and the fluorescence volume that other tools were measured on; a folder with
``camera_gt.npy``, ``camera_g25.npy`` (Gaussian noise, sigma 25/255), ``vol_gt.npy`` and ``vol_noisy.npy``.
``fmd``: four noisy frames and the mean of fifty, for each type of the Fluorescence Microscopy Denoising data set
(doi 10.7274/r0-ed2r-4052); a folder with ``raw/TYPE_1.png`` ... ``raw/TYPE_4.png`` and ``gt/TYPE_1.png``.

Each measurement is one line of JSON, added to ``--results`` as soon as it is there; a measurement that is there already
is not repeated, so a stopped run goes on. Figures need a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import napari_ssdenoise as ssd
from napari_ssdenoise._threads import share_processor
from napari_ssdenoise.algorithms import Noise2Noise, Noise2Void
from napari_ssdenoise.demo import Panel, best_gaussian, save_picture

FMD_TYPES = [f"{kind}_BPAE_{colour}" for kind in ("Confocal", "TwoPhoton") for colour in "BGR"] + ["WideField_BPAE_G"]
Case = tuple[str, Callable[[], dict[str, Any]]]


def measure(
    algorithm: Any, volume: ssd.Volume, frame: Any, truth: Any, data_range: float, seconds: float, picture: Path | None
) -> dict[str, Any]:
    """Train for a number of seconds, denoise one frame, and compare it with the truth."""
    from napari_ssdenoise.engine.device import describe_device

    trainer = ssd.Trainer(algorithm, volume, seconds=seconds)
    for _ in trainer:
        pass
    model = trainer.model
    started = time.perf_counter()
    clean = model.predict(frame)
    spent = time.perf_counter() - started
    augmented = model.predict(frame, augment=True)
    noisy = np.asarray(frame, np.float32)
    filtered, sigmas = best_gaussian(noisy, truth)
    if picture:
        middle = (noisy.shape[0] // 2,) if noisy.ndim == 3 else ()
        images = {"noisy": noisy, "best Gaussian": filtered, algorithm.title: clean, "truth": truth}
        panels = [
            Panel(i[middle], t, "" if t == "truth" else f"{ssd.psnr(i, truth, data_range):.2f} dB")
            for t, i in images.items()
        ]
        save_picture(picture, panels, truth[middle])
    return {
        "algorithm": algorithm.key,
        "device": describe_device(trainer.device),
        "train_seconds": round(trainer.seconds, 1),
        "steps": trainer.step,
        "noisy": ssd.psnr(noisy, truth, data_range),
        "gaussian": ssd.psnr(filtered, truth, data_range),
        "gaussian_sigma": sigmas,
        "psnr": ssd.psnr(clean, truth, data_range),
        "ssim": ssd.ssim(clean, truth, data_range),
        "psnr_augmented": ssd.psnr(augmented, truth, data_range),
        "predict_seconds": round(spent, 2),
    }


def peers(folder: Path, seconds: float, pictures: Path | None) -> Iterator[Case]:
    """List the measurements on the images that other tools were measured on."""
    for name, noisy_file, truth_file in (("camera", "camera_g25", "camera_gt"), ("volume", "vol_noisy", "vol_gt")):

        def case(name: str = name, noisy_file: str = noisy_file, truth_file: str = truth_file) -> dict[str, Any]:
            noisy, truth = ssd.open_volume(folder / f"{noisy_file}.npy"), np.load(folder / f"{truth_file}.npy")
            span = 1.0 if truth.ndim == 2 else float(np.percentile(truth, 99.9) - truth.min())
            return measure(Noise2Void(), noisy, noisy, truth, span, seconds, pictures and pictures / f"{name}_n2v.png")

        yield f"{name} n2v", case


def fmd(folder: Path, seconds: float, pictures: Path | None) -> Iterator[Case]:
    """List the measurements on FMD: train on the four frames of a type, score the first."""
    algorithms = (Noise2Void(), Noise2Noise(pairs="frames", frame_distance=3))
    for kind in FMD_TYPES:
        for algorithm in algorithms:

            def case(kind: str = kind, algorithm: Any = algorithm) -> dict[str, Any]:
                frames = np.stack(
                    [np.asarray(ssd.open_volume(folder / "raw" / f"{kind}_{i}.png")) for i in range(1, 5)]
                )
                truth = np.asarray(ssd.open_volume(folder / "gt" / f"{kind}_1.png"), np.float32)
                picture = pictures and pictures / f"{kind}_{algorithm.key}.png"
                volume = ssd.Volume(frames, "TYX", name=kind)
                return measure(algorithm, volume, ssd.Volume(frames[0], "YX"), truth, 255.0, seconds, picture)

            yield f"{kind} {algorithm.key}", case


def summarise(results: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table, with the mean over the six types of nearly white noise."""
    columns = ("noisy", "gaussian", "psnr", "psnr_augmented", "ssim", "steps", "train_seconds")
    lines = ["| case | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]

    def row(name: str, values: dict[str, Any]) -> str:
        cells = [f"{values[c]:.3f}" if c == "ssim" else f"{values[c]:.2f}" for c in columns[:5]]
        return f"| {name} | " + " | ".join([*cells, *(f"{values[c]:.0f}" for c in columns[5:])]) + " |"

    lines += [row(r["case"], r) for r in results]
    for key in ("n2v", "n2n"):
        white = [r for r in results if r["case"].startswith(("Confocal", "TwoPhoton")) and r["algorithm"] == key]
        if len(white) == 6:
            lines.append(row(f"mean of the six {key}", {c: float(np.mean([r[c] for r in white])) for c in columns}))
    return "\n".join(lines)


def main() -> None:
    share_processor()  # as the command line and the widget do, before torch is imported
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=("peers", "fmd"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the images, see above")
    parser.add_argument("--seconds", type=float, default=120, help="of training, each (default: 120)")
    parser.add_argument(
        "--results", type=Path, help="JSON lines to add to (default: results/SET.jsonl beside this file)"
    )
    parser.add_argument("--pictures", type=Path, help="folder for noisy/filtered/denoised/true pictures")
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        sys.exit(f"skipped: there is no folder {arguments.data}; this benchmark needs its images.")
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    results = arguments.results or Path(__file__).parent / "results" / f"{arguments.set}.jsonl"
    results.parent.mkdir(exist_ok=True)
    done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    cases = {"peers": peers, "fmd": fmd}[arguments.set](arguments.data, arguments.seconds, arguments.pictures)
    for name, run in cases:
        if any(r["case"] == name and r["budget"] == arguments.seconds for r in done):
            continue
        facts = {"case": name, "budget": arguments.seconds, "torch": version("torch")}
        done.append({**facts, **run()})
        with results.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), flush=True)
    print(summarise([r for r in done if r["budget"] == arguments.seconds]))


if __name__ == "__main__":
    main()
