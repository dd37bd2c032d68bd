"""Words of messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Write ``1 slice`` or ``2 slices``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
