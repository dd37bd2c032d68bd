"""Complex images and magnitudes of MRI on the command line."""

from __future__ import annotations

import numpy as np

TRAINING = ("--steps", "3", "--no-quality", "--algorithm", "n2v")


def test_a_complex_image_comes_back_complex(run, tmp_path, tiny):
    rng = np.random.default_rng(0)
    image = (10 + rng.normal(size=(48, 48)) + 1j * rng.normal(size=(48, 48))).astype(np.complex64)
    np.save(tmp_path / "a.npy", image)
    run("denoise", tmp_path / "a.npy", "-o", tmp_path / "b.npy", *TRAINING, *tiny)
    made = np.load(tmp_path / "b.npy")
    assert (made.dtype, made.shape) == (np.complex64, image.shape)
    assert made.real.std() > 0
    assert made.imag.std() > 0


def test_the_noise_floor_of_magnitudes_is_taken_off(run, tmp_path, tiny):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "a.npy", np.hypot(*rng.normal(0, 5, (2, 64, 64))).astype(np.float32))
    given = ["--magnitude-coils", "1", "--magnitude-sigma", "5"]
    for name, more in (("plain", []), ("corrected", given)):
        run("denoise", tmp_path / "a.npy", "-o", tmp_path / f"{name}.npy", *TRAINING, *tiny, *more)
    plain, corrected = (np.load(tmp_path / f"{name}.npy") for name in ("plain", "corrected"))
    assert plain.mean() > 5
    assert corrected.mean() < 0.7 * plain.mean()
    result = run("denoise", tmp_path / "a.npy", "-o", tmp_path / "c.npy", *TRAINING, *tiny, *given[2:], code=2)
    assert "--magnitude-coils" in result.output


def test_a_model_of_complex_images_is_applied(run, tmp_path, tiny):
    rng = np.random.default_rng(0)
    image = (rng.normal(size=(2, 48, 48)) + 1j * rng.normal(size=(2, 48, 48))).astype(np.complex64)
    np.save(tmp_path / "a.npy", image)
    run("train", tmp_path / "a.npy", "-o", tmp_path / "m.model", "--axes", "TYX", *TRAINING, *tiny)
    made = run("denoise", tmp_path / "a.npy", "-m", tmp_path / "m.model", "-o", tmp_path / "b.npy", "--axes", "TYX")
    assert "unlike the training" not in made.output
    assert np.load(tmp_path / "b.npy").dtype == np.complex64
