"""Is my data enough? How much more images like these would improve a denoiser, told without clean ones.

A network learns one noisy view from another, on growing parts of the images. Other images, held out, tell its error:
the noise of their second views adds a constant to it, which the difference between the views measures.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.engine.device import choose_device
from napari_ssdenoise.study._ledger import Ledger
from napari_ssdenoise.study._pairs import Kind, Pair, held_out, read_pairs, require_pairs
from napari_ssdenoise.study._trainings import DataStudySettings, DataTraining, Judge
from napari_ssdenoise.study.fit import Estimate, RiskFit, fit_risk, measured_gain

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DataStudier", "DataStudy", "DataStudySettings", "DataTraining", "StudyStep", "study_data"]

ENOUGH = 0.1  # decibels that nobody sees


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
    def check(self) -> tuple[int, Estimate, Estimate] | None:
        """A test of such predictions: what all images gain, foretold from half of them or fewer.

        Returns
        -------
        half, predicted, measured
            The largest size that was used, and decibels from it to all images, as foretold and as they came, which
            is as uncertain as single trainings scatter; None with fewer than four sizes.
        """
        sizes = [size for size, _, _ in self.table]
        half = max((size for size in sizes if 2 * size <= self.images), default=0)
        if sum(size <= half for size in sizes) < 3:
            return None
        before, after = ([t.risk for t in self.trainings if t.size == size] for size in (half, self.images))
        return half, self._fit(half).gain_db(half, self.images), measured_gain(before, after)

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
                f"over {half}; they gained {_range(measured, '.2f')} dB."
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
            "check": check
            and {"from": check[0], "predicted_db": check[1].to_json(), "measured_db": check[2].to_json()},
            "fit": self.fit.to_json(),
        }

    def _fit(self, most: int) -> RiskFit:
        used = [t for t in self.trainings if t.size <= most]
        return fit_risk([t.size for t in used], [t.risk for t in used])


@dataclass(frozen=True)
class StudyStep:
    """Where a study is.

    Attributes
    ----------
    number, trainings
        The training that is going on, from 1, and how many there are.
    size
        On how many images.
    done
        The part of all work that is done, 0 to 1.
    remaining
        Seconds that the rest will take; infinite while nobody knows.
    training
        The outcome, with a training's last step.
    """

    number: int
    trainings: int
    size: int
    done: float
    remaining: float
    training: DataTraining | None = None


class DataStudier:
    """Do what `study_data` does, one step of a training per iteration; `result` then holds the study.

    Parameters
    ----------
    images, target, series, axes, settings, ledger, device, seed
        As for `study_data`.

    Raises
    ------
    ValueError
        If there are fewer than six images (twelve frames), or the views do not fit.
    """

    def __init__(
        self,
        images: Any,
        *,
        target: Any = None,
        series: bool = False,
        axes: str | None = None,
        settings: DataStudySettings | None = None,
        ledger: Path | None = None,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        settings = settings or DataStudySettings()
        pairs, self._kind = read_pairs(images, target=target, series=series, axes=axes, side=settings.side, seed=seed)
        require_pairs(len(pairs), self._kind)
        held = held_out(len(pairs))
        learning = [pair for number, pair in enumerate(pairs) if number not in held]
        self._held = len(held)
        self._judge = Judge([pairs[number] for number in held], learning, choose_device(device), settings)
        self._book = Ledger(ledger, _fingerprint(pairs, settings))
        self.trainings: list[DataTraining] = []
        self._steps = self._run()

    def __iter__(self) -> Iterator[StudyStep]:
        return self

    def __next__(self) -> StudyStep:
        return next(self._steps)

    @property
    def result(self) -> DataStudy:
        """The study, when all trainings are done."""
        return DataStudy(len(self._judge.learning), self._held, self._kind, self._judge.noise, tuple(self.trainings))

    def _run(self) -> Iterator[StudyStep]:
        settings = self._judge.settings
        known = {(entry["size"], entry["seed"]): entry for entry in self._book.read()}
        kinds = [(s, n) for s in range(settings.seeds) for n in _sizes(len(self._judge.learning))]
        left = [kind for kind in kinds if kind[::-1] not in known]
        # A training on few images ends early.
        total, began, computed = sum(n**0.5 for _, n in kinds), time.perf_counter(), 0.0

        def step(training: DataTraining | None = None) -> StudyStep:
            ahead = sum(n**0.5 for _, n in left) - computed
            spent = time.perf_counter() - began
            return StudyStep(
                number, len(kinds), size, 1 - ahead / total, spent * ahead / computed if computed else inf, training
            )

        finished = 0.0
        for number, (run, size) in enumerate(kinds, 1):  # noqa: B007 - for `step`
            entry = known.get((size, run))
            if entry is not None:
                training = DataTraining(**{k: v for k, v in entry.items() if k != "study"})
            else:
                for part in self._judge.training(size, run):
                    if isinstance(part, DataTraining):
                        training = part
                        continue
                    computed = finished + part / settings.steps * size**0.5
                    yield step()
                self._book.add(asdict(training))
                computed = finished = finished + size**0.5
            self.trainings.append(training)
            yield step(training)


def study_data(
    images: Any, *, on_training: Callable[[DataTraining, float], None] | None = None, **how: Any
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
    studier = DataStudier(images, **how)
    for step in studier:
        if step.training is not None and on_training is not None:
            on_training(step.training, step.done)
    return studier.result


def _sizes(most: int) -> list[int]:
    """Halve from the largest, down to one image, six sizes at most."""
    sizes = [most]
    while sizes[-1] > 1 and len(sizes) < 6:
        sizes.append(sizes[-1] // 2)
    return sizes[::-1]


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

    if estimate.low == float("-inf"):
        return f"{number(estimate.value)} (of one training each)"
    return f"{number(estimate.value)} ({number(estimate.low)} to {number(estimate.high)})"
