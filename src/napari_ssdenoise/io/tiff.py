"""Read TIFF files lazily: OME-TIFF, ImageJ hyperstacks and plain ones."""

from __future__ import annotations

import json
import logging
import math
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_ssdenoise.axes import AXES, guess_axes, parse_axes
from napari_ssdenoise.io._affine import read_space
from napari_ssdenoise.io._channels import from_imagej, hex_color, names_in
from napari_ssdenoise.io._lazy import present, reason
from napari_ssdenoise.io._units import unit_name
from napari_ssdenoise.io._writer import NOTE
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from tifffile import TiffFile, TiffPageSeries

logger = logging.getLogger(__name__)


class _Decoded:
    """Tiles or strips of a compressed or scattered image, decoded as they are asked for; closes its file with it."""

    def __init__(self, path: Path) -> None:
        import zarr
        from tifffile import TiffFile

        tif = TiffFile(path)
        self._path = path
        self._close = weakref.finalize(self, tif.close)
        array = zarr.open_array(tif.series[0].aszarr(level=0), mode="r")
        self._array = array
        self.shape: tuple[int, ...] = array.shape
        self.chunks: tuple[int, ...] = array.chunks
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> Any:
        return self._array[key]

    def __reduce__(self) -> tuple[type[_Decoded], tuple[Path]]:
        return _Decoded, (self._path,)


def read_tiff(path: Path, axes: str | None = None) -> Volume:
    """Open the first image of a TIFF file.

    Uncompressed images are memory-mapped, others are decoded tile by tile when sliced. Axes, pixel sizes, units and
    channel names come from OME or ImageJ metadata; pages that nobody names are Z.

    Raises
    ------
    ValueError
        If the file is not a TIFF, is truncated, or needs a codec that is not installed.
    """
    from tifffile import TiffFile

    try:
        with TiffFile(path) as tif:
            return _read(tif, path, axes)
    except (OSError, MemoryError):
        raise
    except Exception as exc:
        if str(path) in str(exc):
            raise
        raise ValueError(
            f"{path} cannot be read as a TIFF: {reason(exc)}. The file is damaged, incomplete or not a TIFF. "
            "Open it in Fiji to check, or copy it again."
        ) from exc


def _read(tif: TiffFile, path: Path, axes: str | None) -> Volume:
    len(tif.pages)  # finds them all: only then does tifffile notice pages that follow each other in a circle
    if not tif.series or not tif.series[0].shape or tif.series[0].dtype is None:
        raise ValueError(f"{path} holds no image whose pixels can be read. Save it again as an uncompressed TIFF.")
    series = tif.series[0]
    if len(tif.series) > 1:
        logger.warning("%s holds %d images; the first one, %s, is read.", path, len(tif.series), series.shape)
    _check_complete(tif, series, path)
    letters = _letters(series)
    sizes = dict(zip(letters, series.shape, strict=True))
    note = _note(tif)
    named = _shown_axes(letters, sizes, note)
    data = present(_pixels(tif, series, path), letters, named, path)
    shape = tuple(data.shape)
    if axes:
        parse_axes(axes, shape)
    volume = Volume(data, named, name=_stem(path), source=path)
    if tif.is_ome and tif.ome_metadata:
        volume = _with_ome(volume, tif.ome_metadata)
    elif tif.is_imagej:
        volume = _with_imagej(volume, tif)
    extra = {k: v for k, v in note.items() if k == "provenance"}
    if extra:
        volume = replace(volume, metadata={**volume.metadata, NOTE: extra["provenance"]})
    space = read_space(note.get("space"))
    if space:
        volume = replace(volume, metadata={**volume.metadata, **space})
    translate = note.get("translate")
    if isinstance(translate, list) and len(translate) == volume.ndim and named == note.get("axes"):
        volume = replace(volume, translate=tuple(translate))
    return volume


def _pixels(tif: TiffFile, series: TiffPageSeries, path: Path) -> Any:
    """Return the image memory-mapped if its bytes lie in one piece, else decoded on demand."""
    if series.dataoffset is not None and not series.is_multifile:
        dtype = np.dtype(tif.byteorder + np.dtype(series.dtype).char)
        return np.memmap(path, dtype, "r", series.dataoffset, tuple(series.shape))
    _check_codec(series, path)
    return _Decoded(path)


def _check_codec(series: TiffPageSeries, path: Path) -> None:
    """Find out at the door whether the pixels can be decompressed."""
    from tifffile import TIFF

    page = series.keyframe
    for table, code in ((TIFF.DECOMPRESSORS, page.compression), (TIFF.UNPREDICTORS, page.predictor)):
        try:
            table[code]
        except KeyError as exc:
            raise ValueError(
                f"{path} is compressed with {getattr(code, 'name', code)}, which needs the package imagecodecs. "
                "Install it with 'pip install imagecodecs', or save the image uncompressed."
            ) from exc


def _check_complete(tif: TiffFile, series: TiffPageSeries, path: Path) -> None:
    """Refuse a truncated file, which would otherwise look like a shorter image.

    The chain of pages must end in a zero, and the last page's bytes must lie within the file.
    """
    handle = tif.filehandle
    size = int(handle.size)
    pages = len(tif.pages)
    text = f"{path} is incomplete: {{}}. Its end was lost, for example in a copy that was interrupted; copy it again."
    at = tif.pages.next_page_offset
    if at is None or at + tif.tiff.offsetsize > size:
        raise ValueError(text.format(f"it breaks off after {pages} page(s)"))
    handle.seek(at)
    follows = int.from_bytes(handle.read(tif.tiff.offsetsize), "little" if tif.byteorder == "<" else "big")
    if follows >= size:
        raise ValueError(text.format(f"page {pages + 1} should start at byte {follows}, but it has only {size}"))
    if any(page is None for page in series.pages):
        raise ValueError(text.format("some planes that its metadata list are missing, or are in files not found"))
    if series.is_multifile:
        return
    ends = [series.dataoffset + series.nbytes] if series.dataoffset is not None else []
    if not ends:
        for page in (series.keyframe, series.pages[-1]):
            if page is not None:
                ends += [a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if ends and max(ends) > size:
        raise ValueError(text.format(f"its pixels end at byte {max(ends)}, but it has only {size}"))
    images = (tif.imagej_metadata or {}).get("images", 1) if tif.is_imagej else 1
    if isinstance(images, int) and images > math.prod(series.shape) // max(1, math.prod(series.keyframe.shape)):
        raise ValueError(text.format(f"it should hold {images} planes, but {pages} can be found"))


def _letters(series: TiffPageSeries) -> str:
    """Name every dimension of a series with our letters, pages of unknown meaning by guess."""
    axes, shape = series.axes.upper(), tuple(series.shape)
    unknown = [i for i, a in enumerate(axes) if a not in AXES or axes.index(a) != i]
    if not unknown:
        return parse_axes(axes, shape)
    if len(unknown) == len(axes.rstrip("S")) - 2 and axes.rstrip("S").endswith("YX"):
        stack = guess_axes(shape[: len(axes.rstrip("S"))])
        return stack + axes[len(stack) :]
    free = [a for a in "CTZ" if a not in axes]
    if len(unknown) > len(free):
        raise ValueError(f"its axes {series.axes!r} {shape} are more than T, C, Z, Y, X and the samples of RGB")
    named = list(axes)
    for i in reversed(unknown):
        named[i] = free.pop()
    return parse_axes("".join(named), shape)


def _shown_axes(letters: str, sizes: dict[str, int], note: dict[str, Any]) -> str:
    """Choose the axes to show: as they were when this package wrote the file, else as stored, samples last."""
    before = note.get("axes")
    if isinstance(before, str) and set(before) <= set(AXES) and len(set(before)) == len(before):
        lost = [a for a in letters if a not in before and sizes[a] != 1]
        if not lost and {"Y", "X"} <= set(before):
            return before
    return letters.replace("S", "") + "S" if "S" in letters else letters


def _note(tif: TiffFile) -> dict[str, Any]:
    """Return what this package wrote into the file's description, or nothing."""
    text = ""
    if tif.is_ome and tif.ome_metadata:
        for item in _find(_parse(tif.ome_metadata), "M"):
            text = item.text or "" if item.get("K") == NOTE else text
    elif tif.is_imagej:
        lines = tif.pages.first.description.splitlines()
        text = next((line.split("=", 1)[1] for line in lines if line.startswith(f"{NOTE}=")), "")
    try:
        note = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return note if isinstance(note, dict) else {}


def _parse(xml: str) -> ElementTree.Element:
    # expat itself limits how far entities may grow, and external ones are not fetched.
    return ElementTree.fromstring(xml)  # noqa: S314


def _find(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """Return all elements of a local name, whichever version of the OME schema they belong to."""
    return [e for e in root.iter() if str(e.tag).rsplit("}", 1)[-1] == name]


def _with_ome(volume: Volume, xml: str) -> Volume:
    """Add pixel sizes, units and channels from OME-XML."""
    root = _parse(xml)
    pixels = next(iter(_find(root, "Pixels")), None)
    if pixels is None:
        return volume
    scale, units = list(volume.scale), list(volume.units)
    for i, axis in enumerate(volume.axes):
        key = "TimeIncrement" if axis == "T" else f"PhysicalSize{axis}"
        size = _positive(pixels.get(key))
        if size is not None:
            scale[i] = size
            units[i] = unit_name(pixels.get(f"{key}Unit", "s" if axis == "T" else "µm"))
    channels: list[dict[str, Any]] = []
    for element in _find(pixels, "Channel"):
        fields = {"label": element.get("Name"), "color": _color(element.get("Color"))}
        channels.append({k: v for k, v in fields.items() if v})
    changes: dict[str, Any] = {"scale": tuple(scale), "units": tuple(units)}
    if len(channels) == volume.sizes.get("C", 1) and any(channels):
        changes["metadata"] = {**volume.metadata, "omero": {"channels": channels}}
        changes["channel_names"] = names_in(channels) if "C" in volume.axes else ()
    image = next(iter(_find(root, "Image")), None)
    acquired = [e.text for e in _find(image, "AcquisitionDate")] if image is not None else []
    if acquired:
        changes["metadata"] = {**changes.get("metadata", volume.metadata), "acquisition_date": acquired[0]}
    return replace(volume, **changes)


def _with_imagej(volume: Volume, tif: TiffFile) -> Volume:
    """Add pixel sizes, units, origin and channels from ImageJ's description and tags."""
    info = dict(tif.imagej_metadata or {})
    tags = tif.pages.first.tags
    # Without a unit of its own, a resolution in inches or centimetres is a printer's, not a microscope's.
    calibrated = "unit" in info or int(getattr(tags.get("ResolutionUnit"), "value", 1)) == 1
    per_axis = {
        "X": _per_unit(getattr(tags.get("XResolution"), "value", None)) if calibrated else None,
        "Y": _per_unit(getattr(tags.get("YResolution"), "value", None)) if calibrated else None,
        "Z": _positive(info.get("spacing")),
        "T": _positive(info.get("finterval")),
    }
    names = {a: info.get(f"{a.lower()}unit", info.get("unit")) for a in "XYZ"}
    names["T"] = info.get("tunit", "sec")
    scale, units, translate = list(volume.scale), list(volume.units), list(volume.translate)
    for i, axis in enumerate(volume.axes):
        size = per_axis.get(axis)
        if size is not None:
            scale[i] = size
        if axis in "XYZ" or (axis == "T" and size is not None):
            units[i] = unit_name(names[axis])
        origin = info.get(f"{axis.lower()}origin")
        if isinstance(origin, (int, float)) and axis in "XYZ":
            translate[i] = -float(origin) * scale[i]
    channels = from_imagej(info, volume.axes, volume.shape) if "S" not in volume.axes else []
    metadata: dict[str, Any] = {
        "imagej": {k: v for k, v in info.items() if k not in ("Labels", "Overlays", "ROI", NOTE)}
    }
    if channels:
        metadata["omero"] = {"channels": channels}
    return replace(
        volume,
        scale=tuple(scale),
        units=tuple(units),
        translate=tuple(translate),
        channel_names=names_in(channels) if "C" in volume.axes else (),
        metadata=metadata,
    )


def _positive(value: Any) -> float | None:
    """Return a usable size: a finite number above zero (ImageJ writes some spacings as negative)."""
    try:
        size = abs(float(value))
    except (TypeError, ValueError):
        return None
    return size if 0 < size < math.inf else None


def _per_unit(ratio: Any) -> float | None:
    """Turn a resolution tag, pixels per unit as a fraction, into a pixel's size."""
    if not isinstance(ratio, tuple) or len(ratio) != 2 or not ratio[0]:
        return None
    return _positive(ratio[1] / ratio[0])


def _color(text: str | None) -> str | None:
    try:
        return hex_color(text) if text is not None else None
    except ValueError:
        return None


def _stem(path: Path) -> str:
    """Return a file's name without .tif, .tiff and .ome."""
    return path.stem[:-4] if path.stem.lower().endswith(".ome") else path.stem
