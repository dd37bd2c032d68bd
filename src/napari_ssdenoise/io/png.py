"""Read PNG and JPEG pictures, write PNG."""

from __future__ import annotations

import json
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_ssdenoise.io._lazy import reason
from napari_ssdenoise.io._writer import NOTE, Writer
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

logger = logging.getLogger(__name__)

# Pixels a picture may have; larger ones are refused before they fill the memory.
MAX_PIXELS = 2**30
_SAMPLES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_png(path: Path, axes: str | None = None) -> Volume:
    """Read a picture into memory: grey as ``YX``, colour as ``YXS``."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                data = _pixels(image, path)
                note = getattr(image, "text", {}).get(NOTE)
    except UnidentifiedImageError as exc:
        raise ValueError(f"{path} is not a picture that can be read: its content does not fit its name.") from exc
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError) as exc:
        if isinstance(exc, OSError) and exc.errno is not None:
            raise
        raise ValueError(
            f"{path} cannot be read: {reason(exc)}. The file is damaged, incomplete or too large."
        ) from exc
    metadata = {NOTE: json.loads(note)} if note else {}
    guess = "YX" if data.ndim == 2 else "YXS"
    return Volume(data, axes or guess, name=path.stem, metadata=metadata, source=path)


def _pixels(image: Image, path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """Decode an opened picture to grey, RGB or RGBA numbers."""
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels are more than a picture may have; convert it to TIFF")
    if image.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("1", "LA", "La"):
        image = image.convert("L")
    elif image.mode in ("RGB", "RGBA") and image.format == "PNG" and _bit_depth(path) == 16:
        logger.warning("%s has 16-bit colours, of which 8 bits are read. Save it as TIFF to keep them all.", path)
    data = np.array(image)
    # Pillow gives 16-bit grey as int32 in some versions.
    return data.astype(np.uint16) if image.mode.startswith("I") and _fits_16_bits(data) else data


def _bit_depth(path: Path) -> int:
    """Read the bits per sample from a PNG's header, where they are the 25th byte."""
    with path.open("rb") as file:
        return file.read(25)[24]


def _fits_16_bits(data: np.ndarray[Any, np.dtype[Any]]) -> bool:
    return data.dtype.kind in "iu" and data.size > 0 and int(data.min()) >= 0 and int(data.max()) < 2**16


class PngWriter(Writer):
    """Write one plane as PNG; it is kept in memory until `finish`."""

    resumable = False

    @property
    def stored_axes(self) -> str:
        return "YXS" if "S" in self.like.axes else "YX"

    def check(self) -> None:
        like = self.like
        stack = [a for a in like.axes if a not in "YXS" and like.sizes[a] > 1]
        if stack:
            raise ValueError(
                f"a PNG holds one plane, but the image has axes {like.axes!r} {like.shape}. "
                "Use a name that ends in .tif or .ome.zarr."
            )
        colour = like.sizes.get("S", 1)
        allowed = (np.uint8, np.uint16) if colour == 1 else (np.uint8,)
        if like.dtype not in allowed or colour not in _SAMPLES:
            raise ValueError(
                f"a PNG holds 8- or 16-bit grey or 8-bit RGB(A), not {like.dtype} with {colour} sample(s) per pixel. "
                "Use a name that ends in .tif or .ome.zarr."
            )

    def _create(self) -> Any:
        self.partial.touch()  # finds out at the door whether the folder can be written
        self._pixels = np.zeros(self.stored_shape, self.like.dtype)
        return self._pixels

    def _complete(self, provenance: dict[str, Any]) -> None:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        info = PngInfo()
        if provenance:
            info.add_itxt(NOTE, json.dumps(provenance))
        pixels = self._pixels[..., 0] if self._pixels.shape[2:] == (1,) else self._pixels
        Image.fromarray(pixels).save(self.partial, format="PNG", pnginfo=info)
