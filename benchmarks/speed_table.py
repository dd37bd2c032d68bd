"""Turn the lines of ``speed.py`` into Markdown tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

Line = dict[str, Any]
GB = 1e9
OWN_MEMORY = 0.4  # GB: the process itself, besides what memory= allows


def tables(lines: Sequence[Line]) -> str:
    """Return all tables for which there are measurements; of several settings the last ones count."""
    lines = _latest(lines)
    parts = [
        _machines(lines),
        ratios([line for line in lines if line["case"].startswith("train")], "steps/s"),
        training(lines),
        ratios([line for line in lines if line["case"].startswith(("predict", "whole"))], "MVox/s"),
        efficiency(lines),
        predictions(lines),
        memory(lines),
    ]
    return "\n\n".join(part for part in parts if part) or "No measurements."


def ratios(lines: Sequence[Line], unit: str) -> str:
    """Compare our rate with the others', as a ratio of medians and by the ratios within the rounds."""
    rows = []
    for case in _cases([line for line in lines if line["tool"] == "ours"]):
        tools = {tool: _rates(lines, case, tool) for tool in ("ours", "careamics", "bare")}
        row = [f"{case}{_image(lines, case)}", *(_spread(tools[tool].values()) for tool in tools)]
        for other in ("careamics", "bare"):
            pairs = [rate / tools[other][n] for n, rate in tools["ours"].items() if n in tools[other]]
            of_medians = median(tools["ours"].values()) / median(tools[other].values()) if pairs else 0.0
            row += [f"{of_medians:.2f}" if pairs else "-", _spread(pairs)]
        rows.append(row)
    head = [f"{unit}", "ours", "CAREamics", "bare", "ours / CAREamics", "in pairs", "ours / bare", "in pairs"]
    return _markdown(head, rows)


def efficiency(lines: Sequence[Line]) -> str:
    """Compare what we compute, halos included, with what the bare network computes in the same time."""
    rows = []
    for case in _cases(lines):
        bare = _rates(lines, case, "bare")
        ours = [line for line in lines if line["case"] == case and line["tool"] == "ours" and "work" in line]
        pairs = [line["rate"] * line["work"] / bare[line["round"]] for line in ours if line["round"] in bare]
        if pairs:
            halo = f"{1 - 1 / ours[-1]['work']:.0%}"
            rows.append([case, f"{ours[-1]['work']:.2f}", halo, _spread(pairs, ".0%"), ours[-1]["plan"]])
    head = ["streaming", "computed / result", "halos' share", "rate of computing / bare network's", "plan"]
    return _markdown(head, rows)


def training(lines: Sequence[Line]) -> str:
    """List how soon training begins, and its memory."""
    rows = []
    for case in [case for case in _cases(lines) if case.startswith("train")]:
        for tool in ("ours", "careamics", "bare"):
            found = [line for line in lines if (line["case"], line["tool"]) == (case, tool)]
            if found:
                peak, extra = (_spread(x[k] / GB for x in found) for k in ("peak_rss", "children_peak_rss"))
                first = _spread((x["first_step"] for x in found if "first_step" in x), ".1f")
                rows.append([case, _name(tool), first, peak, extra])
    return _markdown(["training", "tool", "start to first step, s", "peak RSS, GB", "of its largest child"], rows)


def predictions(lines: Sequence[Line]) -> str:
    """List memory and traffic of the predictions."""
    rows = []
    for case in _cases(lines):
        for tool in ("ours", "careamics"):
            found = [x for x in lines if (x["case"], x["tool"]) == (case, tool) and "read" in x and "voxels" in x]
            if found and case != "memory":
                read, written = (median(x[k] / x["voxels"] for x in found) for k in ("read", "written"))
                peak, extra = (_spread(x[k] / GB for x in found) for k in ("peak_rss", "children_peak_rss"))
                seconds = _spread((x["seconds"] for x in found), ".1f")
                rows.append([case, _name(tool), seconds, peak, extra, f"{read:.2f}", f"{written:.2f}"])
    head = ["prediction", "tool", "seconds", "peak RSS, GB", "of its largest child", "bytes read / voxel", "written"]
    return _markdown(head, rows)


def memory(lines: Sequence[Line]) -> str:
    """Tell whether ``memory=`` was obeyed, and what a longer volume adds."""
    found = [line for line in lines if line["case"] == "memory"]
    peaks = {_label(line): line["peak_rss"] for line in found if line["settings"]["copies"] == 1}
    rows = []
    for line in found:
        allowed = float(line["settings"]["memory"].split()[0]) + OWN_MEMORY
        peak = line["peak_rss"] / GB
        same = peaks.get(line["settings"]["memory"]) if line["settings"]["copies"] > 1 else None
        rows.append(
            [
                _label(line),
                _by(line["shape"]),
                f"{line['start_rss'] / GB:.2f}",
                f"{peak:.2f}",
                f"{allowed:.1f}",
                "yes" if peak <= allowed else "**no**",
                f"{line['peak_rss'] / same - 1:+.1%}" if same else "-",
                f"{line['rate']:.3f}",
                f"cut after {line['seconds']:.0f} s" if line["cut"] else "to the end",
            ]
        )
    head = ["memory=", "voxels", "RSS before", "peak, GB", "allowed", "obeyed", "longer volume", "MVox/s", "run"]
    return _markdown(head, rows)


def _machines(lines: Sequence[Line]) -> str:
    """Name the machines, versions and disturbances."""
    texts = []
    for tool in ("ours", "careamics", "bare"):
        said = {
            f"{_name(tool)} {line['version']}".strip()
            + f": torch {line['torch']}, {line['threads']} threads, {line['precision']}"
            for line in lines
            if line["tool"] == tool
        }
        texts += sorted(said)
    for line in {json.dumps({**line["machine"], "date": ""}): line for line in lines}.values():
        facts = line["machine"]
        texts.append(
            f"{facts['cpu']}, {facts['cores']} cores ({' '.join(facts['flags'])}), {facts['memory'] / GB:.0f} GB; "
            f"code {facts['code']}; {facts['date'][:10]}"
        )
    if lines:
        worst = max(max(line["others_share"], line["steal_share"]) for line in lines)
        texts.append(f"Others (or the host) took at most {worst:.0%} of the machine during a run.")
        texts.append("Figures: median (least to greatest).")
    return "\n".join(f"- {text}" for text in texts)


def _latest(lines: Sequence[Line]) -> list[Line]:
    """Keep the measurements that have the settings of the last one of their kind."""
    last = {_kind(line): line["settings"] for line in lines}
    return [line for line in lines if line["settings"] == last[_kind(line)]]


def _kind(line: Line) -> tuple[str, ...]:
    return (line["case"], line["tool"], _label(line) if line["case"] == "memory" else "")


def _image(lines: Sequence[Line], case: str) -> str:
    """Say what a case worked on: the part of the volume, or the batch."""
    settings = next(line["settings"] for line in lines if line["case"] == case and line["tool"] == "ours")
    if "patch" in settings:
        return f", batch {settings['batch']} of {_by(settings['patch'])}, {settings['seconds']:.0f} s"
    return f", {_by(settings['shape'])}" if settings["shape"] else ""


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _cases(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line["case"] for line in lines))


def _rates(lines: Sequence[Line], case: str, tool: str) -> dict[int, float]:
    """Return the rate of each round."""
    return {line["round"]: line["rate"] for line in lines if line["case"] == case and line["tool"] == tool}


def _spread(values: Iterable[float], form: str = ".2f") -> str:
    numbers = sorted(values)
    if not numbers:
        return "-"
    return f"{median(numbers):{form}} ({numbers[0]:{form}} to {numbers[-1]:{form}})"


def _label(line: Line) -> str:
    copies = line["settings"]["copies"]
    return f"{line['settings']['memory']}{f', {copies} times as long' if copies > 1 else ''}"


def _name(tool: str) -> str:
    return {"careamics": "CAREamics"}.get(tool, tool)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
