"""Units of length and time: one spelling inside (the names of OME-NGFF), many outside."""

from __future__ import annotations

import re
from typing import Final

_LENGTH: Final = {
    "angstrom": ("Å", "A", "ang"),
    "picometer": ("pm",),
    "nanometer": ("nm",),
    "micrometer": ("µm", "um", "micron", "microns", "u"),
    "millimeter": ("mm",),
    "centimeter": ("cm",),
    "decimeter": ("dm",),
    "meter": ("m",),
    "kilometer": ("km",),
    "inch": ("in", "inches"),
    "foot": ("ft",),
}
_TIME: Final = {
    "nanosecond": ("ns",),
    "microsecond": ("µs", "us"),
    "millisecond": ("ms", "msec"),
    "second": ("s", "sec"),
    "minute": ("min",),
    "hour": ("h", "hr"),
    "day": ("d",),
}
_NAMES: Final = {symbol: name for table in (_LENGTH, _TIME) for name, symbols in table.items() for symbol in symbols}
# What programs write where there is no physical unit.
_NONE: Final = {"", "pixel", "pixels", "px", "frame", "frames", "none", "null", "reference frame"}
_ESCAPED: Final = re.compile(r"\\u(?![dD][89a-fA-F])([0-9a-fA-F]{4})")


def unit_name(text: object) -> str | None:
    r"""Return a unit's spelled-out name, None where the text means "no unit".

    ``"um"``, ``"µm"`` (either code point), ``"\\u00B5m"`` as ImageJ escapes it and ``"microns"`` are all
    ``"micrometer"``; a unit that is not known is kept as it is.
    """
    if not isinstance(text, str):
        return None
    # The micro sign and the Greek letter look the same; some writers lose one to a code page.
    plain = re.sub(_ESCAPED, lambda found: chr(int(found[1], 16)), text.strip().strip("\0"))
    plain = plain.replace("\u03bc", "µ").replace("Âµ", "µ")
    if plain.lower() in _NONE:
        return None
    if plain in _NAMES:
        return _NAMES[plain]
    lower = plain.lower().replace("metre", "meter")
    if lower in _NAMES:
        return _NAMES[lower]
    for table in (_LENGTH, _TIME):
        if lower in table or lower.removesuffix("s") in table:
            return lower if lower in table else lower.removesuffix("s")
    return plain


def unit_symbol(name: str | None) -> str | None:
    """Return the symbol of a unit's name (``"µm"``), or None if it has none."""
    for table in (_LENGTH, _TIME):
        if name in table:
            return table[name][0]
    return None


def escaped(text: str) -> str:
    r"""Return a text as ImageJ stores it: in ASCII, with others escaped as in ``"\\u00C5"``."""
    return "".join(c if c.isascii() and c.isprintable() else f"\\u{ord(c):04X}" for c in text)


def is_length(name: str | None) -> bool:
    """Tell whether a unit's name is one of length."""
    return name in _LENGTH


def is_time(name: str | None) -> bool:
    """Tell whether a unit's name is one of time."""
    return name in _TIME
