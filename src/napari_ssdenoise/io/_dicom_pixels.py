"""Find the pixels in a DICOM file, and read them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from napari_ssdenoise.io._dicom_codecs import plugin_for, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_PIXELS, _FLOATS, _DOUBLES = 0x7FE00010, 0x7FE00008, 0x7FE00009


@dataclass(frozen=True)
class Pixels:
    """Where the pixels of a file lie, and how."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bits: int
    syntax: str
    # Of the first image, if its bytes need no decoding.
    offset: int | None

    def read(self, index: int) -> NDArray[Any]:
        """Return one image as it is stored."""
        if self.offset is None:
            from pydicom import dcmread
            from pydicom.pixels.utils import pixel_array

            source = dcmread(self.path) if self.syntax == _DEFLATED else self.path
            image = pixel_array(source, index=index, decoding_plugin=plugin_for(self.syntax))
            return image.astype(self.dtype, copy=False).reshape(self.shape)
        count = int(np.prod(self.shape))
        with self.path.open("rb") as file:
            file.seek(self.offset + index * count * self.dtype.itemsize)
            stored = np.frombuffer(file.read(count * self.dtype.itemsize), self.dtype)
        if stored.size < count:
            raise ValueError("it ends before its pixels do")
        return stored.reshape(self.shape)


def find_pixels(path: Path, file: BinaryIO, dataset: Any) -> Pixels | None:
    """Find the pixels of a file whose header has just been read; None if it holds no image."""
    rows, columns = (number(dataset.get(k)) for k in ("Rows", "Columns"))
    if not rows or not columns:
        return None
    syntax = dataset.file_meta.TransferSyntaxUID
    samples = int(number(dataset.get("SamplesPerPixel")) or 1)
    bits = int(number(dataset.get("BitsAllocated")) or 0)
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric == "PALETTE COLOR":
        raise ValueError("its colours come from a palette; convert it to RGB with the program that made it")
    if "MOSAIC" in (dataset.get("ImageType") or ()):
        raise ValueError("it shows many slices beside each other (a mosaic); convert the series with dcm2niix")
    plain = not syntax.is_encapsulated and str(syntax) != _DEFLATED
    tag, start, length = _element(file, dataset) if str(syntax) != _DEFLATED else (_PIXELS, 0, 0)
    if tag not in (_PIXELS, _FLOATS, _DOUBLES):
        return None
    shape = (int(rows), int(columns), *((samples,) if samples > 1 else ()))
    dtype = _stored_dtype(bits, signed=bool(dataset.get("PixelRepresentation")), floats=tag != _PIXELS)
    count = int(number(dataset.get("NumberOfFrames")) or 1)
    needed = int(np.prod(shape)) * count * bits // 8
    if plain and not photometric.startswith("YBR") and path.stat().st_size < start + needed:
        raise ValueError(f"its pixels need {needed} bytes, but only {path.stat().st_size - start} are there")
    direct = plain and syntax.is_little_endian and bits >= 8 and length >= needed
    direct = direct and (samples == 1 or (photometric == "RGB" and not dataset.get("PlanarConfiguration")))
    stored = int(number(dataset.get("BitsStored")) or bits)
    return Pixels(path, shape, dtype, stored, str(syntax), start if direct else None)


def _element(file: BinaryIO, dataset: Any) -> tuple[int, int, int]:
    """Return tag, position and length of the element that a file is at."""
    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    head = file.read(8 if implicit else 12)
    if len(head) < (8 if implicit else 12):
        return 0, 0, 0
    group, element = np.frombuffer(head[:4], order + "u2")
    length = int(np.frombuffer(head[-4:], order + "u4")[0])
    return int(group) << 16 | int(element), file.tell(), length


def _stored_dtype(bits: int, *, signed: bool, floats: bool) -> np.dtype[Any]:
    if bits not in (1, 8, 16, 32, 64):
        raise ValueError(f"a pixel has {bits} bits, which is not supported")
    if bits == 1:
        return np.dtype(np.uint8)
    return np.dtype(f"<{'f' if floats else 'i' if signed else 'u'}{bits // 8}")


def check_decoder(pixels: Pixels) -> None:
    """Find out at the door whether pixels can be decompressed.

    Raises
    ------
    ValueError
        If there is no decoder for them.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    name = UID(pixels.syntax).name
    register()
    try:
        decoder = get_decoder(pixels.syntax)
    except NotImplementedError:
        raise ValueError(
            f"{pixels.path} is compressed as {name}, which no decoder here knows. Save it uncompressed."
        ) from None
    if not decoder.is_available:
        raise ValueError(
            f"{pixels.path} is compressed as {name}, and no decoder for that is installed. "
            "Install one with 'pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg', or save it uncompressed."
        )


def number(value: Any) -> float | None:
    """Return a header's value as a number, None if it is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if np.isfinite(found) else None


def numbers(value: Any, count: int | None = None) -> tuple[float, ...] | None:
    """Return a header's values as numbers, None unless they are as many as should be."""
    if value is None or isinstance(value, (str, bytes)):
        return None
    try:
        found = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        return None
    right = found and (count is None or len(found) == count) and bool(np.isfinite(found).all())
    return found if right else None
