"""How close an image is to its reference: PSNR, SSIM, and PSNR after the best linear fit.

Every score here needs the truth (or an average of many exposures that stands in for it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Plane = NDArray[np.float64]

# SSIM as Wang et al. 2004 define it.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03


def psnr(image: Any, reference: Any, data_range: float | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB: ``10 log10(data_range**2 / mean squared error)``.

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
