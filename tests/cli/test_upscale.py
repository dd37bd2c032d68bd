"""``ssdenoise upscale``: outputs in the right place, the blur, the truth, and plain words for mistakes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_ssdenoise import metrics
from napari_ssdenoise.algorithms import Noise2Void, algorithms_for, settings
from napari_ssdenoise.cli import upscale as cli_upscale
from napari_ssdenoise.engine import job, plan, stream
from napari_ssdenoise.io import read_volume, write_volume
from napari_ssdenoise.ops.degrade import Degradation
from napari_ssdenoise.superres import upscale
from napari_ssdenoise.volume import Volume

MICROMETERS = ("micrometer", "micrometer")
FAST = ("--kernel", "1.0", "--precision", "float32")
ZSSR = ("--method", "zssr", "--adapt", 2, "--patch", 16, "--batch", 1, *FAST)


@pytest.fixture
def truth(clean_image):
    return (100 + 100 * clean_image).astype(np.float32)


@pytest.fixture
def coarse(truth):
    """Return the truth, blurred and with half the pixels."""
    return Degradation.gaussian((1.0, 1.0), (2, 2)).down(torch.from_numpy(truth)[None, None])[0, 0].numpy()


@pytest.fixture
def image(coarse, tmp_path):
    return write_volume(tmp_path / "a.tif", Volume(coarse, "YX", (0.4, 0.2), MICROMETERS))


@pytest.mark.parametrize("method", ["ibp", "bicubic"])
def test_the_file_holds_what_python_gives(method, run, image, coarse, tmp_path):
    run("upscale", image, "-o", "out.tif", "--method", method, *FAST)
    expected = upscale(coarse, method, kernel="1.0", precision="float32")
    np.testing.assert_allclose(np.asarray(read_volume(tmp_path / "out.tif")), expected, rtol=1e-5)


def test_a_few_updates(run, image, coarse, last_json, tmp_path):
    found = last_json(run("upscale", image, "-o", "out.npy", "--json", *ZSSR))
    assert (found["input"], found["output"], found["steps"]) == (str(image), "out.npy", 2)
    assert found["loss"] > 0
    expected = upscale(coarse, "zssr", adapt=2, patch=16, batch=1, kernel="1.0", precision="float32")
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-4, atol=1e-3)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("suffix", [".ome.zarr", ".tif", ".ome.tif"])
@pytest.mark.parametrize("grid", ["registered", "topleft"])
def test_size_and_place_are_written(suffix, grid, run, coarse, tmp_path):
    stack = np.stack([coarse, coarse[::-1]])
    volume = Volume(stack, "CYX", (1, 0.4, 0.2), (None, *MICROMETERS), (0, 3.0, -1.0), channel_names=("actin", "DNA"))
    write_volume(tmp_path / "in.ome.zarr", volume)
    run("upscale", "in.ome.zarr", "-o", f"out{suffix}", "--method", "ibp", "--grid", grid, *FAST)
    out = read_volume(tmp_path / f"out{suffix}")
    assert (out.axes, out.shape) == ("CYX", (2, 64, 64))
    assert out.scale[1:] == pytest.approx((0.2, 0.1))
    assert out.units[1:] == MICROMETERS
    if suffix == ".ome.zarr":
        moved = (0.1, 0.05) if grid == "registered" else (0, 0)
        assert out.translate[1:] == pytest.approx((3.0 - moved[0], -1.0 - moved[1]))
        assert out.channel_names == ("actin", "DNA")


def test_along_z(run, tmp_path, rng):
    stack = Volume(rng.normal(100, 9, (8, 20, 24)).astype("float32"), "ZYX", (1.0, 0.5, 0.5), ("micrometer",) * 3)
    write_volume(tmp_path / "in.tif", stack)
    run("upscale", "in.tif", "-o", "out.ome.zarr", "--method", "ibp", "--factor", 1, "--factor-z", 2, *FAST)
    out = read_volume(tmp_path / "out.ome.zarr")
    assert out.shape == (16, 20, 24)
    assert out.scale == pytest.approx((0.5, 0.5, 0.5))


def test_a_blur_in_the_units_of_the_image(run, image, last_json):
    found = last_json(run("upscale", image, "-o", "out.tif", "--method", "ibp", "--kernel", "0.2 um", "--json"))
    assert found["kernel_sigma"] == pytest.approx([1, 2], rel=0.02)


def test_a_picture_and_its_dtype(run, tmp_path, rng):
    from PIL import Image

    pixels = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    run("upscale", "photo.png", "-o", "out.png", "--method", "ibp", *FAST)
    out = read_volume(tmp_path / "out.png")
    assert out.shape == (48, 64, 3)
    assert out.dtype == np.uint8


def test_values_beyond_the_dtype_do_not_wrap_around(run, tmp_path):
    pixels = np.full((32, 32), 500, np.uint16)
    pixels[10:14, 10:14] = 65535
    write_volume(tmp_path / "in.tif", Volume(pixels, "YX"))
    run("upscale", "in.tif", "-o", "out.tif", "--method", "ibp", "--dtype", "uint16", *FAST)
    run("upscale", "in.tif", "-o", "exact.tif", "--method", "ibp", "--dtype", "float32", *FAST)
    exact = np.asarray(read_volume(tmp_path / "exact.tif"))
    out = np.asarray(read_volume(tmp_path / "out.tif"))
    assert exact.max() > 65536
    assert exact.min() < 0
    assert out.dtype == np.uint16
    np.testing.assert_allclose(out, np.clip(exact, 0, 65535), atol=0.6)


def test_compared_with_the_truth(run, image, truth, tmp_path, last_json):
    write_volume(tmp_path / "truth.tif", Volume(truth, "YX"))
    result = run("upscale", image, "-o", "out.tif", "--method", "ibp", "--reference", "truth.tif", "--json", *FAST)
    found = last_json(result)
    out = np.asarray(read_volume(tmp_path / "out.tif"))
    repeated = np.asarray(read_volume(image)).repeat(2, 0).repeat(2, 1)
    assert found["psnr"] == pytest.approx(metrics.psnr(out, truth), abs=1e-4)
    assert found["ssim"] == pytest.approx(metrics.ssim(out, truth), abs=1e-6)
    assert found["noisy"]["psnr"] == pytest.approx(metrics.psnr(repeated, truth), abs=1e-4)
    assert found["psnr"] > found["noisy"]["psnr"] + 3
    assert "pixels repeated" in result.stderr


@pytest.mark.parametrize("name", ["k.npy", "k.png", "k.tif"])
def test_the_blur_is_saved(name, run, image, tmp_path):
    run("upscale", image, "-o", "out.tif", "--method", "ibp", "--save-kernel", name, *FAST)
    kernel = np.asarray(read_volume(tmp_path / name), float)
    expected = Degradation.gaussian((1.0, 1.0), (2, 2)).kernel
    if name == "k.npy":
        np.testing.assert_allclose(kernel, expected, atol=1e-7)
    else:
        assert kernel.shape == tuple(8 * n for n in expected.shape)
        np.testing.assert_allclose(kernel[4::8, 4::8], 255 * expected / expected.max(), atol=0.6)


@pytest.mark.parametrize("along_z", [False, True])
def test_negative_weights_and_lines_are_drawn(along_z, run, tmp_path, rng):
    write_volume(tmp_path / "in.tif", Volume(rng.normal(100, 9, (8, 32, 32)).astype("float32"), "ZYX"))
    factors = ("--factor", 1, "--factor-z", 4) if along_z else ("--factor", 2)
    run(
        "upscale",
        "in.tif",
        "-o",
        "out.tif",
        "--method",
        "ibp",
        "--kernel",
        "bicubic",
        "--save-kernel",
        "k.png",
        *factors,
    )
    kernel = Degradation.bicubic((4, 1, 1) if along_z else (2, 2)).kernel
    drawn = kernel[..., 0] if along_z else kernel
    picture = np.asarray(read_volume(tmp_path / "k.png"), float)
    assert picture.shape == tuple(8 * n for n in drawn.shape)
    np.testing.assert_allclose(picture[4::8, 4::8], np.clip(255 * drawn / drawn.max(), 0, None), atol=0.6)


def test_a_saved_blur_can_be_given(run, image, tmp_path):
    run("upscale", image, "-o", "first.tif", "--method", "ibp", "--save-kernel", "k.npy", *FAST)
    run("upscale", image, "-o", "second.tif", "--method", "ibp", "--kernel", "k.npy", "--precision", "float32")
    first, second = (np.asarray(read_volume(tmp_path / f"{name}.tif")) for name in ("first", "second"))
    np.testing.assert_allclose(first, second, rtol=1e-4)


def test_existing_outputs_are_replaced_only_if_asked(run, image, tmp_path):
    arguments = ("upscale", image, "-o", "out.tif", "--method", "ibp", *FAST)
    run(*arguments)
    before = (tmp_path / "out.tif").read_bytes()
    assert "exists" in run(*arguments, "--factor", 3, code=1).stderr
    assert (tmp_path / "out.tif").read_bytes() == before
    run(*arguments, "--factor", 3, "--overwrite")
    assert read_volume(tmp_path / "out.tif").shape == (96, 96)


def test_a_folder_keeps_the_name(run, image, tmp_path):
    run("upscale", image, "-o", "new/", "--method", "ibp", *FAST)
    run("upscale", image, "-o", "new", "--method", "ibp", "--overwrite", *FAST)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.upscaled.tif"]


def test_inputs_are_never_replaced(run, image):
    before = image.read_bytes()
    result = run("upscale", image, "-o", image, "--method", "ibp", "--overwrite", *FAST, code=1)
    assert "inputs are never replaced" in result.stderr
    assert image.read_bytes() == before


def test_stopped_and_resumed(run, image, tmp_path, monkeypatch, stop_at):
    arguments = ("upscale", image, "-o", "out.npy", *ZSSR[:2], "--adapt", 3, *ZSSR[4:])
    with monkeypatch.context() as patch:
        stop_at(2, patch)
        assert "which is kept" in run(*arguments, code=130).stderr
    assert "resuming the training at step 2" in run(*arguments).stdout
    run("upscale", image, "-o", "whole.npy", *arguments[4:])
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), np.load(tmp_path / "whole.npy"), rtol=1e-4)
    assert not list(tmp_path.glob(".*"))


def stopped_after(tiles):
    """Return what writes as ever, until Ctrl-C is pressed after some tiles."""
    original = stream._write_behind

    def write(*args):
        for number, region in enumerate(original(*args), 1):
            yield region
            if number == tiles:
                raise KeyboardInterrupt

    return write


@pytest.mark.parametrize("suffix", [".ome.zarr", ".npy"])
def test_stopped_while_enlarging_and_resumed(suffix, run, coarse, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "BATCH_PIXELS", 1)  # a tile for each frame
    movie = np.stack([coarse + 3 * t for t in range(5)])
    write_volume(tmp_path / "movie.ome.zarr", Volume(movie, "TYX"))
    with monkeypatch.context() as patch:
        patch.setattr(stream, "_write_behind", stopped_after(2))
        stopped = run("upscale", "movie.ome.zarr", "-o", f"out{suffix}", *ZSSR, code=130)
    assert f"2 tiles of out{suffix} are kept beside it" in stopped.stderr
    assert not (tmp_path / f"out{suffix}").exists()
    done = []
    original = job.Ledger.add
    monkeypatch.setattr(job.Ledger, "add", lambda self, tile: (done.append(tile), original(self, tile)))
    assert "resuming the training at step 2" in run("upscale", "movie.ome.zarr", "-o", f"out{suffix}", *ZSSR).stdout
    assert len(done) <= 3
    run("upscale", "movie.ome.zarr", "-o", "whole.npy", *ZSSR)
    whole = np.load(tmp_path / "whole.npy")
    np.testing.assert_allclose(np.asarray(read_volume(tmp_path / f"out{suffix}")), whole, rtol=1e-4)
    assert not list(tmp_path.glob(".*"))


@pytest.fixture
def quick_denoiser(monkeypatch):
    """Let the diagnosis choose a method that takes no time."""
    from napari_ssdenoise.algorithms import _base
    from napari_ssdenoise.cli import _choosing

    tiny = Noise2Void(width=4, depth=1, patch=16, batch=2)
    monkeypatch.setattr(_choosing, "diagnosed", lambda *_: (tiny, {}))
    monkeypatch.setattr(_base, "USUAL_STEPS", 3)


@pytest.mark.parametrize("same", [True, False])
def test_what_was_denoised_serves_again_but_no_other_image(same, run, noisy, tmp_path, monkeypatch, quick_denoiser):
    flags = ("--method", "ibp", "--denoise", *FAST)
    other = write_volume(tmp_path / "other.tif", Volume(np.asarray(read_volume(noisy))[::-1] + 0.1, "YX"))

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cli_upscale, "_adapt", stop)
        run("upscale", noisy, "-o", "out.npy", *flags, code=130)
    assert list(tmp_path.glob(".*.denoised.ome.zarr"))
    second = noisy if same else other
    assert ("training" in run("upscale", second, "-o", "out.npy", *flags).stdout) is not same
    assert not list(tmp_path.glob(".*"))
    run("upscale", second, "-o", "whole.npy", *flags)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), np.load(tmp_path / "whole.npy"), rtol=1e-4, atol=1e-4)


def test_the_truth_is_compared_with_the_denoised_image(
    run, noisy, clean_image, tmp_path, monkeypatch, quick_denoiser, last_json
):
    truth = clean_image.repeat(2, 0).repeat(2, 1)
    write_volume(tmp_path / "truth.tif", Volume(truth, "YX"))
    denoised = []
    original = cli_upscale._clean_up

    def look_first(output):
        denoised.append(np.asarray(read_volume(cli_upscale._intermediate(output))))
        original(output)

    monkeypatch.setattr(cli_upscale, "_clean_up", look_first)
    flags = ("--method", "ibp", "--denoise", "--reference", "truth.tif", "--json", *FAST)
    found = last_json(run("upscale", noisy, "-o", "out.tif", *flags))
    repeated = denoised[0].repeat(2, 0).repeat(2, 1)
    assert found["noisy"]["psnr"] == pytest.approx(metrics.psnr(repeated, truth), abs=1e-4)
    out = np.asarray(read_volume(tmp_path / "out.tif"))
    assert found["psnr"] == pytest.approx(metrics.psnr(out, truth), abs=1e-4)


def test_denoised_first(run, tmp_path, noisy, quick_denoiser, last_json):
    flags = ("--method", "ibp", "--json", *FAST)
    found = last_json(run("upscale", noisy, "-o", "out.tif", "--denoise", *flags))
    assert found["input"] == str(noisy)
    run("upscale", noisy, "-o", "plain.tif", *flags)
    out, plain = (read_volume(tmp_path / name) for name in ("out.tif", "plain.tif"))
    assert out.shape == plain.shape == (128, 128)
    assert out.scale == plain.scale == pytest.approx((0.1, 0.1))
    assert np.asarray(out).std() < 0.8 * np.asarray(plain).std()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["noisy.tif", "out.tif", "plain.tif"]


def test_noise_is_warned_about(run, noisy, clean):
    words = "would be sharpened with it"
    assert words in run("upscale", noisy, "-o", "a1.tif", "--method", "ibp", *FAST).stdout
    assert words not in run("upscale", noisy, "-o", "a2.tif", "--method", "bicubic", *FAST).stdout
    assert words not in run("upscale", clean, "-o", "a3.tif", "--method", "ibp", *FAST).stdout


def test_every_setting_is_a_flag():
    from napari_ssdenoise.cli.upscale import command

    flags = {flag for parameter in command.params for flag in parameter.opts}
    for algorithm in algorithms_for("upscale").values():
        assert {f"--{setting.name.replace('_', '-')}" for setting in settings(algorithm)} <= flags
    assert "--masked-percent" not in flags


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--adapt", "many"), "'many' is neither a number of updates nor 'best'"),
        (("--adapt", "-1"), "'-1' is neither a number of updates nor 'best'"),
        (("--adapt", "1.5"), "'1.5' is neither"),
        (("--method", "espcn"), "espcn"),
        (("--factor", "99"), "factor=99 is outside [1, 8]"),
        (("--gradual",), "--gradual is a setting of zssr, not of interpolation"),
        (("--dtype", "complex64"), "complex64"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_commands_are_usage_errors(flags, words, run, image, tmp_path):
    result = run("upscale", image, "-o", "out.tif", "--method", "ibp", *flags, code=2)
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--kernel", "nowhere.tif"), "nor a file that exists"),
        (("--kernel", "-1"), "0 or more"),
        (("--kernel", "90"), "Choose a narrower blur"),
        (("--factor", "1"), "leaves the image as it is"),
        (("--factor", "8"), "too few to learn from"),
        (("--factor-z", "2"), "no Z to enlarge"),
        (("--adapt", "5"), "learns nothing"),
        (("--adapt", "best"), "learns nothing"),
        (("--reference", "a.tif"), "pixel by pixel"),
        (("--reference", "nowhere.tif"), "nowhere.tif"),
        (("--save-kernel", "nowhere/k.npy"), "nowhere"),
        (("--save-kernel", "k.xyz"), ".xyz"),
        (("--axes", "ZYX"), "axes"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_inputs_are_one_line(flags, words, run, image, tmp_path):
    result = run("upscale", image, "-o", "out.tif", "--method", "ibp", *flags, code=1)
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (tmp_path / "out.tif").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_missing_image_is_one_line(run):
    (line,) = run("upscale", "nowhere.tif", "-o", "out.tif", code=1).stderr.splitlines()
    assert "nowhere.tif" in line


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("-o", "out.png"), 1, "PNG"),
        (("-o", "out.xyz"), 2, "end the output's name in .ome.zarr"),
        (("-o", "out.npy", "--memory", "lots"), 2, "'lots' is not an amount of memory"),
        (("-o", "nowhere/deep/out.npy"), 1, "does not exist"),
        (("-o", "out.npy", "--reference", "a.tif"), 1, "pixel by pixel"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_found_before_the_updates(flags, code, words, run, image, tmp_path):
    result = run("upscale", image, *flags, *ZSSR, code=code)
    assert words in " ".join(result.stderr.split())
    assert "training" not in result.stdout + result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("adapt", ["0", "2"])
def test_weights_that_come_with_the_program(adapt, run, image, truth, tmp_path, last_json):
    """The default method, as people meet it."""
    write_volume(tmp_path / "truth.tif", Volume(truth, "YX"))
    flags = ("--adapt", adapt, "--patch", 32, "--reference", "truth.tif", "--json", *FAST)
    found = last_json(run("upscale", image, "-o", "out.tif", *flags))
    assert found["steps"] == int(adapt)
    plain = last_json(
        run("upscale", image, "-o", "b.tif", "--method", "bicubic", "--reference", "truth.tif", "--json", *FAST)
    )
    assert found["psnr"] > plain["psnr"]
