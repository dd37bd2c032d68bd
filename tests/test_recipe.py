"""What a recipe says makes the same pixels again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import napari_ssdenoise as ssd
from napari_ssdenoise.cli import program
from napari_ssdenoise.recipe import Recipe, fingerprint
from napari_ssdenoise.volume import Volume, open_volume

FEW: dict[str, Any] = {"width": 4, "depth": 1, "patch": 32, "batch": 1}
APPLYING: dict[str, Any] = {"dtype": "float32", "memory": "1 GB", "augment": False, "device": "auto"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file with a space in its name."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "my image.npy", rng.poisson(50, (64, 72)).astype(np.uint16))
    return tmp_path / "my image.npy"


def expected(model: ssd.TrainedModel, volume: Volume, out: Path, **options: Any) -> Any:
    for _ in model.predict_into(volume, out, **{**APPLYING, **options}):
        pass
    return np.asarray(open_volume(out))


def run(command: str) -> None:
    name, *words = shlex.split(command)
    assert name == "ssdenoise"
    result = CliRunner().invoke(program, words, prog_name="ssdenoise", catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_a_command_and_code_train_and_apply_with_the_same_pixels(image: Path, tmp_path: Path) -> None:
    volume = open_volume(image)
    model = ssd.train(volume, "blindspot", steps=3, seed=5, noise="gaussian", sigma=7.25, from_scratch=True, **FEW)
    wanted = expected(model, volume, tmp_path / "a.npy", also={"std": tmp_path / "a.std.npy"})
    recipe = Recipe.of(model, volume, image, std=True, **APPLYING)
    run(recipe.command(tmp_path / "b.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), wanted)
    np.testing.assert_array_equal(np.load(tmp_path / "b.std.npy"), np.load(tmp_path / "a.std.npy"))
    exec(compile(recipe.python(tmp_path / "c.npy"), "copied", "exec"), {})
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), wanted)
    np.testing.assert_array_equal(np.load(tmp_path / "c.std.npy"), np.load(tmp_path / "a.std.npy"))


def test_axes_that_the_file_does_not_say_are_told(tmp_path: Path) -> None:
    np.save(tmp_path / "film.npy", np.random.default_rng(0).normal(9, 2, (3, 32, 40)).astype(np.float32))
    volume = open_volume(tmp_path / "film.npy", axes="TYX")
    model = ssd.train(volume, "n2v", steps=2, spatial="YX", **FEW)
    recipe = Recipe.of(model, volume, tmp_path / "film.npy", **APPLYING)
    assert "--axes TYX" in recipe.command()
    assert "--spatial YX" in recipe.command()
    assert "--seed" not in recipe.command()
    run(recipe.command(tmp_path / "b.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), expected(model, volume, tmp_path / "a.npy"))


def test_a_saved_model_is_applied(image: Path, tmp_path: Path) -> None:
    volume = open_volume(image)
    trained = ssd.train(volume, "n2v", seconds=0.2, **FEW)
    with pytest.raises(ValueError, match=r"limited by time.*Save the model"):
        Recipe.of(trained, volume, image, **APPLYING)
    model = ssd.TrainedModel.load(trained.save(tmp_path / "a model"))
    recipe = Recipe.of(model, volume, image, **{**APPLYING, "augment": True})
    assert "--augment" in recipe.command()
    wanted = expected(trained, volume, tmp_path / "a.npy", augment=True)
    run(recipe.command(tmp_path / "b.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), wanted)
    exec(compile(recipe.python(tmp_path / "c.npy"), "copied", "exec"), {})
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), wanted)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("mzsr", {"adapt": 1, "kernel": "1.1"}),
        ("ibp", {"kernel": "1.1"}),
        ("zssr", {"adapt": 2, "patch": 32}),
    ],
)
def test_an_enlargement(image: Path, tmp_path: Path, method: str, settings: dict[str, Any]) -> None:
    volume = open_volume(image)
    upscaler = ssd.Upscaler(volume, method, **settings)
    for _ in upscaler:
        pass
    recipe = Recipe.of(upscaler.model, volume, image, dtype="float32", memory=300_000_000, device="auto")
    options: dict[str, Any] = {"dtype": "float32", "memory": 300_000_000}
    for _ in upscaler.model.predict_into(volume, tmp_path / "a.npy", **options):
        pass
    wanted = np.load(tmp_path / "a.npy")
    assert wanted.shape == (128, 144)
    run(recipe.command(tmp_path / "b.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), wanted)
    exec(compile(recipe.python(tmp_path / "c.npy"), "copied", "exec"), {})
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), wanted)


def test_a_notebook_holds_command_and_code(image: Path) -> None:
    volume = open_volume(image)
    recipe = Recipe(image, training={"algorithm": "n2v", "settings": {"radius": 3}, "steps": 2}, applying=APPLYING)
    notebook = json.loads(recipe.notebook())
    text, code = ("".join(cell["source"]) for cell in notebook["cells"])
    assert notebook["nbformat"] == 4
    assert recipe.command() in text
    assert code == recipe.python()
    assert str(recipe.output).endswith("my image.denoised.ome.zarr")
    assert fingerprint(volume) == fingerprint(open_volume(image))


def test_what_cannot_be_repeated_says_why(image: Path, tmp_path: Path) -> None:
    volume = open_volume(image)
    trainer = ssd.Trainer(ssd.Noise2Void(**FEW), volume, steps=9)
    next(trainer)
    with pytest.raises(ValueError, match=r"stopped at step 1 of 9.*Save the model"):
        Recipe.of(trainer.model, volume, image)
    trainer.close()
    model = ssd.train(volume, "n2v", steps=1, **FEW)
    with pytest.raises(ValueError, match="not in a file"):
        Recipe.of(model, volume, None)
    with pytest.raises(ValueError, match="cannot be opened"):
        Recipe.of(model, volume, tmp_path / "nothing.npy")
    with pytest.raises(ValueError, match=r"is not all of .*or it was changed"):
        Recipe.of(model, volume.like(volume[:] + 1), image)
    other = tmp_path / "other.npy"
    np.save(other, np.zeros((64, 72), np.uint16))
    with pytest.raises(ValueError, match="trained on other images"):
        Recipe.of(model, open_volume(other), other)
    again = ssd.train(volume, start=model, steps=1)
    with pytest.raises(ValueError, match="more than this image"):
        Recipe.of(again, volume, image)


def test_files_tell_how_they_were_made(image: Path, tmp_path: Path) -> None:
    volume = open_volume(image)
    model = ssd.train(volume, "n2v", steps=1, **FEW)
    for _ in model.predict_into(volume, tmp_path / "out.ome.zarr", **APPLYING):
        pass
    said = open_volume(tmp_path / "out.ome.zarr").metadata["napari_ssdenoise"]
    assert said["fingerprint"] == fingerprint(volume)
    assert said["applied"]["dtype"] == "float32"
    assert said["applied"]["augment"] is False
    assert set(said["versions"]) == {"python", "napari-ssdenoise", "torch", "numpy"}
    assert said["model"]["record"]["asked"]["steps"] == 1
