"""Flags come from the settings that algorithms declare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pytest

from napari_ssdenoise import algorithms
from napari_ssdenoise.algorithms import Noise2Noise, Noise2Void, list_algorithms, settings
from napari_ssdenoise.cli import _settings
from napari_ssdenoise.cli._settings import PREFIX, SettingsCommand, configure


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


@pytest.mark.parametrize("key", list_algorithms())
def test_every_setting_is_a_flag_and_in_the_help(key, run):
    text = run("train", "--help").output
    assert all(flag_of(setting.name) in text for setting in settings(list_algorithms()[key]))
    assert f"Settings of {key}" in text


def test_flags_reach_the_saved_model(run, noisy, last_json, tiny):
    flags = ("--n2v2", "--masked-percent", "0.5", "--struct-mask", "111", "--learning-rate", "0.002")
    run("train", noisy, "-o", "x.model", "--steps", 1, *flags, *tiny)
    found = last_json(run("info", "x.model", "--json"))["settings"]
    expected = Noise2Void(n2v2=True, masked_percent=0.5, struct_mask="111", learning_rate=0.002, width=4, depth=1)
    assert found == expected.__dict__ | {"patch": 16, "batch": 2}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--algorithm", "n2n", "--masked-percent", "0.5"), "--masked-percent is a setting of n2v, not of n2n"),
        (("--pairs", "frames"), "--pairs is a setting of n2n, not of n2v"),
        (("--masked-percent", "50"), "masked_percent=50.0 is outside [0.05, 10.0]"),
        (("--width", "four"), "four"),
        (("--struct-mask", "12"), "12"),
        (("--algorithm", "n3v"), "n3v"),
        (("--algorithm", "n2n", "--pairs", "planes"), "planes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_flags_are_usage_errors(flags, words, run, noisy, tmp_path):
    assert words in " ".join(run("train", noisy, "-o", "x.model", *flags, code=2).stderr.split())
    assert not (tmp_path / "x.model").exists()


@dataclass(frozen=True, kw_only=True)
class Other(Noise2Noise):
    """Share a name with another algorithm, and a flag with the program."""

    key: ClassVar[str] = "other"
    radius: Annotated[Literal["near", "far"], {"label": "Radius"}, "How far."] = "near"
    steps: Annotated[int, {"min": 1, "max": 9, "label": "Steps"}, "Of something else."] = 2


def test_algorithms_may_disagree_about_a_setting(monkeypatch):
    known = {"n2v": Noise2Void, "other": Other}
    monkeypatch.setattr(_settings, "list_algorithms", lambda: known)
    monkeypatch.setattr(algorithms, "list_algorithms", lambda: known)
    command = SettingsCommand("train")
    assert configure(command, "n2v", {f"{PREFIX}radius": "3"}).radius == 3
    assert configure(command, "other", {f"{PREFIX}radius": "far"}).radius == "far"
    assert configure(command, "other", {f"{PREFIX}loss_function": "l1"}).loss_function == "l1"
