"""How the threads of torch wait for each other."""

from __future__ import annotations

import os


def share_processor() -> None:
    """Let idle threads sleep; call it before torch is first imported.

    OpenMP's threads wait by spinning. Where another program, or the viewer itself, wants one of the cores, the spinning
    ones keep it from the very thread that they wait for: on two cores with one other busy process, training was ten
    times slower. Asleep, they cost a few per cent on a quiet machine. A policy that the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
