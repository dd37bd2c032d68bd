"""``ssdenoise algorithms``: what there is to choose from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from napari_ssdenoise.algorithms import RECONSTRUCTION, list_algorithms, settings
from napari_ssdenoise.algorithms._base import AUTO
from napari_ssdenoise.cli._program import common
from napari_ssdenoise.cli._report import Reporter

_MRI = {
    "title": "Self-supervised reconstruction (MRI)",
    "reference": "Yaman et al.: Self-supervised learning of physics-guided reconstruction neural networks. Magnetic "
    "Resonance in Medicine 2020. With the unbiased loss of Klug, Atik and Heckel (NeurIPS 2023).",
    "purpose": "Learn from undersampled k-space to predict acquired lines from others. For raw MRI data, not images: "
    "ssdenoise train --algorithm ssdu-mri, then ssdenoise reconstruct --method MODEL.",
}


@click.command(name="algorithms")
@common
def command(*, as_json: bool) -> None:
    """List the algorithms with their papers, assumptions and settings."""
    reporter = Reporter(as_json=as_json)
    found: list[dict[str, Any]] = []
    for key, algorithm in list_algorithms().items():
        purpose = " ".join((algorithm.__doc__ or "").split())
        reporter.say(f"{key}: {algorithm.title}")
        reporter.say(f"  {purpose}")
        reporter.say(f"  {algorithm.reference}")
        rows = []
        listed = []
        for setting in settings(algorithm):
            facts = {**asdict(setting), "type": setting.type.__name__}
            listed.append(facts)
            limits = " | ".join(setting.choices) if setting.choices else ""
            if setting.min is not None and setting.max is not None:
                limits = f"{setting.min:g} to {setting.max:g}"
            default = AUTO if setting.default is None else str(setting.default)
            rows.append(("--" + setting.name.replace("_", "-"), default, limits, setting.help))
        reporter.table(("setting", "default", "range", "meaning"), rows)
        found.append(
            {
                "key": key,
                "title": algorithm.title,
                "reference": algorithm.reference,
                "purpose": purpose,
                "settings": listed,
            }
        )
    reporter.say(f"{RECONSTRUCTION}: {_MRI['title']}")
    reporter.say(f"  {_MRI['purpose']}")
    reporter.say(f"  {_MRI['reference']}")
    found.append({"key": RECONSTRUCTION, **_MRI, "settings": []})
    reporter.result({"algorithms": found})
