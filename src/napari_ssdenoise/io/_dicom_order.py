"""Put the planes of a DICOM series in order: by where they lie, then by part, echo and time."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise.io._dicom_frames import Frame, normal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Planes nearer to each other than this part of a pixel lie at the same place.
SAME_PLACE: Final = 0.01
# Gaps that differ by less than this part of the usual one are equal: headers round.
SAME_GAP: Final = 0.05
# Patients lie in x to the left and y to the back in DICOM, and to the right and to the front in NIfTI.
_LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0])
_LISTED: Final = 5


@dataclass
class Ordered:
    """The planes of a series in their places, and what their places mean."""

    # Of shape (T, C, Z).
    frames: NDArray[Any]
    # From voxel X, Y, Z to millimetres in RAS+; None where the headers do not tell.
    affine: NDArray[np.float64] | None = None
    # In millimetres, and seconds; 0 where not known.
    depth: float = 0.0
    interval: float = 0.0
    channels: tuple[str, ...] = ()
    warnings: list[str] = field(default_factory=list)


def split(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Sort planes into stacks: those of one series, size and direction."""
    stacks: list[list[Frame]] = []
    for frame in frames:
        for stack in stacks:
            if _belong_together(stack[0], frame):
                stack.append(frame)
                break
        else:
            stacks.append([frame])
    return stacks


def _belong_together(a: Frame, b: Frame) -> bool:
    if a.series != b.series or a.pixels.shape != b.pixels.shape or a.pixels.dtype != b.pixels.dtype:
        return False
    if (a.orientation is None) != (b.orientation is None) or (a.position is None) != (b.position is None):
        return False
    return a.orientation is None or b.orientation is None or np.allclose(a.orientation, b.orientation, atol=1e-3)


def order(frames: Sequence[Frame]) -> Ordered:
    """Put the planes of one stack in order.

    Raises
    ------
    ValueError
        If some places have fewer planes than others.
    """
    first = frames[0]
    if first.position is None or first.orientation is None:
        return _without_places(frames)
    along = normal(first.orientation)
    places = _places(frames, along, SAME_PLACE * min(first.spacing or (1.0,)))
    counts = Counter(len(place) for place in places)
    if len(counts) > 1:
        usual = max(counts)
        short = [i for i, place in enumerate(places) if len(place) < usual]
        shown = ", ".join(str(i + 1) for i in short[:_LISTED]) + (", …" if len(short) > _LISTED else "")
        raise ValueError(
            f"the series is incomplete: most of its {len(places)} slices have {usual} images each, but slice {shown} "
            f"has {len(places[short[0]])}. Copy the missing files, or move those of the incomplete repeat out of the "
            "folder."
        )
    keys = sorted({(f.part, f.echo or 0.0) for f in frames})
    if not all(_evenly(place, keys) for place in places):
        keys = []
    grid = np.array([_series_at(place, keys) for place in places], object)  # (Z, C, T)
    ordered = Ordered(grid.transpose(2, 1, 0), channels=_channel_names(keys) if len(keys) > 1 else ())
    _measure(ordered, along)
    ordered.interval = _interval(list(ordered.frames[:, 0, 0]))
    return ordered


def _without_places(frames: Sequence[Frame]) -> Ordered:
    """Order planes whose place is not known by their numbers: a film if it says so, else a stack."""
    row = np.array(sorted(frames, key=lambda f: f.order[2:]), object)
    step = frames[0].film
    if step:
        return Ordered(row[:, None, None], interval=step)
    return Ordered(row[None, None, :], depth=frames[0].thickness)


def _places(frames: Sequence[Frame], along: NDArray[np.float64], near: float) -> list[list[Frame]]:
    """Collect the planes that lie at the same place, in the order of the places."""
    heights = np.array([frame.position for frame in frames], float) @ along
    places: list[list[Frame]] = []
    last = -np.inf
    for i in np.argsort(heights, kind="stable"):
        if heights[i] - last > near:
            places.append([])
            last = heights[i]
        places[-1].append(frames[i])
    return places


def _evenly(place: Sequence[Frame], keys: Sequence[tuple[str, float]]) -> bool:
    """Tell whether a place has all parts and echoes equally often."""
    found = Counter((f.part, f.echo or 0.0) for f in place)
    return len(found) == len(keys) and len(set(found.values())) == 1


def _series_at(place: Sequence[Frame], keys: Sequence[tuple[str, float]]) -> list[list[Frame]]:
    """Return the planes at one place: by part and echo, then by time."""
    channels: dict[Any, list[Frame]] = defaultdict(list)
    for frame in sorted(place, key=lambda f: f.order):
        channels[(frame.part, frame.echo or 0.0) if keys else None].append(frame)
    return [channels[key] for key in (keys or (None,))]


def _channel_names(keys: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    """Name channels by what tells them apart."""
    parts, echoes = ({key[i] for key in keys} for i in (0, 1))
    return tuple(
        " ".join(
            ([part or "image"] if len(parts) > 1 else []) + ([f"TE {echo:g} ms"] if len(echoes) > 1 else []),
        )
        for part, echo in keys
    )


def _measure(ordered: Ordered, along: NDArray[np.float64]) -> None:
    """Find the affine, and gaps that it cannot describe."""
    column = ordered.frames[0, 0]
    first: Frame = column[0]
    positions = np.array([frame.position for frame in column], float)
    step = along * (first.thickness or 1.0)
    ordered.depth = first.thickness
    if len(column) > 1:
        step = (positions[-1] - positions[0]) / (len(column) - 1)
        gaps = np.diff(positions @ along)
        usual = float(np.median(gaps))
        expected = positions[0] + np.arange(len(column))[:, None] * step
        if np.abs(gaps - usual).max() > SAME_GAP * usual:
            step *= usual / float(step @ along)
            ordered.warnings.append(_uneven(gaps, usual))
        elif np.abs(positions - expected).max() > max(SAME_GAP * usual, min(first.spacing or (1.0,))):
            ordered.warnings.append("its slices do not lie straight behind each other; they are taken as if they did")
        ordered.depth = float(np.linalg.norm(step))
    if first.spacing is None or first.orientation is None:
        return
    rows, columns = first.spacing
    across, down = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    affine = np.eye(4)
    affine[:3] = _LPS_TO_RAS @ np.column_stack([across * columns, down * rows, step, positions[0]])
    ordered.affine = affine


def _uneven(gaps: NDArray[np.float64], usual: float) -> str:
    wide = [int(i) for i in np.flatnonzero(np.abs(gaps - usual) > SAME_GAP * usual)]
    shown = ", ".join(f"{gaps[i]:g} mm after slice {i + 1}" for i in wide[:_LISTED])
    return (
        f"its slices are not evenly spaced: {shown}{', …' if len(wide) > _LISTED else ''}, and {usual:g} mm elsewhere. "
        "Slices may be missing; they are taken as evenly spaced"
    )


def _interval(repeats: Sequence[Frame]) -> float:
    """Return the seconds between repeats; 0 if they are not known or not of an order."""
    for moments in ([f.triggered for f in repeats], [f.acquired for f in repeats]):
        known = [m for m in moments if m is not None]
        steps = np.diff(known)
        if len(known) == len(repeats) > 1 and (steps > 0).all():
            return float(np.round(np.median(steps), 6))
    return repeats[0].film or 0.0
