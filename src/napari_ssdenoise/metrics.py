"""How close an image is to its reference: PSNR, SSIM, PSNR after the best linear fit, Fourier ring correlation.

Every score here needs the truth (or an average of many exposures that stands in for it). The Fourier ring correlation
needs no more than two noisy images of one scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Plane = NDArray[np.float64]
    Floats = NDArray[np.float64]

# SSIM as Wang et al. 2004 define it.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03

# The correlation of two equal halves below which all of the data tells little (Rosenthal and Henderson 2003).
FRC_THRESHOLD = 1 / 7


def psnr(image: Any, reference: Any, data_range: float | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB: ``10 log10(data_range**2 / mean squared error)``.

    Complex images are compared by their magnitudes, here and in the other metrics.

    Parameters
    ----------
    image, reference : arrays or volumes of one shape
    data_range
        The signal's range; by default what `choose_data_range` finds in the reference.

    Returns
    -------
    float
        Infinity if both are equal.

    Raises
    ------
    ValueError
        If the shapes differ, there are NaN or infinite values, or the range is not above 0.
    """
    pairs = _planes(image, reference)
    span = choose_data_range(reference) if data_range is None else _positive(data_range)
    total, count = 0.0, 0
    for plane, truth in pairs:
        total += float(np.square(plane - truth).sum())
        count += plane.size
    return _decibel(total / count, span)


def affine_psnr(image: Any, reference: Any, data_range: float | None = None) -> float:
    """Return the PSNR after the gain and offset of the image that fit the reference best.

    For images in other units than their reference, such as other exposure times or normalised outputs. The fit can
    only raise the score, so compare it with no plain PSNR.

    Parameters
    ----------
    image, reference : arrays or volumes of one shape
    data_range
        As for `psnr`.

    Raises
    ------
    ValueError
        As for `psnr`.
    """
    pairs = list(_planes(image, reference))
    span = choose_data_range(reference) if data_range is None else _positive(data_range)
    count = sum(plane.size for plane, _ in pairs)
    means = [sum(float(pair[i].sum()) for pair in pairs) / count for i in (0, 1)]
    variance = covariance = reference_variance = 0.0
    for plane, truth in pairs:
        away, wanted = plane - means[0], truth - means[1]
        variance += float(np.square(away).sum())
        reference_variance += float(np.square(wanted).sum())
        covariance += float((away * wanted).sum())
    explained = covariance**2 / variance if variance else 0.0
    return _decibel(max(0.0, reference_variance - explained) / count, span)


def ssim(image: Any, reference: Any, data_range: float | None = None) -> float:
    """Return the mean structural similarity, 1 for equal images.

    Gaussian window of 11 x 11 pixels with a standard deviation of 1.5, K1 = 0.01, K2 = 0.03, population covariances;
    windows that reach over the border are left out. Every plane of a stack counts by itself, and equally.

    Parameters
    ----------
    image, reference : arrays or volumes of one shape
        Planes are the last two dimensions of an array, and Y and X of a `Volume`.
    data_range
        As for `psnr`.

    Raises
    ------
    ValueError
        As for `psnr`, and for planes smaller than the window.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli: Image quality assessment. IEEE Trans. Image Processing 13, 600 (2004).
    """
    pairs = _planes(image, reference)
    span = choose_data_range(reference) if data_range is None else _positive(data_range)
    return float(np.mean([_ssim_plane(plane, truth, span) for plane, truth in pairs]))


@dataclass(frozen=True)
class RingCorrelation:
    """A correlation by spatial frequency.

    Attributes
    ----------
    frequencies
        Middle of each ring (of a plane) or shell (of a stack), in cycles per unit of the pixel spacing.
    correlation
        -1 to 1 for each of them.
    """

    frequencies: tuple[float, ...]
    correlation: tuple[float, ...]

    def resolution(self, threshold: float = FRC_THRESHOLD) -> float | None:
        """Return the period where the correlation first falls below a threshold, in units of the pixel spacing.

        Returns
        -------
        float
            The finest period there is, if it never does; None if it is below from the start.
        """
        # The lowest rings have few coefficients, and the window around the image has its say in them.
        curve = self.correlation[1:]
        below = next((i for i, value in enumerate(curve) if value < threshold), None)
        if below is None:
            return 1 / self.frequencies[-1]
        if below == 0:
            return None
        last, first = self.frequencies[below], self.frequencies[below + 1]
        share = (curve[below - 1] - threshold) / (curve[below - 1] - curve[below])
        return 1 / (last + share * (first - last))


@dataclass(frozen=True)
class Rings:
    """Rings, or shells, of equal width in frequency space.

    Attributes
    ----------
    spacing
        Of the pixels, by axis.
    width
        In cycles per unit of the spacing.
    count
        How many, from frequency 0 to that of the finest axis.
    """

    spacing: tuple[float, ...]
    width: float
    count: int

    @classmethod
    def choose(cls, shape: Sequence[int], spacing: Sequence[float]) -> Rings:
        """Make rings as wide as the finest step that the image resolves."""
        sizes = tuple(map(abs, spacing))  # negative along a flipped axis
        width = 1 / max(n * s for n, s in zip(shape, sizes, strict=True))
        return cls(sizes, width, int(0.5 / min(sizes) / width) + 1)

    @property
    def frequencies(self) -> tuple[float, ...]:
        return tuple((self.width * np.arange(self.count)).tolist())


def frc(first: Any, second: Any, *, scale: Sequence[float] | None = None) -> RingCorrelation:
    """Return the Fourier ring correlation of two images (of stacks: shell correlation).

    It says up to which detail two independent noisy images of one scene agree. Both are seen through a Hann window
    along every axis.

    Parameters
    ----------
    first, second : arrays or volumes of one shape
        All dimensions of an array are transformed, two or three. Of a `Volume`, Y, X and Z (from 8 planes on) are, and
        the other axes are averaged over.
    scale
        Pixel spacing by dimension; by default that of the volume, and 1 for arrays.

    Raises
    ------
    ValueError
        If the shapes differ, there are NaN or infinite values, or an axis has fewer than 8 pixels.

    References
    ----------
    Saxton and Baumeister: J. Microscopy 127, 127 (1982). Nieuwenhuizen et al.: Nature Methods 10, 557 (2013).
    """
    images = [np.asarray(image, np.float64) for image in (first, second)]
    if images[0].shape != images[1].shape:
        raise ValueError(
            f"the images differ in shape: {images[0].shape} and {images[1].shape}. Compare images of the same scene "
            "and size."
        )
    if not all(np.isfinite(image).all() for image in images):
        raise ValueError("the images have NaN or infinite values. Replace them before comparing.")
    axes = _transformed(first, images[0])
    shape = tuple(images[0].shape[d] for d in axes)
    if len(axes) not in (2, 3) or min(shape) < 8:
        raise ValueError(
            f"a Fourier ring correlation needs 2 or 3 dimensions of 8 pixels or more, not {images[0].shape}. Name the "
            "axes in a Volume if there are others, such as time."
        )
    spacing = (
        tuple(scale)
        if scale is not None
        else tuple(first.scale)
        if isinstance(first, Volume)
        else (1.0,) * images[0].ndim
    )
    rings = Rings.choose(shape, [spacing[d] for d in axes])
    last = range(-len(axes), 0)
    pairs = zip(*(np.moveaxis(image, axes, last).reshape(-1, *shape) for image in images), strict=True)
    across, power, other = np.sum([ring_sums(a, b, rings) for a, b in pairs], 0)
    return RingCorrelation(rings.frequencies, tuple(_ratio(across, np.sqrt(power * other)).tolist()))


def ring_sums(first: Floats, second: Floats, rings: Rings) -> Floats:
    """Sum over rings the product of two images' spectra, and the power of each, (3, rings)."""
    window = np.ones(())
    for n in first.shape:
        window = np.multiply.outer(window, np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2)
    spectra = [np.fft.rfftn((image - image.mean()) * window) for image in (first, second)]
    squares = np.zeros(())
    for d, (n, spacing) in enumerate(zip(first.shape, rings.spacing, strict=True)):
        frequencies = np.fft.rfftfreq(n, spacing) if d == first.ndim - 1 else np.fft.fftfreq(n, spacing)
        squares = np.add.outer(squares, frequencies**2)
    ring = np.rint(np.sqrt(squares) / rings.width).astype(int)
    # Of each pair of opposite frequencies the transform holds one; those of columns 0 and the last are there twice.
    twice = np.full(spectra[0].shape, 2.0)
    twice[..., 0] = 1
    if first.shape[-1] % 2 == 0:
        twice[..., -1] = 1
    parts = ((spectra[0] * spectra[1].conj()).real, np.abs(spectra[0]) ** 2, np.abs(spectra[1]) ** 2)
    sums = [np.bincount(ring.ravel(), (part * twice).ravel(), rings.count)[: rings.count] for part in parts]
    return np.array(sums)


def _transformed(image: Any, array: NDArray[Any]) -> list[int]:
    """Return the dimensions to transform."""
    if not isinstance(image, Volume):
        return list(range(array.ndim))
    return [d for d, axis in enumerate(image.axes) if axis in "YX" or (axis == "Z" and array.shape[d] >= 8)]


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)


def choose_data_range(reference: Any) -> float:
    """Return the range that scores are relative to: 255 for 8-bit images, else 99.9th percentile minus minimum.

    The percentile keeps a few bright pixels from raising the score of everything else.

    Parameters
    ----------
    reference : array or volume

    Raises
    ------
    ValueError
        If the reference is the same everywhere, or has NaN or infinite values.
    """
    data = np.asarray(reference)
    data = np.abs(data) if data.dtype.kind == "c" else data
    if data.dtype == np.uint8:
        return 255.0
    span = float(np.percentile(data, 99.9)) - float(data.min()) if data.size else 0.0
    if not np.isfinite(span):
        raise ValueError("the reference has NaN or infinite values. Replace them before comparing.")
    if span <= 0:
        span = float(data.max()) - float(data.min()) if data.size else 0.0
    if span <= 0:
        raise ValueError("the reference has the same value everywhere, so it has no range. Give data_range=.")
    return span


def _planes(image: Any, reference: Any) -> Iterator[tuple[Plane, Plane]]:
    """Check two images, and return pairs of their planes in double precision."""
    arrays = [_yx_last(a) for a in (image, reference)]
    if arrays[0].shape != arrays[1].shape:
        shapes = " and ".join(str(np.shape(a)) for a in (image, reference))
        raise ValueError(f"image and reference differ in shape: {shapes}. Compare images of the same scene and size.")
    if arrays[0].ndim < 2 or not arrays[0].size:
        raise ValueError(f"shape {arrays[0].shape} holds no image plane. Give at least two dimensions with pixels.")
    return _each_plane(arrays[0], arrays[1])


def _each_plane(image: NDArray[Any], reference: NDArray[Any]) -> Iterator[tuple[Plane, Plane]]:
    for index in np.ndindex(image.shape[:-2]):
        plane, truth = image[index].astype(np.float64), reference[index].astype(np.float64)
        if not (np.isfinite(plane).all() and np.isfinite(truth).all()):
            raise ValueError("image or reference has NaN or infinite values. Replace them before comparing.")
        yield plane, truth


def _yx_last(image: Any) -> NDArray[Any]:
    array = np.asarray(image)
    array = np.abs(array) if array.dtype.kind == "c" else array
    if isinstance(image, Volume):
        return np.moveaxis(array, (image.axes.index("Y"), image.axes.index("X")), (-2, -1))
    return array


def _positive(data_range: float) -> float:
    if not (np.isfinite(data_range) and data_range > 0):
        raise ValueError(f"data_range={data_range} must be above 0.")
    return float(data_range)


def _decibel(squared_error: float, span: float) -> float:
    return float("inf") if squared_error == 0 else float(10 * np.log10(span**2 / squared_error))


def _ssim_plane(image: Plane, reference: Plane, span: float) -> float:
    if min(image.shape) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs planes of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, not {image.shape}.")
    # Differences of squares lose their digits if the images sit on a large offset.
    offset = reference.mean()
    a, b = image - offset, reference - offset
    mean_a, mean_b = _window(a), _window(b)
    var_a, var_b = _window(a * a) - mean_a**2, _window(b * b) - mean_b**2
    covariance = _window(a * b) - mean_a * mean_b
    mean_a, mean_b = mean_a + offset, mean_b + offset
    c1, c2 = (SSIM_K1 * span) ** 2, (SSIM_K2 * span) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(similarity.mean())


def _window(plane: Plane) -> Plane:
    """Average under the Gaussian window wherever it lies inside, one axis after the other."""
    position = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    kernel = np.exp(-0.5 * (position / SSIM_SIGMA) ** 2)
    kernel /= kernel.sum()
    rows = plane.shape[0] - SSIM_WINDOW + 1
    columns = plane.shape[1] - SSIM_WINDOW + 1
    down = np.add.reduce([weight * plane[i : i + rows] for i, weight in enumerate(kernel)])
    return np.asarray(np.add.reduce([weight * down[:, i : i + columns] for i, weight in enumerate(kernel)]))
