"""Decode those compressed DICOM images that pydicom leaves to other packages, with imagecodecs."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from pydicom.pixels.decoders.base import DecodeRunner

LABEL: Final = "imagecodecs"
# Names of the transfer syntaxes in pydicom, and of the functions that decode them. Pillow reads the other JPEGs.
_DECODERS: Final = {
    "JPEGExtended12Bit": "jpeg8_decode",
    "JPEGLossless": "jpeg8_decode",
    "JPEGLosslessSV1": "jpeg8_decode",
    "JPEGLSLossless": "jpegls_decode",
    "JPEGLSNearLossless": "jpegls_decode",
    "HTJ2KLossless": "jpeg2k_decode",
    "HTJ2KLosslessRPCL": "jpeg2k_decode",
    "HTJ2K": "jpeg2k_decode",
}


@cache
def register() -> dict[str, str]:
    """Make the decoders known to pydicom, once; return their functions by transfer syntax."""
    from pydicom import uid
    from pydicom.pixels.decoders.base import get_decoder

    functions = {str(getattr(uid, name)): function for name, function in _DECODERS.items()}
    for syntax in functions:
        with suppress(ValueError):  # another thread was faster
            get_decoder(syntax).add_plugin(LABEL, (__name__, "decode"))
    return functions


def plugin_for(syntax: str) -> str:
    """Return pydicom's name for the decoder to use, ``""`` for its own choice."""
    return LABEL if syntax in register() else ""


def is_available(uid: str) -> bool:
    """Tell pydicom that a decoder works; imagecodecs belongs to this package."""
    return True


def decode(src: bytes, runner: DecodeRunner) -> bytearray:
    """Decode a frame for pydicom, and tell it how the pixels lie."""
    import imagecodecs

    image: Any = getattr(imagecodecs, register()[str(runner.transfer_syntax)])(src)
    runner.set_option("bits_allocated", image.dtype.itemsize * 8)
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
        if runner.photometric_interpretation in ("YBR_RCT", "YBR_ICT"):
            runner.set_option("photometric_interpretation", "RGB")
    little = image if sys.byteorder == "little" else image.byteswap()
    return bytearray(np.ascontiguousarray(little).tobytes())
