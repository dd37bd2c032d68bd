"""Study what the updates of super-resolution begin with, as Soh et al. (2020) do, and draw it.

    python benchmarks/superresolution_studies.py updates --data FOLDER --starts random "pre-trained=FILE" "meta-trained=FILE"
    python benchmarks/superresolution_studies.py order   --data FOLDER --starts "first order=FILE" "second order=FILE"
    python benchmarks/superresolution_studies.py scales  --data FOLDER --starts "x2 only=FILE" "x2 and x4=FILE"
    python benchmarks/superresolution_studies.py picture --data FOLDER --starts "pre-trained=FILE" "meta-trained=FILE"

A start is a name and the file of its weights, as ``training/superresolution.py`` writes it; ``random`` needs none. The
first three draw PSNR against the number of updates, in the mean of the Set5 images blurred with variance 2 (g_d 2.0): with
plain gradient descent, as published, and with Adam and two back-projections; from the image alone, not from smaller copies
as well, as the program learns by default. ``picture`` shows the first update at work on a part of scikit-image's camera
image, which none of the shipped weights has seen.

Each measurement is a line of JSON in ``--results``, and is not repeated. Drawing takes matplotlib.
"""  # noqa: E501 - commands to copy

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from superresolution import Case, Way, begin, degradation, digest, photographs  # before torch: sets threads up

import napari_ssdenoise as ssd  # isort: skip
import torch
from PIL import Image
from safetensors.torch import load_file

from napari_ssdenoise.networks.resnet_sr import ResidualNet

if TYPE_CHECKING:
    from napari_ssdenoise.ops.degrade import Degradation

HERE = Path(__file__).parent
BLUR = "g_d 2.0"
# The rate of plain descent is one of about 0.01 for grey values from 0 to 1, as in the paper after its first update.
RATES = {"sgd": 2e-3, "adam": 4e-4}
TITLES = {"sgd": "Plain gradient descent", "adam": "Adam, and two back-projections"}
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
CORNER, SIDE = (64, 176), 128  # of the part of the camera image that is shown

FEW = (0, 1, 2, 3, 5, 7, 10, 15, 20)


class Study(NamedTuple):
    """At which updates to look, for each way of descent, and at which factors."""

    updates: dict[str, tuple[int, ...]]
    factors: tuple[int, ...] = (2,)


STUDIES = {
    "updates": Study({"sgd": FEW, "adam": (*FEW, 50, 100)}),
    "order": Study({"sgd": (0, 1, 2, 5, 10, 20), "adam": (0, 1, 2, 5, 10, 20)}),
    "scales": Study({"adam": (0, 1, 5, 10, 20)}, (2, 4)),
}


@dataclass(frozen=True)
class Start:
    """Weights to begin with."""

    name: str
    path: Path | None

    @classmethod
    def parse(cls, text: str) -> Start:
        name, _, path = text.partition("=")
        if not path and name != "random":
            raise argparse.ArgumentTypeError(f"{text!r} is neither 'random' nor NAME=FILE")
        return cls(name, Path(path) if path else None)

    @property
    def digest(self) -> str:
        return digest(self.path) if self.path else "random"

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        if self.path:
            return load_file(self.path)
        torch.manual_seed(0)
        return ResidualNet(2).state_dict()


def adapting(
    volume: ssd.Volume, made: Degradation, start: Start, descent: str, updates: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the image as it is after each of some numbers of updates: plain, and after two back-projections."""
    settings = {"descent": descent, "learning_rate": RATES[descent], "scales": False, "back_projections": 0}
    upscaler = begin(volume, made, Way("mzsr", updates[-1], settings), start.weights)
    coarse = torch.from_numpy(volume.data)[None, None]
    for count in updates:
        for _ in range(count - upscaler.step):
            next(upscaler)
        plain = upscaler.model.predict(upscaler.volume)
        yield plain, made.refine(torch.from_numpy(plain)[None, None], coarse, 2)[0, 0].numpy()


def measure(case: Case, start: Start, descent: str, updates: tuple[int, ...]) -> dict[str, Any]:
    """Return the PSNR after each number of updates."""
    volume, truth, made, score = case.load()
    found = list(adapting(volume, made, start, descent, updates))
    plain, projected = ([round(score(image, truth), 3) for image in images] for images in zip(*found, strict=True))
    return {"updates": list(updates), "psnr": plain, "projected": projected}


def unlearnt(case: Case) -> float:
    """Return the PSNR of ten back-projections, which learn nothing."""
    volume, truth, made, score = case.load()
    return score(begin(volume, made, Way("ibp"), {}).model.predict(volume), truth)


class Panel(NamedTuple):
    """A plot: curves by the name of their start, and a level to compare with."""

    title: str
    updates: tuple[int, ...]
    curves: dict[str, np.ndarray]
    level: float


def curves(options: argparse.Namespace) -> None:
    """Measure what is missing, and draw the means."""
    study, panels = STUDIES[options.study], []
    for factor in study.factors:
        cases = [case for case in photographs(options.data / "sr/set5", "set5", factor) if case.group.endswith(BLUR)]
        level = mean(unlearnt(case) for case in cases)
        for descent, updates in study.updates.items():
            found = {}
            for start in options.starts:
                rows = [kept(options.results, case, start, descent, updates) for case in cases]
                found[start.name] = np.mean([row["psnr" if descent == "sgd" else "projected"] for row in rows], 0)
                points = (f"{n}: {value:.2f}" for n, value in zip(updates, found[start.name], strict=True))
                print(f"x{factor}, {descent}, {start.name}: {', '.join(points)}", flush=True)
            title = TITLES[descent] + (f", x{factor}" if len(study.factors) > 1 else "")
            panels.append(Panel(title, updates, found, level))
    draw(panels, options.out / f"superres-{options.study}.svg")


def kept(results: Path, case: Case, start: Start, descent: str, updates: tuple[int, ...]) -> dict[str, Any]:
    """Return a measurement, from the file with results if it is there."""
    facts = {"name": case.name, "group": case.group, "weights": start.digest, "descent": descent}
    facts["updates"] = list(updates)
    for text in results.read_text().splitlines() if results.exists() else ():
        line: dict[str, Any] = json.loads(text)
        if facts.items() <= line.items():
            return line
    line = {**facts, **measure(case, start, descent, updates)}
    with results.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def draw(panels: list[Panel], path: Path) -> None:
    """Draw panels side by side."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(5 * len(panels), 3.8), squeeze=False, layout="constrained")
    for place, panel in zip(axes[0], panels, strict=True):
        for color, (name, values) in zip(COLORS, panel.curves.items(), strict=False):
            place.plot(panel.updates, values, "o-", color=color, label=name, markersize=4)
        place.axhline(panel.level, color="0.5", linestyle="--", label="back-projection alone")
        place.set_ylim(bottom=max(place.get_ylim()[0], panel.level - 7))  # random weights fall below what matters
        place.set_xscale("symlog", linthresh=5)
        place.set_xlim(left=-0.4)
        ticks = [n for n in (0, 1, 2, 3, 5, 10, 20, 50, 100) if n in panel.updates]
        place.set_xticks(ticks, [str(n) for n in ticks])
        place.minorticks_off()
        place.set(title=panel.title, xlabel="Updates on the image itself", ylabel="PSNR, dB")
        place.spines[["top", "right"]].set_visible(False)
        place.grid(alpha=0.25)
        place.legend(frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None})


def picture(options: argparse.Namespace) -> None:
    """Show a part of an image before and after updates, one row for each start."""
    from matplotlib import pyplot

    whole = np.asarray(Image.open(options.data / "sr/skimage_data/camera.png").convert("L"), np.float32)
    made = degradation(BLUR, 2)
    volume = ssd.Volume(made.down(torch.tensor(whole)[None, None])[0, 0].round().numpy(), "YX", name="camera")
    cubic = begin(volume, made, Way("bicubic"), {}).model.predict(volume)
    inner = (slice(CORNER[0], CORNER[0] + SIDE), slice(CORNER[1], CORNER[1] + SIDE))
    figure, axes = pyplot.subplots(
        len(options.starts), 5, figsize=(12.5, 2.75 * len(options.starts)), squeeze=False, layout="constrained"
    )
    for row, start in zip(axes, options.starts, strict=True):
        begun, once = (plain for plain, _ in adapting(volume, made, start, "sgd", (0, 1)))
        *_, (_, last) = adapting(volume, made, start, "adam", (100,))
        shown = {"interpolated": cubic, "no update": begun, "one update": once, "100 updates": last, "truth": whole}
        for place, (title, image) in zip(row, shown.items(), strict=True):
            place.imshow(image[inner], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            score = "" if image is whole else f", {ssd.psnr(image, whole, 255):.2f} dB"
            place.set_title(title + score, fontsize=10)
            place.set(xticks=[], yticks=[])
            print(start.name, title + score)
        row[0].set_ylabel(start.name, fontsize=10)
    figure.savefig(options.out / "superres-picture.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=[*STUDIES, "picture"])
    parser.add_argument("--data", type=Path, required=True, help="as for superresolution.py")
    parser.add_argument("--starts", type=Start.parse, nargs="+", required=True, metavar="NAME=FILE")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "superresolution-studies.jsonl")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "images", help="folder for the drawings")
    options = parser.parse_args()
    (picture if options.study == "picture" else curves)(options)


if __name__ == "__main__":
    main()
