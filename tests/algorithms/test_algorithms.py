"""Settings are declared once and checked; pairs are found where they are; losses are what the papers say."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
import torch

from napari_ssdenoise.algorithms import Noise2Noise, Noise2Void, get_algorithm, list_algorithms, settings
from napari_ssdenoise.axes import Layout
from napari_ssdenoise.engine.patches import Batch
from napari_ssdenoise.volume import Volume


def test_the_one_for_raw_data_is_elsewhere():
    with pytest.raises(ValueError, match=r"ssdu-mri learns from raw MRI data.*train_reconstruction"):
        get_algorithm("ssdu-mri")


@pytest.mark.parametrize("key", sorted(list_algorithms()))
def test_declarations_are_complete(key: str) -> None:
    algorithm = list_algorithms()[key]
    assert algorithm.key == key
    assert algorithm.title
    assert algorithm.reference
    for setting in settings(algorithm):
        assert setting.label
        assert setting.help.endswith(".")
        assert setting.check(setting.default) == setting.default
        if setting.type in (int, float):
            assert setting.step
            assert setting.min is not None or setting.optional
    assert get_algorithm(key, **asdict(get_algorithm(key))) == get_algorithm(key)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("n2v", {"masked_percent": 50.0}, r"masked_percent=50.0 is outside \[0.05, 10.0\]"),
        ("n2v", {"masked_percent": float("nan")}, "outside"),
        ("n2v", {"radius": 2.5}, "type int"),
        ("n2v", {"n2v2": 1}, "type bool"),
        ("n2v", {"width": True}, "type int"),
        ("n2v", {"struct_mask": "12"}, "struct_mask"),
        ("n2v", {"masked": 1}, "no setting masked"),
        ("blindspot", {"lattice": "0"}, "lattice='0' is no spacing"),
        ("blindspot", {"lattice": "2,2,2"}, "no spacing"),
        ("blindspot", {"lattice": "2,"}, "no spacing"),
        ("blindspot", {"lattice": "12"}, "no spacing"),
        ("n2n", {"pairs": "triples"}, "choose one of target, frames, channels"),
        ("n3v", {}, "unknown algorithm"),
    ],
)
def test_bad_settings(key: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_algorithm(key, **values)


@dataclass(frozen=True, kw_only=True)
class Estimating(Noise2Void):
    key: ClassVar[str] = "estimating"
    sigma: Annotated[float | None, {"min": 0.0, "max": 9.0, "step": 0.1, "label": "Sigma"}, "Of the noise."] = None


def test_an_optional_number() -> None:
    (sigma,) = (setting for setting in settings(Estimating) if setting.name == "sigma")
    assert (sigma.type, sigma.optional, sigma.default) == (float, True, None)
    assert Estimating().sigma is None
    assert Estimating(sigma=2).sigma == 2.0
    assert (sigma.parse("auto"), sigma.parse("0.5")) == (None, 0.5)
    with pytest.raises(ValueError, match=r"sigma=-1 is outside \[0.0, 9.0\]"):
        Estimating(sigma=-1)
    (radius,) = (setting for setting in settings(Estimating) if setting.name == "radius")
    with pytest.raises(ValueError, match="radius=None must be of type int"):
        radius.check(None)


def test_an_algorithm_is_returned_as_it_is() -> None:
    algorithm = Noise2Void(radius=3)
    assert get_algorithm(algorithm) is algorithm
    with pytest.raises(ValueError, match="radius"):
        get_algorithm(algorithm, radius=4)


def test_struct_mask_keeps_only_its_own_symmetries() -> None:
    assert Noise2Void().symmetries("ZYX") == ("Z", "Y", "X", "YX")
    assert Noise2Void().symmetries("TYX") == ("Y", "X", "YX")
    assert Noise2Void(struct_mask="111").symmetries("YX") == ("Y", "X")
    assert Noise2Void(struct_mask="010/111/010").symmetries("YX") == ("Y", "X", "YX")
    assert Noise2Void(struct_mask="00111").symmetries("YX") == ("Y",)


def test_struct_mask_with_planes_needs_3d() -> None:
    with pytest.raises(ValueError, match="2D"):
        Noise2Void(struct_mask="1|1|1").symmetries("YX")


def test_noise2void_hides_what_it_asks_for() -> None:
    """A network that returns its input can only be right by chance: the loss is the noise's, twice."""
    noisy = torch.randn((64, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    identity: Any = SimpleNamespace(at=lambda image, batch, pixel: image.flatten(2)[batch, :, pixel])
    loss = Noise2Void(masked_percent=1.0).loss(identity, Batch(noisy, noisy), torch.Generator().manual_seed(1))
    assert float(loss) == pytest.approx(2, rel=0.1)


def test_noise2noise_gradient_is_unbiased() -> None:
    """Over noise, the gradient against a noisy target is that against the clean one (Lehtinen et al., sec. 2)."""
    rng = torch.Generator().manual_seed(0)
    clean = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16)
    weight = torch.tensor(0.3, requires_grad=True)

    def gradient(target: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad((weight * noisy - target).square().mean(), weight)[0]

    pairs = [torch.randn((2, *clean.shape), generator=rng) * 0.5 + clean for _ in range(400)]
    supervised = torch.stack([gradient(clean, n) for n, _ in pairs]).mean()
    network: Any = lambda x: weight * x  # noqa: E731
    ours = torch.stack(
        [torch.autograd.grad(Noise2Noise().loss(network, Batch(n, t), rng), weight)[0] for n, t in pairs]
    ).mean()
    assert float(ours) == pytest.approx(float(supervised), abs=0.02)


def scenes(algorithm: Noise2Noise, volume: Volume, targets: list[Volume]) -> list[Any]:
    return algorithm.scenes([volume], [Layout.choose(volume.axes, volume.shape)], targets)


def test_pairs_of_frames() -> None:
    volume = Volume(np.zeros((5, 16, 16)), "TYX")
    found = [tuple(v.index[0] for v in s.views) for s in scenes(Noise2Noise(pairs="frames"), volume, [])]
    assert found == [(0, 1), (1, 2), (2, 3), (3, 4)]
    far = scenes(Noise2Noise(pairs="frames", frame_distance=9), volume, [])
    assert len(far) == 10


def test_pairs_of_channels() -> None:
    volume = Volume(np.zeros((3, 2, 16, 16)), "TCYX")
    found = [tuple(v.index for v in s.views) for s in scenes(Noise2Noise(pairs="channels"), volume, [])]
    assert found == [((t, 0), (t, 1)) for t in range(3)]


@pytest.mark.parametrize(
    ("pairs", "volume", "targets", "message"),
    [
        ("target", Volume(np.zeros((16, 16)), "YX"), [], "second noisy image"),
        ("target", Volume(np.zeros((16, 16)), "YX"), [Volume(np.zeros((16, 17)), "YX")], "differ"),
        ("frames", Volume(np.zeros((16, 16)), "YX"), [], "time axis"),
        ("frames", Volume(np.zeros((1, 16, 16)), "TYX"), [], "2 frames"),
        ("channels", Volume(np.zeros((3, 16, 16)), "CYX"), [], "2 independent channels"),
        ("frames", Volume(np.zeros((4, 16, 16)), "TYX"), [Volume(np.zeros((4, 16, 16)), "TYX")], "leave the target"),
    ],
)
def test_missing_pairs(pairs: Any, volume: Volume, targets: list[Volume], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scenes(Noise2Noise(pairs=pairs), volume, targets)


def test_other_packages_add_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_ssdenoise import algorithms

    class Mine(Noise2Void):
        pass

    def broken() -> None:
        raise ImportError("a dependency is missing")

    entries = [SimpleNamespace(name="broken", load=broken), SimpleNamespace(name="mine", load=lambda: Mine)]
    monkeypatch.setattr(algorithms, "entry_points", lambda group: entries)
    algorithms.list_algorithms.cache_clear()
    try:
        assert list_algorithms()["mine"] is Mine
        assert "broken" not in list_algorithms()
        assert isinstance(get_algorithm("mine"), Mine)
    finally:
        algorithms.list_algorithms.cache_clear()


def test_an_algorithm_of_one_file_outside_the_package_is_used_like_our_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from importlib.metadata import EntryPoint

    import napari_ssdenoise as ssd
    from napari_ssdenoise import algorithms
    from napari_ssdenoise.cli._settings import setting_options

    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    entry = EntryPoint("r2r", "recorrupted:Recorrupted", "napari_ssdenoise.algorithms")
    monkeypatch.setattr(algorithms, "entry_points", lambda group: [entry])
    algorithms.list_algorithms.cache_clear()
    try:
        y, x = np.mgrid[:96, :96]
        clean = (100 + 40 * np.sin(y / 6) * np.cos(x / 7)).astype(np.float32)
        noisy = clean + np.random.default_rng(0).normal(0, 15, clean.shape).astype(np.float32)
        model = ssd.train(noisy, "r2r", steps=150, depth=1, width=8, mixing=0.7)
        assert ssd.psnr(model.predict(noisy), clean, 80.0) > ssd.psnr(noisy, clean, 80.0) + 5
        again = ssd.TrainedModel.load(model.save(tmp_path / "r2r.model"))
        np.testing.assert_array_equal(again.predict(noisy), model.predict(noisy))
        assert "mixing" in {option.setting for option in setting_options("denoise")}
    finally:
        algorithms.list_algorithms.cache_clear()


def drifting(shifts: list[tuple[int, int]]) -> Volume:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:140, :150]
    scene = 100 + 40 * np.sin(y / 5 + np.sin(x / 9)) * np.cos(x / 7)
    frames = [scene[20 + dy : 116 + dy, 20 + dx : 120 + dx] for dy, dx in shifts]
    return Volume(rng.normal(frames, 10).astype(np.float32), "TYX")


def test_frames_are_aligned_by_whole_pixels() -> None:
    pytest.importorskip("skimage")
    volume = drifting([(0, 0), (3, -5), (-4, 2)])
    layout = Layout.choose("TYX", volume.shape)
    scenes = Noise2Noise(pairs="frames", frame_distance=2, register=True).scenes([volume], [layout], [])
    assert [s.shape for s in scenes] == [(93, 95), (92, 98), (89, 93)]
    for scene in scenes:
        first, second = (view.read([slice(0, n) for n in scene.shape])[0] for view in scene.views)
        assert (first - second).std() == pytest.approx(10 * 2**0.5, rel=0.05)


def test_motion_is_remarked() -> None:
    pytest.importorskip("skimage")
    moving, still = drifting([(0, 0), (0, 4), (0, 8)]), drifting([(0, 0)] * 3)
    for volume, pixels in ((moving, 4.0), (still, 0.0)):
        algorithm = Noise2Noise(pairs="frames")
        (remark,) = algorithm.remarks(algorithm.scenes([volume], [Layout.choose("TYX", volume.shape)], []))
        assert float(remark.split("move by ")[1].split()[0]) == pytest.approx(pixels, abs=0.4)
        assert ("register" in remark) == (volume is moving)
    aligning = Noise2Noise(pairs="frames", register=True)
    (remark,) = aligning.remarks(aligning.scenes([moving], [Layout.choose("TYX", moving.shape)], []))
    assert remark.startswith("after aligning, ")
    assert float(remark.split("move by ")[1].split()[0]) < 0.5


def test_scenes_that_have_little_in_common_are_not_aligned() -> None:
    pytest.importorskip("skimage")
    spot = np.full((4, 4), 9.0)
    frames = [np.pad(spot, ((before, 60 - before), (30, 30))) for before in (10, 52)]
    volume = Volume(np.stack(frames), "TYX")
    with pytest.raises(ValueError, match="more than a quarter"):
        Noise2Noise(pairs="frames", register=True).scenes([volume], [Layout.choose("TYX", volume.shape)], [])
