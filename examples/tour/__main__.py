"""A newcomer's tour through napari: five kinds of images, from opening them to what is kept of them.

    python examples/tour                                   all of it, with small images, in a minute
    python examples/tour 3d --to pictures                  one flow, with a picture of every stage, in both themes
    python examples/tour --full --to pictures              with the samples as they are, and trainings of a minute
    python examples/tour 2d --full --film demo.gif         an animation of a training

It needs a display (``xvfb-run -a`` makes one), and ends with exit code 0 if nothing tripped.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from flows import FLOWS
from guide import Guide

THEMES = ("dark", "light")


def main() -> None:
    parser = argparse.ArgumentParser(prog="examples/tour", description=__doc__.splitlines()[0])
    parser.add_argument("flows", nargs="*", metavar="FLOW", help=f"which: {', '.join(FLOWS)}; all by default")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where to put pictures; none are taken without it")
    parser.add_argument("--themes", nargs="+", choices=THEMES, help="both where pictures are taken")
    parser.add_argument("--full", action="store_true", help="whole samples and long trainings")
    parser.add_argument("--film", type=Path, metavar="GIF", help="where to put an animation of the (last) training")
    options = parser.parse_args()
    unknown = set(options.flows) - set(FLOWS)
    if unknown:
        parser.error(f"unknown flow {', '.join(sorted(unknown))}; available: {', '.join(FLOWS)}")
    for theme in options.themes or (THEMES if options.to else THEMES[:1]):
        for name in options.flows or FLOWS:
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder, Guide(name, Path(folder), theme, options) as guide:
                FLOWS[name](guide)
            print(f"{name} ({theme}): passed in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
