"""Flags come from the settings that algorithms declare."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, ClassVar, Literal

import click
import pytest

from napari_ssdenoise import algorithms
from napari_ssdenoise.algorithms import Noise2Noise, Noise2Void, algorithms_for, settings
from napari_ssdenoise.cli import _settings
from napari_ssdenoise.cli._settings import PREFIX, SettingOption, SettingsCommand, configure


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


VERBS = [("train", "denoise"), ("denoise", "denoise"), ("upscale", "upscale")]


@pytest.mark.parametrize(
    ("verb", "purpose", "key"), [(verb, purpose, key) for verb, purpose in VERBS for key in algorithms_for(purpose)]
)
def test_every_setting_is_a_flag_and_in_the_help(verb, purpose, key, run):
    text = run(verb, "--help").output
    known = algorithms_for(purpose)
    assert all(flag_of(setting.name) in text for setting in settings(known[key]))
    others = {s.name for other, algorithm in known.items() if other != key for s in settings(algorithm)}
    own = [setting for setting in settings(known[key]) if setting.name not in others]
    assert (f"Settings of {key} (" in text) == bool(own)


@pytest.mark.parametrize(("verb", "purpose"), VERBS)
def test_settings_for_another_purpose_are_no_flags(verb, purpose):
    command = import_module(f"napari_ssdenoise.cli.{verb}").command
    having = {key for option in command.params if isinstance(option, SettingOption) for key in option.owners}
    assert having <= set(algorithms_for(purpose))


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


@dataclass(frozen=True, kw_only=True)
class Estimating(Noise2Void):
    """Have a number that may be left to the data."""

    key: ClassVar[str] = "estimating"
    sigma: Annotated[float | None, {"min": 0.0, "max": 9.0, "step": 0.1, "label": "Sigma"}, "Of the noise."] = None


@pytest.mark.parametrize(
    ("flags", "sigma"), [((), None), (("--sigma", "auto"), None), (("--sigma", "0"), 0.0), (("--sigma", "2.5"), 2.5)]
)
def test_an_optional_number_may_be_auto(flags, sigma, monkeypatch):
    monkeypatch.setattr(_settings, "list_algorithms", lambda: {"estimating": Estimating})
    monkeypatch.setattr(algorithms, "list_algorithms", lambda: {"estimating": Estimating})
    command = SettingsCommand("train")
    context = command.make_context("train", list(flags))
    assert configure(command, "estimating", context.params).sigma == sigma
    assert "Default: auto; 0 to 9" in " ".join(command.get_help(context).split())


def test_an_optional_number_is_a_number_or_auto(monkeypatch):
    monkeypatch.setattr(_settings, "list_algorithms", lambda: {"estimating": Estimating})
    with pytest.raises(click.BadParameter, match="'much' is neither a number nor 'auto'"):
        SettingsCommand("train").make_context("train", ["--sigma", "much"])
