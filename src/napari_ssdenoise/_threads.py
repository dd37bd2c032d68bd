"""Settings of torch's threads and memory that must be made before it is first imported."""

from __future__ import annotations

import os

SPINS = "10000"  # about half a millisecond


def share_processor() -> None:
    """Let idle threads sleep; call it before torch is first imported.

    OpenMP's threads wait by spinning. Where another program, or the viewer itself, wants one of the cores, the spinning
    ones keep it from the very thread that they wait for: on two cores with one other busy process, training was ten
    times slower. Yet waking a thread takes so long that training without any spinning is a quarter slower on a quiet
    machine. So they spin for the gap between two layers, and sleep in longer ones. A policy that the user has set
    stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ["GOMP_SPINCOUNT"] = SPINS  # of GNU's OpenMP, for which it overrides the policy


def use_large_pages() -> None:
    """Let torch ask for pages of 2 MB, for programs that compute in other threads than the main one.

    Call it before torch is first imported. What such threads free goes back to the system at once, whatever
    `engine.memory.reused_memory` asks for, and the system clears every page again: with small pages, that takes half
    of the time. A setting of the user stays.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
