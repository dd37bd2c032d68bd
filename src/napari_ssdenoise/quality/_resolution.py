"""How fine the detail is that a result shares with the truth: Fourier ring (shell) correlation from split data.

Two results of one network, from two noisy views, agree in whatever the network makes up, so their correlation promises
too much. A result and *another noisy view* agree in the truth alone. Their correlation, squared and divided by that of
the two noisy views, is the squared correlation of the result with the truth.

A single image is split like a chessboard: one half, its gaps filled by the mean of the neighbours, is denoised, and
compared with the other half. The result is that of half the light, so a little cautious.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from math import ceil
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_ssdenoise.metrics import RingCorrelation, Rings, ring_sums

if TYPE_CHECKING:
    from napari_ssdenoise.quality._places import Place, Run, View
    from napari_ssdenoise.quality._smooth import Floats

# Halves are denoised for their own sake: of this share of the pixels, or a little more.
_SHARE: Final = 0.5
# Rings in which the noisy views agree less than this tell nothing about the result.
_FAINTEST: Final = 0.02
_SMOOTHED: Final = 5  # rings


def compare_views(places: Sequence[Place], spacing: Sequence[float]) -> RingCorrelation:
    """Return the correlation with the truth of results, from several denoised views of each place."""
    rings = _rings(places, spacing)
    triples = [
        (place.denoised[i][c], place.noisy[i][c], place.noisy[j][c])
        for place in places
        for i, j in permutations(range(len(place.noisy)), 2)
        for c in range(len(place.noisy[0]))
    ]
    return _correlate(triples, rings)


def compare_halves(places: Sequence[Place], spacing: Sequence[float], runner: Callable[[View], Run]) -> RingCorrelation:
    """Return the correlation with the truth of results, from the two colours of a chessboard."""
    rings = _rings(places, spacing)
    triples = []
    for place in places[: ceil(_SHARE * len(places))]:
        image = place.noisy[0]
        rows, columns = np.ogrid[: image.shape[-2], : image.shape[-1]]
        white = (rows + columns) % 2 == 0
        for kept in (white, ~white):
            filled = np.where(kept, image, _neighbours(image))
            result = place.views[0].denoise(runner(place.views[0]), filled - image)
            centred = image - image.mean((-2, -1), keepdims=True)
            triples += [(result[c], centred[c] * kept, centred[c] * ~kept) for c in range(len(image))]
    return _correlate(triples, rings)


def _rings(places: Sequence[Place], spacing: Sequence[float]) -> Rings:
    shapes = [place.noisy[0].shape[1:] for place in places]
    return Rings.choose(shapes[0], spacing)


def _correlate(triples: Sequence[tuple[Floats, Floats, Floats]], rings: Rings) -> RingCorrelation:
    """Return the squared correlation with the truth, from results, their own and another noisy view."""
    total = np.zeros((5, rings.count))
    for result, own, other in triples:
        across, power, other_power = ring_sums(result, other, rings)
        both, own_power, _ = ring_sums(own, other, rings)
        total += np.stack([across, both, power, own_power, other_power])
    with np.errstate(divide="ignore", invalid="ignore"):
        result = np.nan_to_num(total[0] / np.sqrt(total[2] * total[4]))
        views = np.nan_to_num(total[1] / np.sqrt(total[3] * total[4]))
    result, views = _smoothed(result), _smoothed(views)
    known = views > _FAINTEST
    truth = np.where(known, np.sign(result) * result**2 / np.where(known, views, 1.0), 0.0)
    return RingCorrelation(rings.frequencies, tuple(np.clip(truth, -1, 1).tolist()))


def _smoothed(curve: Floats) -> Floats:
    half = _SMOOTHED // 2
    padded = np.pad(curve, half, mode="edge")
    smoothed = np.convolve(padded, np.ones(_SMOOTHED) / _SMOOTHED, "valid")
    smoothed[:half] = curve[:half]
    return np.asarray(smoothed)


def _neighbours(image: Floats) -> Floats:
    """Return the mean of the four neighbours in the plane, mirrored at the borders."""
    padded = np.pad(image, [(0, 0)] * (image.ndim - 2) + [(1, 1)] * 2, mode="reflect")
    above, below = padded[..., :-2, 1:-1], padded[..., 2:, 1:-1]
    left, right = padded[..., 1:-1, :-2], padded[..., 1:-1, 2:]
    return np.asarray((above + below + left + right) / 4)
