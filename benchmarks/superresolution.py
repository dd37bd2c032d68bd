"""Measure super-resolution: ours, interpolation with back-projection, and the paper's figures beside them.

``set5``, ``bsd100``: photographs, made coarse here with the four kinds of blur of Soh et al. (2020), known to all
methods; PSNR of the luminance, as there (rounded, a border of ``factor`` pixels left out). ``bicubic`` is plain
interpolation, which is off by half a pixel where the sampling takes the first pixel of each cell; ``cubic`` is in the
right place, and ``ibp`` adds ten back-projections: what must be beaten.
``microscopy``: clean microscopy (SEM, and means of many fluorescence frames), blurred (variance 1 pixel squared) and
reduced by 2 on the registered grid; ``thick``: a T1-weighted head, blurred and reduced along Z by 4.

``--data`` is the folder with ``sr``, ``microscopy`` and ``mri``. Each measurement is a line of JSON in ``--results``,
and is not repeated, unless it is one of ``mzsr`` with other initial weights, whose digest it names. What is printed in
the end is a table, with the figures published beside ours.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from napari_ssdenoise._threads import share_processor

share_processor()

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

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
PAPER: dict[tuple[str, int], dict[str, tuple[float | None, ...]]] = {
    ("set5", 2): {
        "g_d 0.2": (30.24, 34.29, 33.14, 33.74),
        "g_d 2.0": (28.73, 34.90, 35.20, 36.05),
        "g_ani": (28.15, 33.96, 34.05, 34.78),
        "g_b 1.3": (30.54, 35.24, 35.18, 36.64),
    },
    ("set5", 4): {"g_d 2.0": (24.74, 27.39, 30.20, 30.50)},
    ("bsd100", 2): {
        "g_d 0.2": (None, 29.35, None, 29.03),
        "g_d 2.0": (None, 30.57, None, 31.09),
        "g_ani": (None, 29.72, None, 29.54),
        "g_b 1.3": (None, 30.74, None, 31.25),
    },
}


@dataclass(frozen=True)
class Way:
    """A method, how many updates it takes, and its settings."""

    method: str
    updates: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


# As published: plain gradient descent, no smaller copies, and no back-projection. The loss is in units of the image's
# deviation, so this rate is one of about 0.01 for grey values from 0 to 1.
SGD = {"descent": "sgd", "learning_rate": 2e-3, "scales": False, "back_projections": 0}
POSES = {"ensemble": True}  # zssr takes all poses anyway, as published
WAYS = {
    "cubic": Way("bicubic"),
    "ibp": Way("ibp"),
    "zssr 1000": Way("zssr", 1000),
    "zssr 3000": Way("zssr", 3000),
    "mzsr 0": Way("mzsr", 0, SGD),
    "mzsr 1 sgd": Way("mzsr", 1, SGD),
    "mzsr 10 sgd": Way("mzsr", 10, SGD),
    "mzsr 10": Way("mzsr", 10),
    "mzsr 20": Way("mzsr", 20),
    "mzsr 100": Way("mzsr", 100),
    "mzsr 200": Way("mzsr", 200),
    "mzsr 10 poses": Way("mzsr", 10, POSES),
    "mzsr 20 poses": Way("mzsr", 20, POSES),
    "mzsr 100 poses": Way("mzsr", 100, POSES),
    "mzsr 200 poses": Way("mzsr", 200, POSES),
    "mzsr 300 poses": Way("mzsr", 300, POSES),
    "zssr 1000 one pose": Way("zssr", 1000, {"ensemble": False}),
    "zssr 3000 one pose": Way("zssr", 3000, {"ensemble": False}),
    "zssr 1000 gradual": Way("zssr", 1000, {"gradual": True}),
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


def run(name: str) -> str:
    """Return what ways have in common that can be scored one after the other in one run.

    ZSSR's learning rate falls towards its last update, so each number of them is a run of its own.
    """
    way = WAYS[name]
    return f"{way.method} {way.updates if way.method == 'zssr' else ''} {way.settings}"


def measure(case: Case, names: Iterable[str], weights: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Enlarge one image in ways that share a run, and score each after its updates."""
    volume, truth, made, score = case.load()
    ways = {name: WAYS[name] for name in sorted(names, key=lambda name: WAYS[name].updates)}
    last = list(ways.values())[-1]
    started = time.perf_counter()
    upscaler = begin(volume, made, last, load_file(weights))
    spent = time.perf_counter() - started
    for name, way in ways.items():
        started = time.perf_counter()
        for _ in range(way.updates - upscaler.step):
            next(upscaler)
        spent += time.perf_counter() - started
        started = time.perf_counter()
        found = upscaler.model.predict(upscaler.volume)
        seconds = spent + time.perf_counter() - started
        line = {"psnr": score(found, truth), "ssim": ssd.ssim(found, truth, float(np.ptp(truth))), "seconds": seconds}
        if name == "cubic" and truth.ndim == 2:
            plain = Degradation.bicubic((case.factor,) * 2).up(torch.tensor(volume.data)[None, None])[0, 0].numpy()
            line["plain"] = score(plain, truth)
        yield name, line


def begin(volume: ssd.Volume, made: Degradation, way: Way, weights: dict[str, torch.Tensor]) -> ssd.Upscaler:
    """Give a method an image and its blur, and to mzsr the weights that its updates begin with."""
    *depth, _, factor = made.factors
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder, "kernel.npy")
        np.save(kernel, made.kernel)
        settings = {"kernel": str(kernel), "grid": made.grid, "factor": factor, "factor_z": depth[0] if depth else 1}
        upscaler = ssd.Upscaler(volume, way.method, adapt=way.updates, **settings, **way.settings)
    if way.method == "mzsr":
        state = upscaler.checkpoint()
        for part in ("network", "averaged"):
            state[part] |= {f"body.{name}": value for name, value in weights.items()}
        upscaler.resume(state)
    return upscaler


def shipped(case: Case) -> Path:
    """Return the file with the initial weights that come with the program for a case."""
    kind = "z" if case.group.startswith("thick") else "x2" if case.factor < 4 else "x4"
    return Path(str(files("napari_ssdenoise").joinpath("weights", f"super-resolution-{kind}.safetensors")))


def digest(path: Path) -> str:
    """Return what tells files with weights apart."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def cases(options: argparse.Namespace) -> Iterator[Case]:
    """List what was asked for."""
    sets = {"set5": "sr/set5", "bsd100": "sr/bsd100_first25"}
    for name in options.cases:
        if name in sets:
            for factor in options.factors:
                yield from photographs(options.data / sets[name], name, factor)
        else:
            yield from {"microscopy": microscopy, "thick": thick}[name](options.data)


def key(line: dict[str, Any]) -> tuple[str, ...]:
    """Return what a measurement is of."""
    return tuple(line.get(part, "") for part in ("name", "group", "method", "weights"))


def table(lines: list[dict[str, Any]]) -> str:
    """Return the means of each group, in Markdown."""
    ways = [name for name in WAYS if any(line["method"] == name for line in lines)]
    head = ["PSNR, dB (seconds an image)", "bicubic", *ways, "paper: bicubic, ZSSR, MZSR(1), (10)"]
    rows = [head, ["---"] * len(head)]
    for group in dict.fromkeys(line["group"] for line in lines):
        own = [line for line in lines if line["group"] == group]
        images = len({line["name"] for line in own})
        plain = [line["plain"] for line in own if "plain" in line]
        row = [group, f"{mean(plain):.2f}" if plain else "-"]
        row += [cell([line for line in own if line["method"] == name], images) for name in ways]
        rows.append([*row, published(group)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(lines: list[dict[str, Any]], images: int) -> str:
    """Return the mean of some lines, and of how many images if not of all."""
    if not lines:
        return "-"
    few = f", n={len(lines)}" if len(lines) < images else ""
    return f"{mean(line['psnr'] for line in lines):.2f} ({mean(line['seconds'] for line in lines):.1f}{few})"


def published(group: str) -> str:
    """Return the paper's figures for a group, if there are any."""
    name, _, rest = group.partition(" x")
    factor, _, blur = rest.partition(" ")
    found = PAPER.get((name, int(factor)), {}).get(blur) if factor.isdigit() else None
    return ", ".join("-" if p is None else f"{p:.2f}" for p in found) if found else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["set5"], help="set5, bsd100, microscopy, thick")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--factors", type=int, nargs="+", default=[2])
    parser.add_argument("--methods", nargs="+", default=list(WAYS), choices=WAYS, metavar="METHOD")
    parser.add_argument("--only", default="", help="groups whose name contains this")
    parser.add_argument("--limit", type=int, default=0, help="images of each group; 0: all")
    parser.add_argument("--weights", type=Path, help="for mzsr to begin with; by default those of the program")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results" / "superresolution.jsonl")
    options = parser.parse_args()
    if not (options.data / "sr").is_dir():
        sys.exit(f"skipped: {options.data} has no folder sr; see --help.")
    before = [json.loads(line) for line in options.results.read_text().splitlines()] if options.results.exists() else []
    known = {key(line): line for line in before}
    lines: list[dict[str, Any]] = []
    counts: dict[str, int] = {}
    for case in cases(options):
        counts[case.group] = counts.get(case.group, 0) + 1
        if options.only not in case.group or 0 < options.limit < counts[case.group]:
            continue
        weights = options.weights or shipped(case)
        wanted = {name: {"name": case.name, "group": case.group, "method": name} for name in options.methods}
        for name, facts in wanted.items():
            if WAYS[name].method == "mzsr":
                facts["weights"] = digest(weights)
        lines += [known[key(facts)] for facts in wanted.values() if key(facts) in known]
        missing = sorted((name for name, facts in wanted.items() if key(facts) not in known), key=run)
        for _, names in groupby(missing, run):
            for name, found in measure(case, names, weights):
                lines.append(wanted[name] | {k: round(v, 4) for k, v in found.items()})
                with options.results.open("a") as file:
                    file.write(json.dumps(lines[-1]) + "\n")
                print(lines[-1], file=sys.stderr, flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
