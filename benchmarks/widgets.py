"""Measure how the widgets feel: how fast they open, how long they block the event loop, how soon they stop.

And whether they let go of memory: of 20 runs of training, applying and closing, what is resident after each.

    xvfb-run -a -s "-screen 0 1600x1200x24" python benchmarks/widgets.py open
    xvfb-run -a -s "-screen 0 1600x1200x24" python benchmarks/widgets.py loop --seconds 20
    xvfb-run -a -s "-screen 0 1600x1200x24" python benchmarks/widgets.py cancel
    xvfb-run -a -s "-screen 0 1600x1200x24" python benchmarks/widgets.py memory

Each measurement is a process of its own, and a line of JSON. With it stands the machine's load: other programs make
all times longer, those of the processor (``cpu``) less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from widgets_cases import LOOPS, MEMORY, WIDGETS

HERE = Path(__file__).resolve().parent


def measured(what: str, case: str, *rest: str) -> dict[str, Any]:
    """Measure one thing in a process of its own."""
    load = os.getloadavg()[0]
    code = "import json, sys; from widgets_cases import main; print('\\n@' + json.dumps(main(sys.argv[1:])))"
    command = [sys.executable, "-c", code, what, case, *rest]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=False, timeout=1800)
    lines = [line[1:] for line in done.stdout.splitlines() if line.startswith("@")]
    found = json.loads(lines[-1]) if lines else {"error": done.stderr[-2000:]}
    return {"what": what, "case": case, "load": [round(load, 2), round(os.getloadavg()[0], 2)], **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("open", "loop", "cancel", "memory"))
    parser.add_argument("--cases", nargs="+", help="Some of them; by default all.")
    parser.add_argument("--seconds", type=float, default=20.0, help="Of training, for loop.")
    parser.add_argument("--runs", type=int, default=20, help="For memory; the first five do not count.")
    parser.add_argument("--repeat", type=int, default=3, help="How often to open, or to stop at another moment.")
    arguments = parser.parse_args()
    if arguments.what == "cancel":
        from widgets_cancel import STATES

        known: tuple[str, ...] = tuple(STATES)
    else:
        known = {"open": WIDGETS, "loop": LOOPS, "memory": MEMORY}[arguments.what]
    for case in arguments.cases or known:
        if arguments.what == "open":
            for _ in range(arguments.repeat):
                print(json.dumps(measured("open", case)), flush=True)
        elif arguments.what == "loop":
            print(json.dumps(measured("loop", case, str(arguments.seconds))), flush=True)
        elif arguments.what == "memory":
            print(json.dumps(measured("memory", case, str(arguments.runs))), flush=True)
        else:
            print(json.dumps(measured("cancel", case, str(arguments.repeat))), flush=True)


if __name__ == "__main__":
    main()
