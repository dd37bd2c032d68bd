"""Sort the acquisitions of an ISMRMRD file into k-space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

import numpy as np

from napari_ssdenoise.io.kspace import KSpace
from napari_ssdenoise.io.kspace_hdf5 import _text, parse, pixel_size

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# Flags of acquisitions that are no lines of the image (bit numbers of the ISMRMRD standard, from 1): noise, navigation,
# phase correction, feedback, dummy scans, surface-coil correction, phase stabilisation.
_NO_IMAGE: Final = (19, 23, 24, 26, 27, 28, 29, 30, 31)
_CALIBRATION_ONLY: Final = 20
# Counters that tell frames apart, the slowest first.
_FRAMES: Final = ("set", "contrast", "phase", "repetition", "slice")


def read_ismrmrd(path: Path, file: Any, groups: list[str]) -> KSpace:
    """Read the lines of a file into (slices, coils, Y, X), where Y is the readout and X the phase encoding.

    Slices, repetitions, phases, contrasts and sets follow one another along the first axis. Lines measured several
    times (averages) are averaged. Noise scans, navigators and separate calibration lines are left out. Echoes that are
    not centred are placed so that the zero frequency is at ``n // 2``. An oversampled readout is not cropped.
    """
    if len(groups) > 1:
        raise ValueError(f"{path.name} holds several measurements ({', '.join(groups)}). Keep one in a file.")
    group = file[groups[0]]
    try:
        encoding = parse(_text(group.get("xml"))).get("encoding", {})
        matrix = {a: int(encoding["encodedSpace"]["matrixSize"][a]) for a in "xyz"}
    except (ElementTree.ParseError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ValueError(f"{path.name}: its header does not say the size of the matrix ({exc}).") from exc
    if encoding.get("trajectory", "cartesian") not in ("cartesian", "epi"):
        raise ValueError(f"{path.name} has a {encoding['trajectory']} trajectory; only Cartesian k-space can be read.")
    if matrix["z"] > 1:
        raise ValueError(f"{path.name} is a 3D acquisition of {matrix['z']} partitions; only slices (2D) can be read.")
    heads = group["data"].fields("head")[:]
    lines = _image_lines(heads["flags"])
    if not lines.any():
        raise ValueError(f"{path.name} holds {len(heads)} acquisitions, none of which is a line of an image.")
    data, labels = _sort(path, group["data"].fields("data")[:], heads, np.flatnonzero(lines), matrix, encoding)
    scale = pixel_size(_text(group.get("xml")))
    return KSpace(data, scale=scale, name=path.stem, labels=labels, source=path)


def _image_lines(flags: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which acquisitions are lines of the image."""

    def has(bit: int) -> NDArray[np.bool_]:
        return np.asarray(flags >> np.uint64(bit - 1) & np.uint64(1), bool)

    out = has(_CALIBRATION_ONLY)
    for bit in _NO_IMAGE:
        out = out | has(bit)
    return ~out


def _sort(
    path: Path, stored: Any, heads: Any, chosen: NDArray[np.intp], matrix: dict[str, int], encoding: dict[str, Any]
) -> tuple[NDArray[np.complex64], tuple[str, ...]]:
    """Put every line in its place."""
    index = heads["idx"][chosen]
    frames, frame_of = np.unique(np.stack([index[f] for f in _FRAMES], 1), axis=0, return_inverse=True)
    coils = int(heads["active_channels"][chosen].max())
    data = np.zeros((len(frames), coils, matrix["x"], matrix["y"]), np.complex64)
    count = np.zeros((len(frames), matrix["y"]), np.int32)
    shift = matrix["y"] // 2 - _centre(encoding, matrix["y"])
    for where, frame, head in zip(chosen, frame_of.ravel(), heads[chosen], strict=True):
        samples, channels = int(head["number_of_samples"]), int(head["active_channels"])
        line = np.asarray(stored[where], np.float32)
        column = int(head["idx"]["kspace_encode_step_1"]) + shift
        start = matrix["x"] // 2 - int(head["center_sample"])
        first, last = int(head["discard_pre"]), samples - int(head["discard_post"])
        fits = channels == coils and line.size == 2 * samples * channels and 0 <= column < matrix["y"]
        if not fits or start + first < 0 or start + last > matrix["x"]:
            raise ValueError(
                f"{path.name}: acquisition {where} ({channels} coils, {samples} samples, line {column}) does not fit "
                f"a matrix of {matrix['x']} x {matrix['y']} seen by {coils} coils. The file is damaged."
            )
        values = line.view(np.complex64).reshape(channels, samples)
        data[frame, :, start + first : start + last, column] += values[:, first:last]
        count[frame, column] += 1
    several = count > 1
    if several.any():
        data /= np.maximum(count, 1)[:, None, None, :]
    return data, tuple(_label(frame, frames) for frame in frames)


def _centre(encoding: dict[str, Any], size: int) -> int:
    """Return the phase-encoding step of the zero frequency."""
    try:
        return int(encoding["encodingLimits"]["kspace_encoding_step_1"]["center"])
    except (KeyError, TypeError, ValueError):
        return size // 2


def _label(frame: NDArray[Any], frames: NDArray[Any]) -> str:
    """Name a frame by the counters in which frames differ."""
    varied = frames.min(0) != frames.max(0)
    return ", ".join(f"{f} {n}" for f, n, v in zip(_FRAMES, frame, varied, strict=True) if v)
