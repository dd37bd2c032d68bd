"""Find the images in DICOM files and what their headers say of each, classic and enhanced alike."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_ssdenoise.io._dicom_pixels import Pixels, find_pixels, number, numbers
from napari_ssdenoise.io._lazy import reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

MAGIC: Final = b"DICM"
# How deep below a folder its files may lie: patient, study, series.
DEPTH: Final = 4
# How many files of a folder tell whether it is one of DICOM files.
LOOKED_AT: Final = 64
# By how much the normal of a plane may be longer or shorter than 1.
_SKEW: Final = 0.05
_PARTS: Final = {
    **dict.fromkeys(("M", "MAGNITUDE"), "magnitude"),
    **dict.fromkeys(("P", "PHASE", "PHASE MAP"), "phase"),
    **dict.fromkeys(("R", "REAL"), "real"),
    **dict.fromkeys(("I", "IMAGINARY"), "imaginary"),
}
# What is kept of the header: how the image was made, and nothing that tells of whom.
KEPT: Final = (
    *("Modality", "Manufacturer", "ManufacturerModelName", "SeriesNumber", "SeriesDescription", "ProtocolName"),
    *("MagneticFieldStrength", "SequenceName", "RepetitionTime", "EchoTime", "InversionTime", "FlipAngle"),
    *("SliceThickness", "KVP", "Units", "BodyPartExamined", "PhotometricInterpretation"),
)
_TAGS: Final = (
    *KEPT,
    *("SOPInstanceUID", "SeriesInstanceUID", "ImageType", "ComplexImageComponent", "InstanceNumber"),
    *("AcquisitionNumber", "TemporalPositionIdentifier", "TriggerTime", "AcquisitionDateTime", "AcquisitionDate"),
    *("AcquisitionTime", "ContentDate", "ContentTime", "FrameTime", "FrameTimeVector", "CineRate"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PlanarConfiguration", "BitsAllocated", "BitsStored"),
    *("PixelRepresentation", "PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices", "ImagePositionPatient"),
    *("ImageOrientationPatient", "GridFrameOffsetVector", "RescaleSlope", "RescaleIntercept", "DoseGridScaling"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DirectoryRecordSequence"),
)


@dataclass(frozen=True)
class Frame:
    """One plane, and what its header says."""

    pixels: Pixels
    index: int
    # Equal in all images of a series.
    series: str
    # Of this image alone.
    uid: str
    slope: float = 1.0
    inter: float = 0.0
    # Direction cosines along a row and down a column, and centre of the first pixel, in mm; x to the left, y to the
    # back, z to the head.
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    # Between rows, and between columns, in mm.
    spacing: tuple[float, ...] | None = None
    thickness: float = 0.0
    # Where and in what order it belongs among those at the same place.
    part: str = ""
    echo: float | None = None
    order: tuple[float, ...] = ()
    # Seconds: after the heart's trigger, and by the clock.
    triggered: float | None = None
    acquired: float | None = None
    # Seconds between the images of a film.
    film: float | None = None

    def read(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the plane, rescaled."""
        stored = self.pixels.read(self.index)
        if (self.slope, self.inter) == (1, 0):
            return stored.astype(dtype, copy=False)
        if dtype.kind in "iu":
            return (stored.astype(np.int64) * int(self.slope) + int(self.inter)).astype(dtype)
        return (stored.astype(np.float64) * self.slope + self.inter).astype(dtype)


def is_dicom(path: Path) -> bool:
    """Tell whether a file begins as a DICOM file does, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == MAGIC
    except OSError:
        return False


def dicom_files(folder: Path, depth: int = DEPTH) -> list[Path]:
    """List the DICOM files in a folder, or, if there are none, those in the folders below it."""
    inside = sorted(folder.iterdir())
    found = [p for p in inside if p.is_file() and p.name.upper() != "DICOMDIR" and is_dicom(p)]
    if found or depth == 0:
        return found
    return [path for child in inside if _may_hold(child) for path in dicom_files(child, depth - 1)]


def holds_dicom(folder: Path, depth: int = DEPTH) -> bool:
    """Tell whether a folder, or one below it, holds DICOM files; only the first entries of each are looked at."""
    try:
        inside = list(islice(folder.iterdir(), LOOKED_AT))
    except OSError:
        return False
    if any(p.is_file() and is_dicom(p) for p in inside):
        return True
    return depth > 0 and any(holds_dicom(child, depth - 1) for child in inside if _may_hold(child))


def _may_hold(child: Path) -> bool:
    return child.is_dir() and not child.is_symlink() and not child.name.startswith(".") and child.suffix != ".zarr"


def read_frames(paths: Iterable[Path], series: str | None = None) -> tuple[list[Frame], dict[str, dict[str, Any]]]:
    """Read the headers of files.

    Parameters
    ----------
    paths
        DICOM files.
    series
        Leave out others than this one.

    Returns
    -------
    frames
        All planes, in the files' order; each once, even if a file is there twice. Files without images are left out.
    about
        What the first header of each series says, by `Frame.series`.
    """
    from pydicom import dcmread

    frames: dict[tuple[str, int], Frame] = {}
    about: dict[str, dict[str, Any]] = {}
    for path in paths:
        # pydicom warns of values that are not quite as the standard wants them, which most of such files hold.
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            try:
                dataset = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
                if series is not None and _Header(dataset).series(path) != series:
                    continue
                pixels = find_pixels(path, file, dataset)
                for frame in _frames(dataset, pixels) if pixels else ():
                    frames.setdefault((frame.uid, frame.index), frame)
                    about.setdefault(frame.series, _kept(dataset))
            except (OSError, MemoryError):
                raise
            except Exception as exc:  # pydicom raises all sorts of types where a header is wrong
                raise ValueError(
                    f"{path} cannot be read as a DICOM image: {reason(exc)}. The file is damaged, incomplete or of a "
                    "kind that is not known. Copy it again from where it came from, or move it out of the folder."
                ) from exc
    return list(frames.values()), about


def _frames(dataset: Any, pixels: Pixels) -> Iterator[Frame]:
    """Describe every image of a file."""
    count = int(number(dataset.get("NumberOfFrames")) or 1)
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    each = dataset.get("PerFrameFunctionalGroupsSequence") or [None] * count
    if len(each) != count:
        raise ValueError(f"it has {count} images, but describes {len(each)}")
    offsets = numbers(dataset.get("GridFrameOffsetVector"), count)
    for index, own in enumerate(each):
        frame = _frame(_Header(dataset, shared, own), pixels, index)
        if own is None and count > 1 and frame.film is None and frame.orientation and frame.position:
            # Only the first image has its position in the header; they lie behind each other.
            step = offsets[index] - offsets[0] if offsets else index * frame.thickness
            moved = np.add(frame.position, step * normal(frame.orientation))
            frame = replace(frame, position=tuple(moved.tolist()))
        yield frame


class _Header:
    """Values of one image: from its own functional groups, else from those of all images, else from the file."""

    def __init__(self, dataset: Any, shared: Any = None, own: Any = None) -> None:
        self._dataset, self._groups = dataset, [g for g in (own, shared) if g is not None]

    def get(self, keyword: str, group: str = "") -> Any:
        for groups in self._groups if group else ():
            items = groups.get(group)
            value = items[0].get(keyword) if items else None
            if value is not None:
                return value
        return self._dataset.get(keyword)

    def series(self, path: Path) -> str:
        """Return what all images of a series share; a file that does not say is one by itself."""
        return str(self._dataset.get("SeriesInstanceUID") or path)


def _frame(header: _Header, pixels: Pixels, index: int) -> Frame:
    get = header.get
    values = "PixelValueTransformationSequence"
    slope = number(get("RescaleSlope", values)) or number(get("DoseGridScaling")) or 1.0
    spacing = numbers(get("PixelSpacing", "PixelMeasuresSequence"), 2) or numbers(get("ImagerPixelSpacing"), 2)
    measures = "PixelMeasuresSequence"
    thickness = number(get("SpacingBetweenSlices", measures)) or number(get("SliceThickness", measures))
    content = "FrameContentSequence"
    order = (
        number(get("TemporalPositionIndex", content)) or number(get("TemporalPositionIdentifier")),
        number(get("FrameAcquisitionNumber", content)) or number(get("AcquisitionNumber")),
        number(get("InstanceNumber")),
        float(index),
    )
    triggered = number(get("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence"))
    triggered = number(get("TriggerTime")) if triggered is None else triggered
    echo = number(get("EffectiveEchoTime", "MREchoSequence"))
    orientation = numbers(get("ImageOrientationPatient", "PlaneOrientationSequence"), 6)
    if orientation and abs(np.linalg.norm(normal(orientation)) - 1) > _SKEW:
        orientation = None  # some programs write zeros
    return Frame(
        pixels,
        index,
        series=header.series(pixels.path),
        uid=str(get("SOPInstanceUID") or pixels.path),
        slope=slope,
        inter=number(get("RescaleIntercept", values)) or 0.0,
        orientation=orientation,
        position=numbers(get("ImagePositionPatient", "PlanePositionSequence"), 3),
        spacing=spacing if spacing and min(spacing) > 0 else None,
        thickness=abs(thickness or 0.0),
        part=_part(header),
        echo=number(get("EchoTime")) if echo is None else echo,
        order=tuple(0.0 if value is None else value for value in order),
        triggered=None if triggered is None else triggered / 1000,
        acquired=_clock(header),
        film=_film(header),
    )


def _part(header: _Header) -> str:
    """Return which part of a complex image this is, if the header says so."""
    group = "MRImageFrameTypeSequence"
    words = [header.get("ComplexImageComponent", group)]
    kinds = header.get("FrameType", group) or header.get("ImageType")
    words += [] if kinds is None or isinstance(kinds, str) else list(kinds)[2:]
    return next((_PARTS[str(word).upper()] for word in words if str(word).upper() in _PARTS), "")


def _clock(header: _Header) -> float | None:
    """Return when an image was taken, in seconds."""
    moment = header.get("FrameAcquisitionDateTime", "FrameContentSequence") or header.get("AcquisitionDateTime")
    for kind in ("Acquisition", "Content"):
        if not moment and header.get(f"{kind}Time"):
            moment = f"{header.get(f'{kind}Date') or '20000101'}{header.get(f'{kind}Time')}"
    text = str(moment or "").split("+")[0].split("-")[0]
    whole, _, fraction = text.partition(".")
    if len(whole) != 14 or not whole.isdecimal() or (fraction and not fraction.isdecimal()):
        return None
    try:
        day = np.datetime64(f"{whole[:4]}-{whole[4:6]}-{whole[6:8]}", "D").astype(int)
    except ValueError:
        return None
    return float(day * 86400 + int(whole[8:10]) * 3600 + int(whole[10:12]) * 60 + int(whole[12:])) + float(
        f"0.{fraction or 0}"
    )


def _film(header: _Header) -> float | None:
    """Return the seconds between the images of a film."""
    steps = numbers(header.get("FrameTimeVector"))
    step = number(header.get("FrameTime")) or (float(np.median(steps[1:])) if steps and len(steps) > 1 else None)
    if step:
        return step / 1000
    rate = number(header.get("CineRate"))
    return 1 / rate if rate else None


def _kept(dataset: Any) -> dict[str, Any]:
    """Return what is kept of a header, as plain numbers and text."""
    kept: dict[str, Any] = {}
    for keyword in KEPT:
        value = dataset.get(keyword)
        if value is None or value == "":
            continue
        size = None if isinstance(value, str) else number(value)
        kept[keyword] = str(value).strip() if size is None else size
    return kept


def normal(orientation: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the direction in which slices follow each other."""
    return np.cross(orientation[:3], orientation[3:])
