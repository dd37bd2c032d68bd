"""Reconstruct k-space slice by slice, step by step, with the method that predicts held-out lines best."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from napari_ssdenoise.engine.device import choose_device
from napari_ssdenoise.io.kspace import KSpace, open_kspace
from napari_ssdenoise.reconstruction._linear import cg_sense, cg_sense_path, zero_filled
from napari_ssdenoise.reconstruction._model import ReconstructionModel
from napari_ssdenoise.reconstruction._problem import Problem, combined, hold_out, prepare
from napari_ssdenoise.reconstruction._result import Reconstruction, SliceResult
from napari_ssdenoise.reconstruction._tune import best, tune
from napari_ssdenoise.reconstruction._wavelet import LAST_STEPS, compressed_sensing, compressed_sensing_path
from napari_ssdenoise.reconstruction._zero_shot import ZeroShot, blend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import PathLike

    from numpy.typing import NDArray
    from torch import Tensor

METHODS: Final = {
    "auto": "the one of the least error on held-out lines",
    "zero-filled": "0 for what was not acquired",
    "cg-sense": "the least misfit to what the coils measured",
    "cs": "compressed sensing: few wavelet coefficients",
    "zs-ssdu": "a network that learns from the slice itself, and begins with compressed sensing",
}
FOLDS: Final = 2
# Updates of a network that learns from one slice.
STEPS: Final = 200
# How the method of a model is called.
LEARNT: Final = "model"
# The strength of a method where no lines could be held out to choose it.
USUAL: Final = {"cg-sense": 0.01, "cs": 0.003}
# The part of an image's energy that lies over another part, from which it is said.
WRAPPED: Final = 0.05


@dataclass(frozen=True)
class ReconstructionStep:
    """Where a reconstruction is.

    Parameters
    ----------
    slice, slices
        The slice that is worked on, from 0, and how many there are.
    method
        What is being computed.
    done
        The part of all work that is done, 0 to 1.
    """

    slice: int
    slices: int
    method: str
    done: float


@dataclass
class Candidate:
    """What one method makes of a slice."""

    image: Tensor
    errors: list[float]
    strength: float | None = None


class Reconstructor:
    """Make images of k-space, one step of the computation per iteration; `result` then holds them.

    Parameters
    ----------
    kspace
        k-space, a path or an array; see `open_kspace`.
    method
        ``"zero-filled"``, ``"cg-sense"``, ``"cs"``, ``"zs-ssdu"``, or ``"auto"``: of all of them the one is taken,
        slice by slice, that predicts acquired lines best that it was not shown. To learn takes minutes for each slice,
        so that auto does it only if ``steps`` is given; then the best mixture with compressed sensing takes part too.
        Or a `ReconstructionModel`, or the path of a saved one.
    steps
        Updates of the network of zs-ssdu for each slice; 200 by default.
    maps : (coils, Y, X) or (slices, coils, Y, X) complex, optional
        Coil sensitivities; estimated by ESPIRiT from the fully sampled centre if they are not given.
    axes, variable, mask
        See `open_kspace`.
    device
        Where to compute.
    seed
        Of the choice of held-out lines and of random shifts.

    Attributes
    ----------
    kspace
        What is reconstructed.
    slices
        The results so far.

    Raises
    ------
    ValueError
        If k-space, mask and maps do not fit together, or the method is not known.
    """

    def __init__(
        self,
        kspace: Any,
        method: str | PathLike[str] | ReconstructionModel = "auto",
        *,
        steps: int | None = None,
        maps: NDArray[Any] | None = None,
        axes: str | None = None,
        variable: str | None = None,
        mask: NDArray[Any] | None = None,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.model: ReconstructionModel | None = None
        if not isinstance(method, str) or method not in METHODS:
            self.model, method = _model(method), LEARNT
        if steps is not None and (steps < 1 or method not in ("auto", "zs-ssdu")):
            raise ValueError(f"steps={steps} must be 1 or more, and is of use to zs-ssdu and auto only.")
        self.steps = steps
        self.kspace: KSpace = open_kspace(kspace, axes=axes, variable=variable, mask=mask)
        self.method: str = method
        self.device = choose_device(device)
        self.seed = seed
        self._maps = self._fit_maps(maps)
        coils = self.kspace.shape[1]
        if coils == 1 and method == "cg-sense":
            raise ValueError(
                f"{self.kspace.name} was measured by a single coil, from which CG-SENSE cannot recover skipped lines: "
                "it takes the differences between coils. Choose cs or auto."
            )
        self.slices: list[SliceResult] = []
        self._steps = self._run()

    def __iter__(self) -> Iterator[ReconstructionStep]:
        return self

    def __next__(self) -> ReconstructionStep:
        return next(self._steps)

    def close(self) -> None:
        """Stop; the slices that are complete are kept."""
        self._steps.close()  # type: ignore[attr-defined]

    @property
    def result(self) -> Reconstruction:
        """What is complete so far.

        Raises
        ------
        ValueError
            If no slice is.
        """
        if not self.slices:
            raise ValueError("no slice is reconstructed yet.")
        return Reconstruction(self.kspace, tuple(self.slices))

    @property
    def candidates(self) -> tuple[str, ...]:
        """The methods that are computed for every slice."""
        if self.method == "zs-ssdu":
            return ("cs", "zs-ssdu")
        if self.model:
            return ("cs", LEARNT)
        if self.method != "auto":
            return (self.method,)
        linear = ("zero-filled",) if self.kspace.shape[1] == 1 else ("zero-filled", "cg-sense")
        return (*linear, "cs", *(("zs-ssdu",) if self.steps else ()))

    def _fit_maps(self, maps: NDArray[Any] | None) -> NDArray[Any] | None:
        if maps is None:
            return None
        maps = np.asarray(maps)
        slices, *plane = self.kspace.shape
        if maps.shape not in (tuple(plane), (slices, *plane)):
            raise ValueError(f"coil maps {maps.shape} do not fit k-space {self.kspace.shape} (slices, coils, Y, X).")
        return np.broadcast_to(maps, (slices, *plane))

    def _run(self) -> Iterator[ReconstructionStep]:
        slices = len(self.kspace)
        names = self.candidates
        for index in range(slices):
            yield ReconstructionStep(index, slices, "coil maps", index / slices)
            data, mask = self.kspace.read(index)
            given = None if self._maps is None else self._maps[index]
            try:
                problem = prepare(data, mask, given, self.device)
            except ValueError as error:
                raise ValueError(f"{self.kspace.name}, slice {index}: {error}") from error
            rng = torch.Generator().manual_seed(self.seed + index)
            folds = hold_out(problem, FOLDS, rng)
            found: dict[str, Candidate] = {}
            for number, name in enumerate(names):
                for part in self._compute(problem, name, folds, rng, found):
                    done = (index + (number + min(part, 1.0)) / len(names)) / slices
                    yield ReconstructionStep(index, slices, name, done)
            chosen = None if self.method == "auto" else self.method
            self.slices.append(_choose(problem, mask, found, chosen))

    def _compute(
        self, problem: Problem, name: str, folds: list[Tensor], rng: torch.Generator, found: dict[str, Candidate]
    ) -> Iterator[float]:
        """Put what a method makes of a slice into ``found``, and yield which part is done."""
        if name == "zs-ssdu":
            yield from learn(problem, folds, rng, found, self.steps or STEPS)
        elif name == LEARNT and self.model:
            errors = [problem.error(self.model.apply(problem.without(held)), held) for held in folds]
            found[name] = Candidate(self.model.apply(problem), errors)
        else:
            yield from compute(problem, name, folds, rng, found)


def _model(method: Any) -> ReconstructionModel:
    """Return the model that is meant by a method that has no name."""
    if isinstance(method, ReconstructionModel):
        return method
    if isinstance(method, str) and not Path(method).exists():
        known = ", ".join(METHODS)
        raise ValueError(f"unknown method {method!r}; choose one of {known}, or give the path of a saved model.")
    return ReconstructionModel.load(method)


def compute(
    problem: Problem, name: str, folds: list[Tensor], rng: torch.Generator, found: dict[str, Candidate]
) -> Iterator[float]:
    """Put what a method makes of a problem into ``found``, and yield which part is done."""
    if name == "zero-filled":
        # Without held-out lines, zero-filling predicts 0 for them, apart from what the coils share.
        errors = [problem.error(zero_filled(problem.without(held)), held) for held in folds]
        found[name] = Candidate(zero_filled(problem), errors)
        yield 1.0
        return
    path = cg_sense_path if name == "cg-sense" else lambda p: compressed_sensing_path(p, rng)
    strength, errors = USUAL[name], []
    if folds:
        tried: dict[float, list[float]] = {}
        for count, _ in enumerate(tune(problem, folds, path, tried)):
            yield min(0.8, count / (10 * len(folds)))
        strength, errors = best(tried, len(folds))
    if name == "cg-sense":
        image = cg_sense(problem, strength)
    else:
        for count, image in enumerate(compressed_sensing(problem, strength, rng)):  # noqa: B007
            yield 0.8 + 0.2 * count / LAST_STEPS
    found[name] = Candidate(image, errors, strength)
    yield 1.0


def learn(
    problem: Problem, folds: list[Tensor], rng: torch.Generator, found: dict[str, Candidate], steps: int
) -> Iterator[float]:
    """Put what a network learns from the slice into ``found``, and its best mixture with compressed sensing."""
    if not folds:
        raise ValueError("too few lines were acquired outside the centre of k-space to learn from; choose cs.")
    sparse = found["cs"]
    threshold = sparse.strength or USUAL["cs"]
    run = ZeroShot(problem, folds[0], threshold, rng, steps)
    yield from run.run()
    found["zs-ssdu"] = Candidate(run.image, [run.error])
    *_, without = compressed_sensing(problem.without(folds[0]), threshold, rng)
    weight, error = blend(problem, folds[0], (without, run.without))
    mixture = sparse.image + weight * (run.image - sparse.image)
    found["blend"] = Candidate(mixture, [error], weight)
    yield 1.0


def _choose(problem: Problem, mask: NDArray[np.bool_], found: dict[str, Candidate], chosen: str | None) -> SliceResult:
    """Take the chosen candidate, or that of the least error on the lines that were held out from all of them."""
    folds = min(len(c.errors) for c in found.values())
    errors = {n: float(np.sqrt(np.mean(np.square(c.errors[:folds])))) for n, c in found.items()} if folds else {}
    # Where nothing could be judged, the last one: methods are in the order of what they usually achieve.
    name = chosen or (min(errors, key=lambda n: errors[n]) if errors else list(found)[-1])
    image = combined(found[name].image) * problem.scale
    return SliceResult(
        image=image.cpu().numpy(),
        method=name,
        error=errors.get(name),
        errors=errors,
        settings={n: c.strength for n, c in found.items() if c.strength is not None},
        mask=mask,
        maps=problem.maps.cpu().numpy(),
        wrapped=problem.wrapped,
    )


def reconstruct(
    kspace: Any, method: str | PathLike[str] | ReconstructionModel = "auto", **options: Any
) -> Reconstruction:
    """Reconstruct k-space; see `Reconstructor` for what it takes, and for doing it step by step.

    Returns
    -------
    Reconstruction
        Images with their error on held-out lines.
    """
    reconstructor = Reconstructor(kspace, method, **options)
    for _ in reconstructor:
        pass
    return reconstructor.result
