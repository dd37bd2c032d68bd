"""Moments at which a long computation looks up, so that whoever waits for its thread may end it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_look: ContextVar[Callable[[], None] | None] = ContextVar("look", default=None)


def pause() -> None:
    """Do what `pausing` was given in this thread, which may raise; nothing by default."""
    look = _look.get()
    if look is not None:
        look()


@contextmanager
def pausing(look: Callable[[], None]) -> Iterator[None]:
    """Have a function called at every `pause` of this thread."""
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)
