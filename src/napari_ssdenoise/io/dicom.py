"""Read DICOM series lazily: a folder of files, one file that stands for its series, or one with many images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise.axes import parse_axes
from napari_ssdenoise.io._dicom_frames import Frame, dicom_files, holds_dicom, is_dicom, read_frames
from napari_ssdenoise.io._dicom_order import Ordered, order, split
from napari_ssdenoise.io._dicom_pixels import check_decoder
from napari_ssdenoise.io._lazy import present, reason
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["KEY", "SUFFIXES", "holds_dicom", "is_dicom", "read_dicom"]

logger = logging.getLogger(__name__)

KEY: Final = "dicom"
SUFFIXES: Final = (".dcm", ".dicom", ".ima")
_LISTED: Final = 12
_SMALL: Final = (np.int16, np.int32)


class _Planes:
    """The planes of a series as one array (T, C, Z, Y, X and S for colours), read and rescaled one by one."""

    def __init__(self, frames: NDArray[Any], dtype: np.dtype[Any]) -> None:
        self._frames = frames
        self._plane: tuple[int, ...] = frames.flat[0].pixels.shape
        self.dtype = dtype
        self.shape: tuple[int, ...] = (*frames.shape, *self._plane)
        self.chunks: tuple[int, ...] = (1, 1, 1, *self._plane)

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray[Any]:
        chosen: Any = self._frames[key[:3]]
        inner = tuple(len(range(*k.indices(n))) for k, n in zip(key[3:], self._plane, strict=True))
        block = np.empty((*chosen.shape, *inner), self.dtype)
        for at in np.ndindex(chosen.shape):
            block[at] = chosen[at].read(self.dtype)[key[3:]]
        return block


def read_dicom(path: Path | Sequence[Path], axes: str | None = None) -> Volume:
    """Open a DICOM series.

    Slices are sorted by where they lie along the normal of their plane, whatever the files are called. Planes at the
    same place are told apart by part (magnitude, phase, ...) and echo, which become C, and by time, which becomes T.
    Enhanced files, which hold many images, are sorted in the same way. Rescale slope and intercept are applied; the
    numbers stay integers if both are. Planes are read when they are sliced.

    ``metadata["dicom"]`` holds the ``affine`` (four rows, from voxel X, Y, Z to millimetres in RAS+, as in a NIfTI),
    what the header says of how the image was made, and ``warnings``, which are also logged.

    Parameters
    ----------
    path
        A folder with the files of one series, or one file: of a series in the same folder, or with many images. Of
        several files, these alone are read.
    axes
        One letter per dimension, where others than the ones found are wanted.

    Raises
    ------
    ValueError
        If there are several series, or one that is incomplete, damaged, or compressed in a way that nothing here can
        decode.
    """
    if isinstance(path, Path):
        stack, about = _stack(path)
    else:
        files, path = path, path[0].parent
        stack, about = _only(read_frames(files), path)
    try:
        ordered = order(stack)
    except ValueError as exc:
        raise ValueError(f"{path}: {reason(exc)}") from exc
    for pixels in {frame.pixels.syntax: frame.pixels for frame in stack}.values():
        check_decoder(pixels)
    for text in ordered.warnings:
        logger.warning("%s: %s.", path, text)
    stored = "TCZYXS"[: 3 + len(stack[0].pixels.shape)]
    shape = dict(zip(stored, (*ordered.frames.shape, *stack[0].pixels.shape), strict=True))
    shown = "".join(a for a in stored if shape[a] > 1 or a in "YX")
    data = present(_Planes(ordered.frames, _dtype(stack)), stored, shown, path)
    if axes:
        parse_axes(axes, data.shape)
    kept: dict[str, Any] = dict(about)
    if ordered.affine is not None:
        kept["affine"] = ordered.affine.tolist()
    if ordered.warnings:
        kept["warnings"] = list(ordered.warnings)
    sizes = _sizes(ordered, stack[0])
    return Volume(
        data,
        shown,
        scale=tuple(sizes.get(a, (1.0, None))[0] for a in shown),
        units=tuple(sizes.get(a, (1.0, None))[1] for a in shown),
        name=str(about.get("SeriesDescription") or (path.name if path.is_dir() else path.stem)),
        channel_names=ordered.channels if "C" in shown else (),
        metadata={KEY: kept},
        source=path,
    )


def _stack(path: Path) -> tuple[list[Frame], dict[str, Any]]:
    """Return the planes that a path means, and what is kept of their headers."""
    if path.name.upper() == "DICOMDIR":
        path = path.parent
    if path.is_dir():
        return _only(read_frames(dicom_files(path)), path)
    if not is_dicom(path):
        raise ValueError(
            f"{path} is not a DICOM file: it does not begin like one. It is damaged, or of another kind; copy it "
            "again from where it came from."
        )
    own, about = read_frames([path])
    if not own:
        raise ValueError(f"{path} is a DICOM file without an image. Give a file of the series of images.")
    if len(own) == 1 and own[0].position is not None:
        beside = [p for p in dicom_files(path.parent, depth=0) if p != path]
        own += [f for f in read_frames(beside, own[0].series)[0] if f.uid != own[0].uid]
    stacks = [stack for stack in split(own) if any(frame.pixels.path == path for frame in stack)]
    if len(stacks) > 1:
        raise ValueError(
            f"{path} holds images of {len(stacks)} directions or sizes, which make no single volume. "
            "Give a series with slices of one direction."
        )
    return stacks[0], about[own[0].series]


def _only(found: tuple[list[Frame], dict[str, dict[str, Any]]], folder: Path) -> tuple[list[Frame], dict[str, Any]]:
    """Return the one stack of a folder."""
    frames, about = found
    if not frames:
        raise ValueError(f"{folder} holds no DICOM file with an image. Give the folder of a series.")
    stacks = split(frames)
    if len(stacks) > 1:
        raise ValueError(_several(folder, stacks, about))
    return stacks[0], about[stacks[0][0].series]


def _several(path: Path, stacks: Sequence[Sequence[Frame]], about: dict[str, dict[str, Any]]) -> str:
    """Say which series there are, and how to name one."""
    listed = []
    for stack in sorted(stacks, key=lambda s: about[s[0].series].get("SeriesNumber", 0))[:_LISTED]:
        kept, first = about[stack[0].series], stack[0].pixels
        number = f"{kept['SeriesNumber']:g} " if isinstance(kept.get("SeriesNumber"), float) else ""
        title = kept.get("SeriesDescription", "without a name")
        size = "x".join(map(str, first.shape[:2]))
        file = first.path.relative_to(path)
        listed.append(f"{number}{title!r} ({kept.get('Modality', '?')}, {len(stack)} images of {size}, e.g. {file})")
    more = f", and {len(stacks) - _LISTED} more" if len(stacks) > _LISTED else ""
    return (
        f"{path} holds {len(stacks)} series, or stacks of different directions: {'; '.join(listed)}{more}. "
        f"Give one file of the one that you want, e.g. {stacks[0][0].pixels.path}."
    )


def _dtype(stack: Sequence[Frame]) -> np.dtype[Any]:
    """Choose a dtype that holds what a stack has when it is rescaled: integers if slopes and intercepts are such."""
    stored = stack[0].pixels.dtype.newbyteorder("=")
    if all((frame.slope, frame.inter) == (1, 0) for frame in stack):
        return stored
    whole = all(frame.slope.is_integer() and frame.inter.is_integer() for frame in stack)
    if stored.kind in "iu" and whole:
        bits = stack[0].pixels.bits
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if stored.kind == "i" else (0, 2**bits - 1)
        ends = [end * frame.slope + frame.inter for frame in stack for end in (low, high)]
        for dtype in (stored, *map(np.dtype, _SMALL)):
            if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
                return dtype
    small = stored.itemsize <= (4 if stored.kind == "f" else 2)
    return np.dtype(np.float32 if small else np.float64)


def _sizes(ordered: Ordered, first: Frame) -> dict[str, tuple[float, str | None]]:
    """Return size and unit of the axes of which they are known."""
    sizes: dict[str, tuple[float, str | None]] = {}
    if first.spacing:  # a depth alone would give a unit to one of three axes
        sizes |= {"Y": (first.spacing[0], "millimeter"), "X": (first.spacing[1], "millimeter")}
        sizes["Z"] = (ordered.depth, "millimeter") if ordered.depth else (1.0, None)
    if ordered.interval:
        sizes["T"] = (ordered.interval, "second")
    return sizes
