"""``ssdenoise reconstruct``: files in, files out, and plain words for mistakes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from napari_ssdenoise.io import read_volume
from napari_ssdenoise.reconstruction import ReconstructionModel, ReconstructionTrainer, Reconstructor, reconstruct


@pytest.fixture
def kspace():
    """Return the k-space of a disc seen by four coils, every third line of it."""
    y, x = np.meshgrid(*(2 * (np.arange(n) - n // 2) / n for n in (48, 40)), indexing="ij")
    image = 1.0 * (np.hypot(y, x) < 0.7) - 0.5 * (np.hypot(y - 0.2, x) < 0.2)
    maps = np.stack([np.exp(-(np.square(y - a) + np.square(x - b)) / 2) for a in (-1, 1) for b in (-1, 1)])
    axes = (1, 2)
    full = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, axes), norm="ortho"), axes)
    rng = np.random.default_rng(0)
    full = full + 0.003 * (rng.normal(size=full.shape) + 1j * rng.normal(size=full.shape))
    mask = np.zeros(48, bool)
    mask[16:32] = mask[::3] = True
    return (full * mask[:, None]).astype(np.complex64)


@pytest.fixture
def scan(kspace, tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"] = kspace[None]
    return tmp_path / "scan.h5"


@pytest.mark.parametrize("output", ["out.nii.gz", "out.tif", "out.ome.zarr"])
def test_the_file_holds_what_python_gives(output, run, scan, kspace, last_json, tmp_path):
    found = last_json(run("reconstruct", scan, "-o", output, "--save-maps", "maps.npy", "--json"))
    expected = reconstruct(kspace)
    np.testing.assert_allclose(np.squeeze(read_volume(tmp_path / output)[...]), np.abs(expected.image[0]), rtol=1e-4)
    assert (found["method"], found["output"]) == (expected.methods[0], output)
    assert found["held_out_error"] == pytest.approx(expected.error, rel=1e-4)
    assert found["slices"][0]["errors"].keys() == {"zero-filled", "cg-sense", "cs"}
    assert np.load(tmp_path / "maps.npy").shape == (4, 48, 40)


def test_methods_are_compared_in_words(run, scan):
    text = run("reconstruct", scan, "-o", "out.npy").output
    assert all(word in text for word in ("1 slice, 4 coils, 48 x 40", "held-out lines", "cg-sense", "method: "))


def test_a_reference_gives_scores(run, scan, kspace, last_json, tmp_path):
    np.save(tmp_path / "truth.npy", np.round(np.abs(reconstruct(kspace, "cg-sense").image[0]), 3))
    arguments = ("--method", "cg-sense", "--reference", "truth.npy", "--json")
    assert last_json(run("reconstruct", scan, "-o", "out.npy", *arguments))["psnr"] > 60


def test_arrays_with_a_mask_and_axes(run, kspace, tmp_path):
    np.save(tmp_path / "k.npy", kspace.transpose(1, 2, 0))
    np.save(tmp_path / "mask.npy", (np.abs(np.arange(48) - 23.5) < 8) & (np.arange(48) != 17))
    arguments = ("--axes", "YXC", "--mask", "mask.npy", "--method", "zero-filled", "--part", "complex")
    run("reconstruct", "k.npy", "-o", "out.npy", *arguments)
    assert np.load(tmp_path / "out.npy").dtype == np.complex64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "magic"), "unknown method 'magic'"),
        (("--mask", "short.npy"), "does not fit"),
        (("--variable", "nothing"), "has no array 'nothing'"),
        (("--reference", "small.npy"), "does not fit 1 slice of"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, run, scan, tmp_path):
    np.save(tmp_path / "short.npy", np.ones(7))
    np.save(tmp_path / "small.npy", np.ones((20, 30)))
    assert message in run("reconstruct", scan, "-o", "out.npy", *arguments, code=1).output
    assert not (tmp_path / "out.npy").exists()


def test_images_are_no_kspace_and_outputs_are_not_replaced(run, scan, tmp_path):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    assert "DICOM image, not k-space" in run("reconstruct", "a.dcm", "-o", "out.npy", code=1).output
    (tmp_path / "out.npy").write_bytes(b"mine")
    assert "exists" in run("reconstruct", scan, "-o", "out.npy", code=1).output
    assert (tmp_path / "out.npy").read_bytes() == b"mine"


def test_ctrl_c_writes_nothing(run, scan, monkeypatch, tmp_path):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Reconstructor, "__next__", interrupted)
    assert "nothing was written" in run("reconstruct", scan, "-o", "out.npy", code=130).output
    assert not (tmp_path / "out.npy").exists()


def test_a_model_is_trained_from_kspace_and_reconstructs(run, scan, last_json, tmp_path):
    arguments = ("--algorithm", "ssdu-mri", "--steps", 3)
    found = last_json(run("train", scan, scan, "-o", "knee.model", *arguments, "--json"))
    assert (found["steps"], found["slices"], found["output"]) == (3, 2, "knee.model")
    result = last_json(run("reconstruct", scan, "-o", "out.npy", "--method", "knee.model", "--json"))
    assert result["method"] == "model"
    assert set(result["slices"][0]["errors"]) == {"cs", "model"}
    assert "exists" in run("train", scan, "-o", "knee.model", *arguments, code=1).output
    assert "--patch" in run("train", scan, "-o", "b.model", *arguments, "--patch", 32, code=2).output


def test_a_stopped_training_keeps_what_was_learnt(run, scan, monkeypatch, tmp_path):
    original = ReconstructionTrainer.__next__

    def interrupted(self):
        if self.step == 2:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(ReconstructionTrainer, "__next__", interrupted)
    text = run("train", scan, "-o", "knee.model", "--algorithm", "ssdu-mri", "--steps", 9, code=130).output
    assert "2 steps" in text
    assert ReconstructionModel.load(tmp_path / "knee.model").record["steps"] == 2
