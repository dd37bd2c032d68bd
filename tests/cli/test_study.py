"""``ssdenoise study``: table, JSON and plots."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_ssdenoise.study._images import dead_leaves


def test_own_frames(run, last_json, tmp_path):
    frames = np.repeat(dead_leaves(6, 64), 2, 0) + 0.1 * np.random.default_rng(0).standard_normal((12, 64, 64))
    np.save(tmp_path / "frames.npy", frames.astype(np.float32))
    arguments = ("--axes", "TYX", "--seeds", "1", "--steps", "4", "-o", "out", "--json")
    found = last_json(run("study", "frames.npy", *arguments))
    assert (found["images"], found["held_out"], found["views"]) == (5, 1, "frames")
    assert [s["size"] for s in found["sizes"]] == [1, 2, 5]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"data.json", "data.jsonl", "data.png", "data.svg"}
    assert json.loads((tmp_path / "out" / "data.json").read_text())["to_gain_db"] == pytest.approx(found["to_gain_db"])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), 2), (("--of", "theory", "x.npy"), 2), (("missing.npy",), 1), (("--of", "networks", "--sizes", "a,b"), 2)],
)
def test_mistakes(arguments, code, run):
    assert run("study", *arguments, code=code).output
