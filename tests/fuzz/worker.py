"""Run cases in a process of their own, so that a crash or a hang is seen from outside and costs one case.

    python worker.py TARGET FIRST COUNT FOLDER

Each line of standard output is JSON: ``{"begin": n}``, then ``{"end": n, "outcome": ...}`` or, with ``"failed"``, why.
"""

from __future__ import annotations

import collections
import faulthandler
import json
import logging
import random
import shutil
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import targets

# Of a case, before it counts as hanging. Far more than any takes, even on a machine that does much else.
SECONDS = 120
MEMORY = 8 * 2**30


def say(what: dict[str, Any]) -> None:
    """Tell the waiting process, at once."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the cases that the command line asks for."""
    name, first, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    warnings.simplefilter("ignore")
    logging.disable()
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError):  # not everywhere
        pass
    target = targets.TARGETS[name]
    examples = folder / f"{name}-examples"
    if not examples.exists():
        examples.mkdir()
        target.make(examples)
    outcomes: collections.Counter[str] = collections.Counter()
    for number in range(first, first + count):
        say({"begin": number})
        scratch = folder / name
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            outcomes[target.check(examples, scratch, random.Random(f"{name} {number}"))] += 1
        except Exception:
            say({"failed": number, "why": traceback.format_exc()[-3000:]})
        faulthandler.cancel_dump_traceback_later()
    say({"outcomes": outcomes})


if __name__ == "__main__":
    main()
