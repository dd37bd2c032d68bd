"""Which blur made an image: as the user says it, as a file shows it, or as the image's own spectrum tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.io._units import unit_name
from napari_ssdenoise.ops.degrade import Degradation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_ssdenoise.engine.scenes import View
    from napari_ssdenoise.ops.kernels import Grid

TILE = 64  # side of the parts whose spectra are averaged
MOST_TILES = 400
# Slope of the power spectra of images without blur, and how far single ones are from it.
SLOPE, SPREAD = 2.8, 0.3
LOPSIDED = 0.1  # weight against blurs that differ between directions
WIDTH = 2.355  # full width at half maximum of a Gaussian, in standard deviations
# Standard deviations of a blur, in pixels of the coarse image, that are believed.
LEAST, MOST = 0.15, 1.6


def degradation_of(views: Sequence[View], factors: Sequence[int], kernel: str, grid: Grid) -> Degradation:
    """Return how images were made of sharper ones.

    Parameters
    ----------
    views
        The images.
    factors
        By which they are to be enlarged, per spatial axis.
    kernel
        ``"auto"``, ``"bicubic"``, standard deviations (in new pixels, or with a unit), or the path of a point-spread
        function (TIFF, .npy; sampled in new pixels).

    Raises
    ------
    ValueError
        If it is none of these, or does not fit the images.
    """
    text = kernel.strip()
    if text.lower() == "auto":
        return Degradation.gaussian(estimate_covariance(views, factors), factors, grid)
    if text.lower() == "bicubic":
        if grid != "registered":
            raise ValueError("a bicubic reduction always lies on the registered grid. Leave grid= out.")
        return Degradation.bicubic(factors)
    widths = None if Path(text).is_file() else _deviations(text, views[0], factors)  # a file may be named 2.tif
    if widths is None:
        found = Degradation.measured(_read_psf(Path(text), len(factors)), factors, grid)
    else:
        found = Degradation.gaussian(np.square(widths), factors, grid)
    for n, shape, factor in zip(found.kernel.shape, views[0].shape, factors, strict=True):
        if n > shape * factor:
            raise ValueError(
                f"the blur is {n} new pixels wide, but the image has only {shape * factor} of them along that axis. "
                "Choose a narrower blur, or cut the empty border of the point-spread function off."
            )
    return found


def _deviations(text: str, view: View, factors: Sequence[int]) -> list[float] | None:
    """Return the standard deviations along each axis, in new pixels; None if the text is no number."""
    found = re.fullmatch(r"([-+.\deE]+(?:\s*,\s*[-+.\deE]+)*)\s*([a-zA-Zµμ]*)", text)
    try:
        values = [float(part) for part in found[1].split(",")] if found else []
    except ValueError:
        values = []
    if not found or not values:
        return None
    if len(values) == 1:
        values = [values[0] if f > 1 else 0.0 for f in factors]
    if len(values) != len(factors) or not all(np.isfinite(values)) or min(values) < 0:
        raise ValueError(
            f"kernel={text!r} must be one standard deviation, or {len(factors)} of them (0 or more), one for each "
            f"of the axes {view.layout.spatial}."
        )
    if not found[2] or found[2] in ("px", "pixel", "pixels"):
        return values
    return [
        v / _pixel(view, axis, found[2]) * f for v, axis, f in zip(values, view.layout.spatial, factors, strict=True)
    ]


METERS = {"nanometer": 1e-9, "micrometer": 1e-6, "millimeter": 1e-3, "centimeter": 1e-2, "meter": 1.0}


def _pixel(view: View, axis: str, unit: str) -> float:
    """Return the size of the image's pixels in a unit."""
    wanted, place = unit_name(unit), view.volume.axes.index(axis)
    own = view.volume.units[place]
    if wanted not in METERS or own not in METERS:
        raise ValueError(
            f"the blur is given in {unit!r}, but the pixels of {view.volume.name!r} are known in "
            f"{own or 'no unit'}. Give it in new pixels (a plain number), or set the image's pixel size and unit."
        )
    return view.volume.scale[place] * METERS[own] / METERS[wanted]


def _read_psf(path: Path, ndim: int) -> NDArray[np.float64]:
    from napari_ssdenoise.io import read_volume

    if path == Path() or not path.exists():
        raise ValueError(
            f"kernel={str(path)!r} is neither a number, 'auto', 'bicubic' nor a file that exists. Give the standard "
            "deviation of the blur, or the path of a measured point-spread function (.tif, .npy)."
        )
    volume = read_volume(path)
    if volume.dtype.kind not in "uif":
        raise ValueError(f"{path} has dtype {volume.dtype}: a point-spread function holds real numbers.")
    raw = np.asarray(volume[...], float)
    if raw.ndim == ndim:
        return raw
    raw = np.squeeze(raw)
    return raw[None] if raw.ndim == ndim - 1 else raw


def estimate_covariance(views: Sequence[View], factors: Sequence[int]) -> NDArray[np.float64]:
    """Estimate a Gaussian blur from the power spectrum, in new pixels squared.

    Sharp images of natural things have a power spectrum of about ``|f|**-2.8``; what falls off faster at high
    frequencies is taken for blur, and what levels off for noise. Along Z, where thick slices hide it, the blur is taken
    to be as wide as a slice.

    Returns
    -------
    ndarray (d, d)
    """
    d = len(factors)
    covariance = np.zeros((d, d))
    if d == 3 and factors[0] > 1:
        covariance[0, 0] = (factors[0] / WIDTH) ** 2
    if factors[-1] > 1:
        plane = _fit(_spectrum(views))
        scale = np.outer(factors[-2:], factors[-2:])
        covariance[-2:, -2:] = plane * scale
    return covariance


def _spectrum(views: Sequence[View]) -> NDArray[np.float64]:
    """Return the mean power spectrum of tiles of the planes; those that show most count most."""
    rng = np.random.default_rng(0)
    total = np.zeros((TILE, TILE))
    window = np.outer(*[np.hanning(TILE + 2)[1:-1]] * 2)
    for _ in range(MOST_TILES):
        view = views[int(rng.integers(len(views)))]
        shape = view.shape[-2:]
        corner = [int(rng.integers(max(0, n - TILE) + 1)) for n in shape]
        plane = [slice(int(z), int(z) + 1) for z in (rng.integers(n) for n in view.shape[:-2])]
        region = (*plane, *(slice(c, min(n, c + TILE)) for c, n in zip(corner, shape, strict=True)))
        tile = np.asarray(view.read(region)[0], float).reshape(-1, region[-1].stop - region[-1].start)
        tile = np.pad(tile, [(0, TILE - n) for n in tile.shape], mode="symmetric")
        total += np.abs(np.fft.fft2((tile - tile.mean()) * window)) ** 2
    return total / MOST_TILES


def _fit(power: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit slope, blur, aliasing and noise to a power spectrum; return the blur's covariance in pixels squared."""
    import torch

    line = np.fft.fftfreq(TILE)
    fy, fx = (torch.from_numpy(f) for f in np.meshgrid(line, line, indexing="ij"))
    radius = torch.hypot(fy, fx)
    used = (radius > 2.5 / TILE) & (radius < 0.5)
    observed = torch.from_numpy(np.log(np.maximum(power, power.max() * 1e-12)))[used]
    # All frequencies that sampling folds onto one, with the directions they come from.
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    places = [((fy + dy)[used], (fx + dx)[used]) for dy, dx in shifts]

    level = torch.tensor(float(observed.median()), dtype=torch.float64, requires_grad=True)
    rest = torch.tensor([SLOPE, -1.5, -1.5, 0.0, -6.0], dtype=torch.float64, requires_grad=True)

    def covariance() -> tuple[Any, Any, Any]:
        a, b, c = rest[1].exp(), rest[2].exp(), rest[3]
        return a * a, b * b + c * c, a * c  # of a Cholesky factor

    def misfit() -> Any:
        yy, xx, yx = covariance()
        signal: Any = 0.0
        for y, x in places:
            blur = torch.exp(-4 * torch.pi**2 * (yy * y * y + xx * x * x + 2 * yx * x * y))
            signal = signal + blur * (x * x + y * y).clamp_min(1e-6) ** (-rest[0] / 2)
        model = level + torch.log(signal + rest[4].exp())
        prior = ((rest[0] - SLOPE) / SPREAD) ** 2 * 0.02 + LOPSIDED * ((yy - xx) ** 2 + 4 * yx**2) / (yy + xx) ** 2
        return torch.nn.functional.smooth_l1_loss(model, observed, beta=0.5) + prior

    optimizer: Any = torch.optim.LBFGS([level, rest], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = misfit()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    yy, xx, yx = (float(value.detach()) for value in covariance())
    values, vectors = np.linalg.eigh(np.array([[yy, yx], [yx, xx]]))
    values = np.clip(np.nan_to_num(values, nan=0.2), LEAST**2, MOST**2)
    return np.asarray((vectors * values) @ vectors.T)
