"""Compare every denoiser on the same images with the same time to train.

Groups of images (folders of ``--data``):

- ``camera``: one photograph with Gaussian and with Poisson-Gaussian noise (files as for ``blindspot.py``).
- ``set12``, ``set12-pg``: photographs with noise of sigma 25, and that of a camera that counts 30 photons at white.
- ``bsd68``: photographs, sigma 25; the networks learn from the 400 noisy crops of BSD400, once for all 68 images.
- ``fmd``: seven kinds of fluorescence images; the networks learn from four noisy frames, the first is scored.
- ``w2s``: single wide-field frames against the mean of 400, up to contrast and brightness (affine fit).
- ``cc15``: photographs of real cameras, each colour by itself; noise that neighbouring pixels share.
- ``synthetic``: the samples that come with the program: an image, a stack, and a time-lapse.

``gaussian`` is the Gaussian filter that comes closest to the truth, ``nlm`` and ``bm3d`` (``pip install scikit-image
bm3d``; left out where missing) are told the noise. ``careamics`` is Noise2Void of CAREamics, of planes only, run by the
Python of an environment that has it (``--careamics``). ``mean`` is that of all frames, and ``n2n mean`` the mean of all
frames denoised. ``auto`` is what the diagnosis recommends. ``scratch`` begins with random weights, ``lattice`` sees
every other pixel.

Each measurement is a line of JSON in ``--results`` and is not repeated. ``--pictures`` adds what it looks like.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from blindspot import bm3d
from quality_careamics import learnt_and_denoised

import napari_ssdenoise as ssd
from napari_ssdenoise._threads import share_processor
from napari_ssdenoise.algorithms import get_algorithm
from napari_ssdenoise.demo import best_gaussian, most_varied, save_grid

FMD_TYPES = [f"{kind}_BPAE_{colour}" for kind in ("Confocal", "TwoPhoton") for colour in "BGR"] + ["WideField_BPAE_G"]
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "n2v": ("n2v", {}),
    "zs-n2n": ("zs-n2n", {}),
    "nb2nb": ("nb2nb", {}),
    "nb2nb scratch": ("nb2nb", {"from_scratch": True}),
    "blindspot": ("blindspot", {}),
    "blindspot scratch": ("blindspot", {"from_scratch": True}),
    "blindspot lattice": ("blindspot", {"lattice": "2"}),
    "sasl": ("sasl", {}),
    "n2n": ("n2n", {"pairs": "frames", "frame_distance": 3}),
    "auto": ("auto", {}),
}
FILTERS = ("noisy", "mean", "gaussian", "nlm", "bm3d")
METHODS = (*FILTERS, "careamics", *TRAINED)
NEEDS_FRAMES = ("mean", "n2n")


@dataclass(frozen=True)
class Data:
    """What a network learns from, and what it is judged by.

    Attributes
    ----------
    learn
        Noisy images.
    tests
        Noisy images, each with its truth.
    span
        Range of intensities for the PSNR.
    noise
        ``sigma``, or ``sigma`` (read noise), ``gain`` and ``offset``; empty if unknown.
    affine
        Fit contrast and brightness before scoring.
    channels
        Whether networks see colours at once.
    """

    learn: ssd.Volume
    tests: list[tuple[ssd.Volume, np.ndarray]]
    span: float = 255.0
    noise: dict[str, float] = field(default_factory=dict)
    affine: bool = False
    channels: Literal["auto", "independent"] = "auto"

    @property
    def has_frames(self) -> bool:
        return self.learn.sizes.get("T", 1) > 1 and len(self.tests) == 1 and self.tests[0][0].ndim == 2


Case = tuple[str, Callable[[], Data]]


def grey(path: Path) -> np.ndarray:
    """Read an image as (Y, X), float32."""
    image = np.asarray(ssd.open_volume(path), np.float32)
    return image.mean(-1) if image.ndim == 3 else image


def photon_noise(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Count 30 photons at white, and add read noise of 2 %."""
    counts = rng.poisson(30 * np.clip(truth, 0, 255) / 255) / 30
    return (255 * (counts + rng.normal(0, 0.02, truth.shape))).astype(np.float32)


PHOTONS = {"sigma": 255 * 0.02, "gain": 255 / 30, "offset": 0.0}


def one(noisy: np.ndarray, truth: np.ndarray, axes: str = "YX", **facts: Any) -> Data:
    """Make a case of a single image, which is learnt from by itself."""
    volume = ssd.Volume(noisy, axes)
    return Data(volume, [(volume, truth)], **facts)


def camera(folder: Path) -> Iterator[Case]:
    for kind, noise in (("g25", {"sigma": 25 / 255}), ("pg", {"sigma": 0.02, "gain": 1 / 30, "offset": 0.0})):

        def load(kind: str = kind, noise: Any = noise) -> Data:
            truth = np.load(folder / "camera_gt.npy")
            return one(np.load(folder / f"camera_{kind}.npy"), truth, span=1.0, noise=noise)

        yield f"camera {kind}", load


def set12(folder: Path, *, photons: bool = False) -> Iterator[Case]:
    for number, path in enumerate(sorted((folder / "natural/Set12").glob("*.png"))):

        def load(path: Path = path, number: int = number) -> Data:
            truth, rng = grey(path), np.random.default_rng(number)
            if photons:
                return one(photon_noise(truth, rng), truth, noise=PHOTONS)
            return one(truth + rng.normal(0, 25, truth.shape).astype(np.float32), truth, noise={"sigma": 25.0})

        yield path.stem, load


def bsd68(folder: Path) -> Iterator[Case]:
    def load() -> Data:
        rng = np.random.default_rng(0)

        def noisy(path: Path) -> tuple[ssd.Volume, np.ndarray]:
            truth = grey(path)
            return ssd.Volume(truth + rng.normal(0, 25, truth.shape).astype(np.float32), "YX"), truth

        learn = [np.asarray(noisy(p)[0]) for p in sorted((folder / "natural/BSD400_180").glob("*.png"))]
        tests = [noisy(p) for p in sorted((folder / "natural/BSD68").glob("*.png"))]
        return Data(ssd.Volume(np.stack(learn), "TYX"), tests, noise={"sigma": 25.0})

    yield "BSD68", load


def fmd(folder: Path) -> Iterator[Case]:
    folder = folder / "microscopy/fmd_bpae"
    for kind in FMD_TYPES:

        def load(kind: str = kind) -> Data:
            frames = np.stack([np.asarray(ssd.open_volume(folder / f"raw/{kind}_{i}.png")) for i in range(1, 5)])
            truth = grey(folder / f"gt/{kind}_1.png")
            return Data(ssd.Volume(frames, "TYX", name=kind), [(ssd.Volume(frames[0], "YX"), truth)])

        yield kind, load


def w2s(folder: Path) -> Iterator[Case]:
    folder = folder / "microscopy/w2s"
    for path in sorted((folder / "avg1").glob("*.tif")):

        def load(path: Path = path) -> Data:
            truth = grey(folder / "avg400" / path.name.replace("input_avg1_", "target_avg400_"))
            return one(grey(path), truth, span=255.0, affine=True)

        yield path.stem, load


def cc15(folder: Path) -> Iterator[Case]:
    for path in sorted((folder / "natural/CC15_real").glob("*_real.png")):

        def load(path: Path = path) -> Data:
            truth = np.asarray(ssd.open_volume(path.with_name(path.name.replace("_real", "_mean"))), np.float32)
            return one(np.asarray(ssd.open_volume(path)), truth, "YXS", channels="independent")

        yield path.stem.removesuffix("_real"), load


def synthetic(folder: Path) -> Iterator[Case]:
    for name in ("cell-2d", "tissue-3d", "timelapse"):

        def load(name: str = name) -> Data:
            sample = ssd.load_sample(name)
            truth = np.asarray(sample.clean, np.float32)
            span = float(np.percentile(truth, 99.9) - truth.min())
            return Data(sample.noisy, [(sample.noisy, truth)], span)

        yield name, load


GROUPS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "camera": camera,
    "set12": set12,
    "set12-pg": lambda folder: set12(folder, photons=True),
    "bsd68": bsd68,
    "fmd": fmd,
    "w2s": w2s,
    "cc15": cc15,
    "synthetic": synthetic,
}


def filtered(method: str, data: Data) -> list[np.ndarray] | None:
    """Apply a method that learns nothing to all tests; None if it cannot be."""
    images = [(np.asarray(noisy, np.float32), truth) for noisy, truth in data.tests]
    if method == "noisy":
        return [noisy for noisy, _ in images]
    if method == "mean":
        return [np.asarray(data.learn, np.float32).mean(0)]
    if method == "gaussian":
        return [_gaussian(noisy, truth, data) for noisy, truth in images]
    noise = data.noise or _measured(data)
    flat = images[0][0].ndim == 2
    if method == "bm3d":
        return [bm3d(noisy.astype(float), **noise) for noisy, _ in images] if find_spec("bm3d") and flat else None
    if not find_spec("skimage") or not flat or noise.get("gain"):
        return None
    from skimage.restoration import denoise_nl_means

    sigma = noise["sigma"]
    options = {"patch_size": 5, "patch_distance": 6, "h": 0.8 * sigma, "sigma": sigma, "fast_mode": True}
    return [denoise_nl_means(noisy, **options) for noisy, _ in images]


def _gaussian(noisy: np.ndarray, truth: np.ndarray, data: Data) -> np.ndarray:
    if data.tests[0][0].axes.endswith("S"):
        return np.stack([best_gaussian(noisy[..., c], truth[..., c])[0] for c in range(noisy.shape[-1])], -1)
    return best_gaussian(_fitted(noisy, truth) if data.affine else noisy, truth)[0]


def _measured(data: Data) -> dict[str, float]:
    found = ssd.diagnose(data.learn)
    if found.gain:
        return {"sigma": found.read_noise, "gain": found.gain, "offset": found.offset}
    return {"sigma": found.sigma}


def trained(method: str, data: Data, budget: dict[str, Any]) -> tuple[list[np.ndarray], dict[str, Any]]:
    """Train for a while, and denoise all tests; also, of frames, the mean of all frames denoised."""
    key, values = TRAINED[method]
    if key == "auto":
        found = ssd.diagnose(data.learn)
        key, values = found.algorithm, dict(found.settings)
    trainer = ssd.Trainer(get_algorithm(key, **values), data.learn, channels=data.channels, **budget)
    for _ in trainer:
        pass
    model = trainer.model
    facts: dict[str, Any] = {"steps": trainer.step, "train_seconds": round(trainer.seconds, 1), "algorithm": key}
    if method.startswith("n2n"):
        every = model.predict(data.learn).mean(0)
        facts["of_mean"] = score([every], data)["psnr"]
    results = [np.asarray(model.predict(noisy), np.float32) for noisy, _ in data.tests]
    augmented = [np.asarray(model.predict(noisy, augment=True), np.float32) for noisy, _ in data.tests]
    facts["augmented"] = score(augmented, data)["psnr"]
    return results, facts


def peer(data: Data, budget: dict[str, Any], python: Path | None) -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """Let CAREamics learn and denoise; None without it, without a time, and for other images than planes."""
    planes = data.learn.axes in {"YX", "TYX"} and all(noisy.axes == "YX" for noisy, _ in data.tests)
    if python is None or "seconds" not in budget or not planes:
        return None
    tests = [np.asarray(noisy, np.float32) for noisy, _ in data.tests]
    return learnt_and_denoised(python, np.asarray(data.learn, np.float32), tests, budget["seconds"])


def _fitted(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Bring an image to the truth's contrast and brightness."""
    slope, level = np.polyfit(image.ravel().astype(float), truth.ravel().astype(float), 1)
    return np.asarray(slope * image + level, np.float32)


def score(results: list[np.ndarray], data: Data) -> dict[str, float]:
    """Return PSNR and SSIM, the mean over all tests."""
    pairs = [
        (_fitted(result, truth) if data.affine else result, truth)
        for result, (_, truth) in zip(results, data.tests, strict=True)
    ]
    planes = [(r[..., 0], t[..., 0]) if data.tests[0][0].axes.endswith("S") else (r, t) for r, t in pairs]
    return {
        "psnr": float(np.mean([ssd.psnr(result, truth, data.span) for result, truth in pairs])),
        "ssim": float(np.mean([ssd.ssim(result, truth, data.span) for result, truth in planes])),
    }


def run(
    method: str, data: Data, budget: dict[str, Any], python: Path | None = None
) -> tuple[list[np.ndarray], dict[str, Any]] | None:
    """Apply a method; None where it cannot be. ``python`` is that of CAREamics."""
    if method in NEEDS_FRAMES and not data.has_frames:
        return None
    started, facts = time.perf_counter(), {}
    if method in TRAINED:
        results, facts = trained(method, data, budget)
    else:
        made = peer(data, budget, python) if method == "careamics" else filtered(method, data)
        if made is None:
            return None
        results, facts = made if isinstance(made, tuple) else (made, facts)
    return results, {**facts, **score(results, data), "seconds": round(time.perf_counter() - started, 1)}


def table(results: list[dict[str, Any]]) -> str:
    """Return the results in Markdown: for each group, the methods in columns, and their mean."""
    lines = []
    for group, rows in groupby(sorted(results, key=lambda r: list(GROUPS).index(r["group"])), lambda r: r["group"]):
        found = {(r["case"], r["method"]): r for r in rows}
        cases = list(dict.fromkeys(case for case, _ in found))
        methods = [m for m in METHODS if any((case, m) in found for case in cases)]
        lines += ["", f"| {group} | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
        for case in cases:
            cells = [f"{found[case, m]['psnr']:.2f}" if (case, m) in found else "-" for m in methods]
            lines.append(f"| {case} | " + " | ".join(cells) + " |")
        for key, digits in (("psnr", 2), ("ssim", 3), ("seconds", 0)):
            cells = []
            for m in methods:
                values = [found[case, m][key] for case in cases if (case, m) in found]
                complete = len(values) == len(cases)
                cells.append(f"{np.mean(values):.{digits}f}" + ("" if complete else f" ({len(values)})"))
            lines.append(f"| mean {key} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    share_processor()  # as the command line and the widget do, before torch is imported
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="all by default")
    parser.add_argument("--data", type=Path, help="folder of the images, see above")
    parser.add_argument("--camera", type=Path, help="folder of camera_*.npy (default: that of the images)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seconds", type=float, default=60, help="of training, each (default: 60)")
    parser.add_argument("--steps", type=int, help="of training, each, instead of --seconds")
    parser.add_argument("--careamics", type=Path, help="Python of an environment with CAREamics")
    parser.add_argument("--only", help="cases whose name holds this text")
    parser.add_argument("--results", type=Path, help="JSON lines to add to (default: results/quality.jsonl)")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of all methods side by side")
    parser.add_argument("--table", action="store_true", help="print the results and measure nothing")
    options = parser.parse_args()
    path = options.results or Path(__file__).parent / "results" / "quality.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    if not options.table:
        if options.data is None or not options.data.is_dir():
            sys.exit(f"skipped: there is no folder {options.data}; this benchmark needs its images.")
        for group in options.groups or GROUPS:
            folder = options.camera if group == "camera" and options.camera else options.data
            for case, load in GROUPS[group](folder):
                if not options.only or options.only in case:
                    measure(group, case, load, options, done, path)
    print(table(done))


def measure(
    group: str, case: str, load: Callable[[], Data], options: argparse.Namespace, done: list[dict[str, Any]], path: Path
) -> None:
    """Run all methods that are not done yet on one case."""

    budget = {"steps": options.steps} if options.steps else {"seconds": options.seconds}

    def key(method: str) -> dict[str, Any]:
        """Say what is measured; a budget in steps is named as such."""
        spent = f"{options.steps} steps" if options.steps else options.seconds
        return {"group": group, "case": case, "method": method, "budget": 0 if method in FILTERS else spent}

    def is_done(method: str) -> bool:
        return any(key(method).items() <= r.items() for r in done)

    wanted = [m for m in options.methods if not is_done(m)]
    data = load() if wanted else None
    panels = []
    for method in wanted:
        found = run(method, data, budget, options.careamics) if data else None
        if found is None or data is None:
            continue
        results, facts = found
        done.append({**key(method), **facts})
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(done[-1]) + "\n")
        print(json.dumps(done[-1]), flush=True)
        panels.append((f"{method} {facts['psnr']:.2f} dB", _shown(results[0], data)))
    if options.pictures and panels and data:
        options.pictures.mkdir(parents=True, exist_ok=True)
        truth = _shown(data.tests[0][1], data)
        detail = most_varied(truth, min(128, *truth.shape))
        shown = [*panels, ("truth", truth)]
        save_grid(options.pictures / f"{group}_{case.replace(' ', '_')}.png", shown, truth, detail)


def _shown(image: np.ndarray, data: Data) -> np.ndarray:
    """Return one plane: of colours the first, of stacks the middle one."""
    image = image[..., 0] if data.tests[0][0].axes.endswith("S") else image
    image = image[len(image) // 2] if image.ndim == 3 else image
    return _fitted(image, _shown(data.tests[0][1], data)) if data.affine and image is not data.tests[0][1] else image


if __name__ == "__main__":
    main()
