"""Is my data enough? How much more images like these would improve a denoiser, told without clean ones.

A network learns one noisy view from another, on growing parts of the images. Other images, held out, tell its error:
the noise of their second views adds a constant to it, which the difference between the views measures.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_ssdenoise.engine.device import choose_device, choose_precision
from napari_ssdenoise.networks.blocks import MEMORY_FORMAT
from napari_ssdenoise.study._ledger import Ledger
from napari_ssdenoise.study._pairs import Kind, Pair, read_pairs
from napari_ssdenoise.study.fit import Estimate, RiskFit, fit_risk
from napari_ssdenoise.study.networks import NetworkStudy, Views, errors_of, fit_network

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_ssdenoise.networks.unet import UNet

FEWEST = 6  # pairs of views: four to learn from make three sizes
HELD_OUT = 4  # one image of so many judges
VALIDATING, TESTING = 32, 256  # tiles at most
ENOUGH = 0.1  # decibels that nobody sees


@dataclass(frozen=True, kw_only=True)
class DataStudySettings:
    """How to train.

    Attributes
    ----------
    seeds
        Trainings on each number of images: other images in the smaller sets, and other first weights.
    steps, batch, rate
        Steps of Adam at most, tiles a step, and the learning rate.
    side
        Of a tile, in pixels.
    width, depth
        Of the U-Net.
    """

    seeds: int = 3
    steps: int = 300
    batch: int = 8
    rate: float = 4e-3
    side: int = 64
    width: int = 16
    depth: int = 2

    def network(self) -> NetworkStudy:
        """Return the training's part of it."""
        return NetworkStudy(
            sizes=(1,), seeds=self.seeds, steps=self.steps, batch=self.batch, rate=self.rate, width=self.width,
            depth=self.depth,
        )  # fmt: skip


@dataclass(frozen=True)
class DataTraining:
    """One training: on how many images, and its risk, in squared units of the images' intensities."""

    size: int
    seed: int
    risk: float
    processor_seconds: float


@dataclass(frozen=True)
class DataStudy:
    """What `study_data` found.

    Attributes
    ----------
    images, held_out
        How many could be learnt from, and how many judged. A pair of frames counts as one.
    kind
        What the two views are: ``"target"``, neighbouring ``"frames"``, or ``"pixels"`` of one image.
    noise
        Variance of the noise in a view.
    trainings
        By size and seed.
    """

    images: int
    held_out: int
    kind: Kind
    noise: float
    trainings: tuple[DataTraining, ...]

    @property
    def table(self) -> list[tuple[int, float, float]]:
        """Size, mean risk, and standard deviation over seeds."""
        sizes = sorted({t.size for t in self.trainings})
        risks = [[t.risk for t in self.trainings if t.size == size] for size in sizes]
        return [(size, float(np.mean(r)), float(np.std(r))) for size, r in zip(sizes, risks, strict=True)]

    @cached_property
    def fit(self) -> RiskFit:
        """The curve through all trainings."""
        return self._fit(self.images)

    @property
    def to_gain(self) -> Estimate:
        """Decibels between what all the images give and what endlessly many would."""
        return self.fit.gain_db(self.images)

    @property
    def more_to_halve(self) -> Estimate:
        """How many more images would halve that."""
        return self.fit.more_to_halve(self.images)

    @cached_property
    def check(self) -> tuple[int, Estimate, float] | None:
        """A test of such predictions: what all images gain, foretold from half of them or fewer.

        Returns
        -------
        half, predicted, measured
            The largest size that was used, and decibels from it to all images; None with fewer than four sizes.
        """
        sizes = [size for size, _, _ in self.table]
        half = max((size for size in sizes if 2 * size <= self.images), default=0)
        if sum(size <= half for size in sizes) < 3:
            return None
        risks = {size: risk for size, risk, _ in self.table}
        measured = 10 * np.log10(risks[half] / risks[self.images])
        return half, self._fit(half).gain_db(half, self.images), float(measured)

    def describe(self) -> str:
        """Say it in sentences."""
        gain, more = self.to_gain, self.more_to_halve
        noun = {"target": "images", "frames": "pairs of frames", "pixels": "images"}[self.kind]
        lines = [f"With {self.images} {noun} you are about {_range(gain, '.2f')} dB from what more data would give."]
        if gain.high < ENOUGH:
            lines.append("More images like these would bring nothing that one could see.")
        else:
            lines.append(f"About {_range(more, '.0f')} more {noun} would halve that.")
        if not self.fit.identified and gain.high >= ENOUGH:
            lines.append("The measurements do not tell well how the curve goes on: trust the ranges, not the values.")
        if self.check is not None:
            half, predicted, measured = self.check
            lines.append(
                f"Check: measured on {half} {noun} or fewer, {self.images} should gain {_range(predicted, '.2f')} dB "
                f"over {half}; they gained {measured:.2f} dB."
            )
        if self.kind == "pixels":
            lines.append(
                "The images were seen at half their resolution, and their noise was taken as independent from pixel to "
                "pixel; repeated frames or a second image of each scene tell more."
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        check = self.check
        return {
            "images": self.images,
            "held_out": self.held_out,
            "views": self.kind,
            "noise_variance": self.noise,
            "sizes": [{"size": n, "risk": r, "deviation": d} for n, r, d in self.table],
            "trainings": [asdict(t) for t in self.trainings],
            "to_gain_db": self.to_gain.to_json(),
            "more_to_halve": self.more_to_halve.to_json(),
            "check": check and {"from": check[0], "predicted_db": check[1].to_json(), "measured_db": check[2]},
            "fit": self.fit.to_json(),
        }

    def _fit(self, most: int) -> RiskFit:
        used = [t for t in self.trainings if t.size <= most]
        return fit_risk([t.size for t in used], [t.risk for t in used])


def study_data(
    images: Any,
    *,
    target: Any = None,
    series: bool = False,
    axes: str | None = None,
    settings: DataStudySettings | None = None,
    ledger: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    on_training: Callable[[DataTraining, float], None] | None = None,
) -> DataStudy:
    """Measure how the error of a denoiser falls with the number of one's images, and how it would go on.

    Parameters
    ----------
    images
        A stack, as a volume, array or path, or a list of images. Frames (T) are counted, else slices (Z), else images.
    target
        A second noisy view of each image, if there is one. Without it, frames 1 and 2, 3 and 4, ... of a series are
        two views of one scene, so nothing should move much between them; images that are no series are split into
        their pixels.
    series
        A list of images are the frames of one series.
    axes
        One letter of TCZYXS per dimension, where nobody says.
    settings
        Of the trainings.
    ledger
        A file of JSON lines that keeps what is done, so that a stopped study goes on.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``...
    seed
        Of the choice of tiles.
    on_training
        Is given each finished training, and which part of all it completes.

    Returns
    -------
    DataStudy

    Raises
    ------
    ValueError
        If there are fewer than six images (twelve frames), or the views differ by more than noise.

    Notes
    -----
    The risk E |f(y1) - x|**2 is E |f(y1) - y2|**2 - E |y1 - y2|**2 / 2 where noise is independent between the views,
    and both are given to the network in turn. What moves between the views adds a constant: the gain is understated.
    """
    settings = settings or DataStudySettings()
    pairs, kind = read_pairs(images, target=target, series=series, axes=axes, side=settings.side, seed=seed)
    if len(pairs) < FEWEST:
        needed = f"{2 * FEWEST} frames" if kind == "frames" else f"{FEWEST} images"
        raise ValueError(f"there are {len(pairs)} images with two views; a curve needs {needed} or more.")
    held = list(range(HELD_OUT // 2, len(pairs), HELD_OUT))
    learning = [pair for number, pair in enumerate(pairs) if number not in held]
    judge = _Judge([pairs[number] for number in held], learning, choose_device(device), settings)
    book = Ledger(ledger, _fingerprint(pairs, settings))
    done = {(entry["size"], entry["seed"]): entry for entry in book.read()}
    kinds = [(s, n) for s in range(settings.seeds) for n in _sizes(len(learning))]
    cost, total = 0.0, sum(n**0.5 for _, n in kinds)
    trainings = []
    for run, size in kinds:
        entry = done.get((size, run))
        if entry is None:
            training = judge.train(size, run)
            book.add(asdict(training))
        else:
            training = DataTraining(**{k: v for k, v in entry.items() if k != "study"})
        trainings.append(training)
        cost += size**0.5
        if on_training is not None:
            on_training(training, cost / total)
    return DataStudy(len(learning), len(held), kind, judge.noise, tuple(trainings))


def _sizes(most: int) -> list[int]:
    """Halve from the largest, down to one image, six sizes at most."""
    sizes = [most]
    while sizes[-1] > 1 and len(sizes) < 6:
        sizes.append(sizes[-1] // 2)
    return sizes[::-1]


class _Judge:
    """Trains on some of the images, and measures the risk on those held out."""

    def __init__(
        self, held: Sequence[Pair], learning: Sequence[Pair], device: torch.device, settings: DataStudySettings
    ) -> None:
        self.learning, self.device, self.settings = learning, device, settings
        every = np.concatenate([pair.first for pair in learning])
        self.centre, self.spread = float(every.mean()), float(every.std()) or 1.0
        rng = np.random.default_rng(0)
        first, second = (np.concatenate([getattr(pair, name) for pair in held]) for name in ("first", "second"))
        order = rng.permutation(len(first))
        count = max(1, min(VALIDATING, len(order) // 3))
        self.validation = self._views(first[order[:count]], second[order[:count]])
        chosen = order[count : count + TESTING] if len(order) > count else order
        self.test = self._views(first[chosen], second[chosen])
        self.noise = float(np.square(first[chosen] - second[chosen]).mean(dtype=float)) / 2

    def train(self, size: int, seed: int) -> DataTraining:
        """Train on that many images and measure."""
        started = time.process_time()
        order = np.random.default_rng([seed, 1]).permutation(len(self.learning))[:size]
        first, second = (
            np.concatenate([getattr(self.learning[i], name) for i in order]) for name in ("first", "second")
        )
        study = self.settings.network()
        network = fit_network(study, self._views(first, second), self.validation, seed, self.device, turned=True)
        risk = self._risk(network, study) - self.noise
        if risk <= 0:
            raise ValueError(
                "the held-out error is smaller than the noise that the two views show, so they differ by more than "
                "noise: something moves or fades between them, or neighbouring pixels share their noise."
            )
        return DataTraining(size, seed, risk, time.process_time() - started)

    def _views(self, first: NDArray[np.float32], second: NDArray[np.float32]) -> Views:
        """Both views as inputs, with the other one as the target."""

        def tensor(*images: NDArray[np.float32]) -> Tensor:
            scaled = (np.concatenate(images) - self.centre) / self.spread
            return torch.from_numpy(scaled)[:, None].contiguous(memory_format=MEMORY_FORMAT[2]).to(self.device)

        return Views(noisy=tensor(first, second), target=tensor(second, first))

    def _risk(self, network: UNet, study: NetworkStudy) -> float:
        dtype = choose_precision(self.device, study.precision)
        errors = errors_of(network, self.test.noisy, self.test.target, dtype)
        return float(errors.double().mean()) * self.spread**2


def _fingerprint(pairs: Sequence[Pair], settings: DataStudySettings) -> str:
    facts = {k: v for k, v in asdict(settings).items() if k != "seeds"}
    digest = hashlib.sha256(repr(sorted(facts.items())).encode())
    for pair in pairs:
        digest.update(pair.first.tobytes())
        digest.update(pair.second.tobytes())
    return digest.hexdigest()[:16]


def _range(estimate: Estimate, form: str) -> str:
    def number(value: float) -> str:
        return "endlessly many" if value == float("inf") else format(value, form)

    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"
