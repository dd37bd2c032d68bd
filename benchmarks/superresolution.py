"""Measure super-resolution: ours, interpolation with back-projection, and the paper's figures beside them.

``set5``, ``bsd100``: photographs, made coarse here with the four kinds of blur of Soh et al. (2020), known to all
methods; PSNR of the luminance, as there (rounded, a border of ``factor`` pixels left out). ``bicubic`` is plain
interpolation, which is off by half a pixel where the sampling takes the first pixel of each cell; ``cubic`` is in the
right place, and ``ibp`` adds ten back-projections: what must be beaten.
``microscopy``: clean microscopy (SEM, and means of many fluorescence frames), blurred (variance 1 pixel squared) and
reduced by 2 on the registered grid; ``thick``: a T1-weighted head, blurred and reduced along Z by 4.

``--data`` is the folder with ``sr``, ``microscopy`` and ``mri``. Each measurement is a line of JSON in ``--results``,
and is not repeated. The last lines printed are tables.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from napari_ssdenoise._threads import share_processor

share_processor()

import torch  # noqa: E402
from PIL import Image  # noqa: E402

import napari_ssdenoise as ssd  # noqa: E402
from napari_ssdenoise.ops.degrade import Degradation  # noqa: E402
from napari_ssdenoise.ops.kernels import rotated  # noqa: E402

# Kind of blur -> covariance, and whether the reduction is bicubic.
BLURS: dict[str, tuple[Any, bool]] = {
    "g_d 0.2": ([0.2, 0.2], False),
    "g_d 2.0": ([2.0, 2.0], False),
    "g_ani": (rotated((4.0, 1.0), -0.5)[::-1, ::-1], False),
    "g_b 1.3": ([1.3, 1.3], True),
}
# Bicubic, ZSSR, MZSR(1), MZSR(10), as published.
PAPER = {
    ("set5", 2): {
        "g_d 0.2": (30.24, 34.29, 33.14, 33.74),
        "g_d 2.0": (28.73, 34.90, 35.20, 36.05),
        "g_ani": (28.15, 33.96, 34.05, 34.78),
        "g_b 1.3": (30.54, 35.24, 35.18, 36.64),
    },
    ("set5", 4): {"g_d 2.0": (24.74, 27.39, 30.20, 30.50)},
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "cubic": ("bicubic", {}),
    "ibp": ("ibp", {}),
    "mzsr 0": ("mzsr", {"adapt": 0, "back_projections": 0}),
    "mzsr 1 sgd": ("mzsr", {"adapt": 1, "descent": "sgd", "learning_rate": 2e-3, "back_projections": 0}),
    "mzsr 10 sgd": ("mzsr", {"adapt": 10, "descent": "sgd", "learning_rate": 2e-3, "back_projections": 0}),
    "mzsr 10": ("mzsr", {"adapt": 10}),
    "mzsr 20": ("mzsr", {"adapt": 20}),
    "mzsr 100": ("mzsr", {"adapt": 100}),
    "mzsr 200": ("mzsr", {"adapt": 200}),
    "zssr 1000": ("zssr", {"adapt": 1000}),
    "zssr 3000": ("zssr", {"adapt": 3000}),
}


@dataclass(frozen=True)
class Case:
    """One image to enlarge, with its truth and how to score."""

    name: str
    group: str
    factor: int
    load: Callable[[], tuple[ssd.Volume, np.ndarray, Degradation, Callable[[np.ndarray, np.ndarray], float]]]


def luminance(rgb: np.ndarray) -> np.ndarray:
    """Return Y of YCbCr, in 16 to 235."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    return 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255


def degradation(blur: str, factor: int) -> Degradation:
    """Return the blur and sampling of a case."""
    covariance, bicubic = BLURS[blur]
    factors = (factor, factor)
    if bicubic:
        return Degradation.bicubic(factors, covariance)
    return Degradation.gaussian(covariance, factors, "topleft", 15)


def photographs(folder: Path, group: str, factor: int) -> Iterator[Case]:
    """List the images of a folder with each kind of blur."""
    for blur in PAPER.get((group, factor), BLURS):
        for path in sorted(folder.glob("*.png")):

            def load(path: Path = path, blur: str = blur) -> Any:
                rgb = np.asarray(Image.open(path).convert("RGB"))
                sharp = rgb[: rgb.shape[0] // factor * factor, : rgb.shape[1] // factor * factor]
                made = degradation(blur, factor)
                coarse = made.down(torch.tensor(sharp).movedim(-1, 0)[None].double()).round().clamp(0, 255)
                image = luminance(coarse[0].movedim(0, -1).numpy()).astype(np.float32)

                def score(found: np.ndarray, truth: np.ndarray) -> float:
                    inner = (slice(factor, -factor),) * 2
                    return ssd.psnr(np.round(np.clip(found, 0, 255))[inner], truth[inner], 255)

                return ssd.Volume(image, "YX", name=path.stem), np.round(luminance(sharp)), made, score

            yield Case(path.stem, f"{group} x{factor} {blur}", factor, load)


def microscopy(data: Path) -> Iterator[Case]:
    """List clean microscopy images, made coarse here."""
    sem = [p for p in sorted((data / "sr/sem_axondeepseg_train").glob("*.png")) if "rat4" in p.name or "rat6" in p.name]
    clean = {"SEM": sem}
    clean["FMD"] = sorted((data / "microscopy/fmd_bpae/gt").glob("*.png"))
    clean["W2S"] = sorted((data / "microscopy/w2s/avg400").glob("*.tif"))[:6]
    for group, paths in clean.items():
        for path in paths:

            def load(path: Path = path) -> Any:
                volume = ssd.open_volume(path)
                sharp = np.asarray(volume, np.float32)
                sharp = sharp if sharp.ndim == 2 else sharp[..., 0]
                sharp = sharp[: min(512, sharp.shape[0] // 2 * 2), : min(512, sharp.shape[1] // 2 * 2)]
                made = Degradation.gaussian([1.0, 1.0], (2, 2))
                coarse = made.down(torch.tensor(sharp)[None, None])[0, 0].round().numpy()
                return ssd.Volume(coarse, "YX", name=path.stem), sharp, made, score_range

            yield Case(f"{path.parent.name}/{path.stem}", f"microscopy {group}", 2, load)


def thick(data: Path) -> Iterator[Case]:
    """A head in thick slices."""

    def load() -> Any:
        import nibabel

        whole = np.asarray(nibabel.load(data / "mri/volumes/niivue_chris_t1.nii.gz").dataobj, np.float32)
        sharp = np.ascontiguousarray(np.moveaxis(whole, 2, 0))[40:168, 20:212, 14:174]
        made = Degradation.gaussian([(4 / 2.355) ** 2, 0, 0], (4, 1, 1))
        coarse = made.down(torch.tensor(sharp)[None, None])[0, 0].numpy()
        return ssd.Volume(coarse, "ZYX", name="t1"), sharp, made, score_range

    yield Case("t1", "thick slices x4", 4, load)


def score_range(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the PSNR over the truth's range, without the border."""
    inner = tuple(slice(4, -4) for _ in truth.shape)
    return ssd.psnr(found[inner], truth[inner], float(truth.max() - truth.min()))


def measure(case: Case, method: str) -> dict[str, Any]:
    """Enlarge one image."""
    volume, truth, made, score = case.load()
    kind, options = METHODS[method]
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder, "kernel.npy")
        np.save(kernel, made.kernel)
        factors = {"factor": 1, "factor_z": case.factor} if truth.ndim == 3 else {"factor": case.factor}
        started = time.perf_counter()
        made_sharp = ssd.upscale(volume, kind, kernel=str(kernel), grid=made.grid, **factors, **options)
        seconds = time.perf_counter() - started
    found = np.asarray(made_sharp)
    line = {"psnr": score(found, truth), "ssim": ssd.ssim(found, truth, float(np.ptp(truth))), "seconds": seconds}
    if method == "cubic" and truth.ndim == 2:
        plain = Degradation.bicubic((case.factor,) * 2).up(torch.tensor(volume.data)[None, None])[0, 0].numpy()
        line["plain"] = score(plain, truth)
    return line


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """List what was asked for."""
    sets = {"set5": "sr/set5", "bsd100": "sr/bsd100_first25"}
    for name in options.cases:
        if name in sets:
            for factor in options.factors:
                yield from photographs(options.data / sets[name], name, factor)
        else:
            yield from {"microscopy": microscopy, "thick": thick}[name](options.data)


def tables(lines: list[dict[str, Any]]) -> str:
    """Return the means of each group, in Markdown."""
    groups = list(dict.fromkeys(line["group"] for line in lines))
    methods = [m for m in METHODS if any(line["method"] == m for line in lines)]
    paper_says = "paper: bicubic, ZSSR, MZSR(1), (10)"
    out = [f"| PSNR, dB (seconds an image) | bicubic | {' | '.join(methods)} | {paper_says} |"]
    out.append("| --- |" + " --- |" * (len(methods) + 2))
    for group in groups:
        own = [line for line in lines if line["group"] == group]
        plain = [line["plain"] for line in own if "plain" in line]
        row = [group, f"{mean(plain):.2f}" if plain else "-"]
        for method in methods:
            found = [(line["psnr"], line["seconds"]) for line in own if line["method"] == method]
            few = f", n={len(found)}" if len(found) < len({line["name"] for line in own}) else ""
            score, seconds = (mean(values) for values in zip(*found, strict=True)) if found else (0.0, 0.0)
            row.append(f"{score:.2f} ({seconds:.1f}{few})" if found else "-")
        name, _, blur = group.partition(" x")
        factor, _, blur = blur.partition(" ")
        paper = PAPER.get((name, int(factor) if factor.isdigit() else 0), {}).get(blur)
        row.append(", ".join(f"{p:.2f}" for p in paper) if paper else "-")
        out.append("| " + " | ".join(row) + " |")
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["set5"], help="set5, bsd100, microscopy, thick")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--factors", type=int, nargs="+", default=[2])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--only", default="", help="groups whose name contains this")
    parser.add_argument("--most", type=int, default=0, help="images of each group; 0: all")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "superresolution.jsonl")
    options = parser.parse_args()
    if not (options.data / "sr").is_dir():
        sys.exit(f"skipped: {options.data} has no folder sr; see --help.")
    lines = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    counts: dict[str, int] = {}
    for case in cases(options):
        counts[case.group] = counts.get(case.group, 0) + 1
        if options.only not in case.group or 0 < options.most < counts[case.group]:
            continue
        for method in options.methods:
            key = {"name": case.name, "group": case.group, "method": method}
            if any(all(line[k] == v for k, v in key.items()) for line in lines):
                continue
            line = {**key, **{k: round(v, 4) for k, v in measure(case, method).items()}}
            lines.append(line)
            with options.results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, file=sys.stderr, flush=True)
    print(tables(lines))


if __name__ == "__main__":
    main()
