"""HQ-SSL: blind on any path, better than its parts, sure of itself by the right amount, told the right noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import napari_ssdenoise as ssd
from napari_ssdenoise.algorithms import blindspot
from napari_ssdenoise.algorithms.blindspot import TOO_STRONG, BlindSpot
from napari_ssdenoise.engine.patches import Batch
from napari_ssdenoise.noise import DOUBT, NOISES, NoiseLevel
from napari_ssdenoise.quality._smooth import smooth
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

SMALL = {"depth": 1, "width": 8, "patch": 32, "batch": 4, "noise": "gaussian", "sigma": 10.0}


def waves(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a smooth image with values from 60 to 140."""
    grid = np.indices(shape).astype(np.float32)
    return (100 + 20 * np.sin(grid[-1] / 4) + 20 * np.cos(grid[-2] / 5 + grid.sum(0) / 9)).astype(np.float32)


def noisy(clean: Any, sigma: float = 10.0, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return (clean + np.random.default_rng(seed).normal(0, sigma, clean.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> tuple[ssd.TrainedModel, Any, Any]:
    clean = waves(160, 160)
    image = noisy(clean)
    return ssd.train(image, BlindSpot(**SMALL), steps=500, precision="float32"), image, clean


def test_the_posterior_is_better_than_both_of_its_sources(trained: Any) -> None:
    model, image, clean = trained
    mean, prior, std = model.predict(image, outputs=("mean", "prior", "std"))
    errors = {name: float(np.mean((found - clean) ** 2)) for name, found in (("mean", mean), ("prior", prior))}
    assert errors["mean"] < errors["prior"] < 100
    assert errors["mean"] < 20  # noise: 100
    np.testing.assert_array_equal(model.predict(image), mean)
    assert std.min() > 0
    assert std.max() < 10.0


def test_the_uncertainty_is_as_large_as_the_error(trained: Any) -> None:
    model, _, clean = trained
    mean, std = model.predict(noisy(clean, seed=1), outputs=("mean", "std"))
    error = np.abs(mean - clean)
    # Processors round differently, so that trainings part: on one it is 1.18.
    assert np.sqrt(np.mean(std**2)) == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.25)
    # Errors of a network that small are no normal distribution; benchmarks measure the coverage of real ones.
    assert 0.5 < (error < std).mean() < 0.8
    assert 0.75 < (error < 1.96 * std).mean() < 0.98


def test_white_noise_is_not_predicted_better_than_by_its_mean() -> None:
    image = np.random.default_rng(0).normal(100, 10, (96, 96)).astype(np.float32)
    trainer = ssd.Trainer(BlindSpot(**SMALL), image, steps=60)
    losses = [step.loss for step in trainer]
    prior = trainer.model.predict(image, outputs=("prior",))[0]
    assert np.mean((prior - image) ** 2) > 0.98 * image.var()
    # The likelihood of pure noise cannot exceed that of a prior without any doubt.
    assert np.mean(losses[-20:]) > 0.5 - 0.03


@pytest.mark.parametrize(
    ("shape", "spatial", "tile"),
    [((45, 53), "YX", None), ((45, 53), "YX", (16, 24)), ((11, 21, 19), "ZYX", None), ((11, 21, 19), "ZYX", (8, 8, 8))],
    ids=str,
)
def test_predictions_are_blind_at_borders_odd_sizes_and_tiles(shape: Any, spatial: str, tile: Any) -> None:
    axes = spatial
    model = ssd.train(Volume(noisy(waves(*shape)), axes), BlindSpot(**SMALL), steps=2, spatial=spatial)
    image = noisy(waves(*shape), seed=1)

    def prior(array: Any) -> Any:
        return model.predict(Volume(array, axes), outputs=("prior",), tile=tile, precision="float32")[0]

    before = prior(image)
    spots = [
        tuple(n // 2 for n in shape),
        (0,) * len(shape),
        tuple(n - 1 for n in shape),
        (*(1,) * (len(shape) - 1), 0),
    ]
    for spot in spots:
        changed = image.copy()
        changed[spot] += 500
        after = prior(changed)
        assert after[spot] == before[spot]
        assert np.abs(after - before).max() > 0


@pytest.mark.parametrize(("shape", "spatial", "tile"), [((61, 83), "YX", (16, 32)), ((13, 37, 45), "ZYX", (8, 16, 16))])
def test_tiled_equals_whole(shape: Any, spatial: str, tile: Any) -> None:
    image = Volume(noisy(waves(*shape)), spatial)
    model = ssd.train(image, BlindSpot(**SMALL), steps=3, spatial=spatial)
    names = model.algorithm.outputs
    whole = model.predict(image, outputs=names, precision="float32")
    parts = model.predict(image, outputs=names, precision="float32", tile=tile)
    for first, second in zip(whole, parts, strict=True):
        assert np.abs(first - second).max() < 1e-5 * np.ptp(first)


def test_no_target_stands_elsewhere_in_the_disturbed_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blindspot, "ADDED", 0.0)
    image = torch.rand((2, 1, 16, 16), generator=torch.Generator().manual_seed(0))
    told = torch.tensor([0.0, 0.1, 1e-3, 1e-6]).reshape(1, 4, 1, 1).expand(2, 4, 16, 16)
    for seed in range(5):
        algorithm = BlindSpot(noise="gaussian", sigma=1.0)
        rng = torch.Generator().manual_seed(seed)
        disturbed, unseen = algorithm._disturbed(torch.cat([image, told], 1), 1, rng)
        assert 0.8 < float(unseen.mean()) < 1
        for number in range(2):
            values = disturbed[number, 0]
            for y, x in unseen[number].nonzero().tolist():
                where = (values == image[number, 0, y, x]).nonzero().tolist()
                assert where in ([], [[y, x]])


@pytest.mark.parametrize("axis", [0, 2])
def test_auto_finds_the_noise_of_every_channel(axis: int) -> None:
    scene = waves(192, 192)
    rng = np.random.default_rng(0)
    film = np.stack([noisy(scene, 5.0), *(2.0 * rng.poisson(scene, (2, *scene.shape)).astype(np.float32) + 50)])
    volume = Volume(film, "CYX") if axis == 0 else Volume(film.transpose(1, 2, 0), "YXS")
    trainer = ssd.Trainer(BlindSpot(depth=1, width=8), volume, steps=1)
    assert trainer.algorithm.noise == "poisson-gaussian"
    means, stds = trainer.normalization.mean, trainer.normalization.std
    for channel, (intensity, variance) in enumerate(((100.0, 25.0), (250.0, 400.0))):
        slope, constant, *_ = trainer.conditions[channel]
        found = slope * (intensity - means[channel]) / stds[channel] + constant
        assert found * stds[channel] ** 2 == pytest.approx(variance, rel=0.15)
    single = ssd.Trainer(BlindSpot(depth=1, width=8), film[0], steps=1).algorithm
    assert single.noise == "gaussian"
    assert single.sigma == pytest.approx(5.0, rel=0.05)


def test_what_is_given_is_taken() -> None:
    image = noisy(waves(96, 96))
    settings = {"noise": "poisson-gaussian", "gain": 2.0, "offset": 90.0, "read_noise": 3.0}
    trainer = ssd.Trainer(BlindSpot(depth=1, width=8, **settings), image, steps=1)
    expected = NOISES["poisson-gaussian"].conditions(
        NoiseLevel(2.0, 90.0, 3.0), trainer.normalization.mean[0], trainer.normalization.std[0]
    )
    assert trainer.conditions == ((*expected, DOUBT),)
    assert {k: getattr(trainer.algorithm, k) for k in settings} == settings


def test_other_images_may_have_other_noise(tmp_path: Path) -> None:
    clean = waves(160, 160)
    quiet, loud = noisy(clean, 4.0), noisy(clean, 16.0)
    algorithm = BlindSpot(depth=1, width=8, noise="gaussian", per_image=True)
    trainer = ssd.Trainer(algorithm, [quiet, loud], steps=3)
    variances = torch.cat([trainer.sampler.draw(step).noisy[:, 2].flatten() for step in range(6)]).unique()
    assert {round(float(v) ** 0.5 * trainer.normalization.std[0]) for v in variances} == {4, 16}
    for _ in trainer:
        pass
    model = ssd.TrainedModel.load(trainer.model.save(tmp_path / "x.model"))
    spread = [float(model.predict(image, outputs=("std",))[0].mean()) for image in (quiet, loud)]
    assert spread[0] < 5 < spread[1]
    part = model.outputs_of(loud, (slice(0, 64), slice(0, 64)))["std"]
    assert float(part.mean()) == pytest.approx(spread[1], rel=0.1)


def test_a_saved_model_keeps_what_it_was_told(trained: Any, tmp_path: Path) -> None:
    model, image, _ = trained
    again = ssd.TrainedModel.load(model.save(tmp_path / "x.model"))
    assert again.conditions == model.conditions
    for first, second in zip(*(m.predict(image, outputs=("mean", "std")) for m in (model, again)), strict=True):
        np.testing.assert_array_equal(first, second)


def test_calibration_undoes_too_much_certainty(trained: Any) -> None:
    model, image, _ = trained
    told = torch.tensor(model.conditions[0]).reshape(1, 4, 1, 1).expand(1, 4, 160, 160)
    pixels = torch.from_numpy(model.normalization.apply(image[None]))[None]
    held = Batch(torch.cat([pixels, told], 1), pixels)
    algorithm, network = model.algorithm, model.geometry.build(model.algorithm).eval()
    network.load_state_dict(model.network.state_dict())
    network.requires_grad_(False)
    algorithm.calibrate(network, [held])
    right = float(algorithm.loss(network, held, torch.Generator()))
    network.head.weight.data[1:] /= 2
    network.head.bias.data[1:] /= 2
    assert float(algorithm.loss(network, held, torch.Generator())) > right
    algorithm.calibrate(network, [held])
    assert float(algorithm.loss(network, held, torch.Generator())) == pytest.approx(right, abs=3e-3)


def test_calibration_does_not_depend_on_how_many_candidates_are_tried_together(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, image, _ = trained
    told = torch.tensor(model.conditions[0]).reshape(1, 4, 1, 1).expand(1, 4, 40, 40)
    pixels = torch.from_numpy(model.normalization.apply(image[None, :40, :40]))[None]
    found = []
    for together in (1, 1 << 18):
        monkeypatch.setattr("napari_ssdenoise.algorithms.blindspot.TRIED_TOGETHER", together)
        network = model.geometry.build(model.algorithm).eval().requires_grad_(False)
        network.load_state_dict(model.network.state_dict())
        model.algorithm.calibrate(network, [Batch(torch.cat([pixels, told], 1), pixels)])
        found.append((*network.head.bias.data, *network.scale.logarithm.data))
    assert found[0] == found[1]


def test_noise_that_explains_more_than_there_is_becomes_weaker(trained: Any) -> None:
    model, image, _ = trained
    pixels = torch.from_numpy(model.normalization.apply(image[None]))[None]
    shares = []
    for too_much in (0.7, 1.0, 1.5):
        told = torch.tensor(model.conditions[0]).reshape(1, 4, 1, 1).expand(1, 4, 160, 160).clone()
        told[:, :3] *= too_much
        network = model.geometry.build(model.algorithm).eval().requires_grad_(False)
        network.load_state_dict(model.network.state_dict())
        network.scale.logarithm.zero_()
        model.algorithm.calibrate(network, [Batch(torch.cat([pixels, told], 1), pixels)])
        assert network.scale.logarithm[0] == network.scale.logarithm[2]
        shares.append(float(network.scale.logarithm[0].exp()))
    assert shares[0] == 1
    assert shares[1] >= 0.9
    assert shares[2] == pytest.approx(1 - TOO_STRONG)


@pytest.mark.parametrize("noise", ["poisson", "rician", "impulse"])
def test_every_kind_of_noise_can_be_learnt(noise: str) -> None:
    clean = torch.from_numpy(waves(1, 1, 96, 96) - 50)
    level = {
        "rician": NoiseLevel(read_noise=10.0),
        "poisson": NoiseLevel(gain=1.0),
        "impulse": NoiseLevel(share=0.2, high=100),
    }
    image = NOISES[noise].corrupt(clean, level[noise], torch.Generator().manual_seed(0))[0, 0].numpy()
    given = {"rician": {"sigma": 10.0}, "poisson": {"gain": 1.0, "offset": 0.0}, "impulse": {"impulse_percent": 20.0}}
    model = ssd.train(image, BlindSpot(**{**SMALL, "sigma": None, "noise": noise, **given[noise]}), steps=200)
    mean, std = model.predict(image, outputs=("mean", "std"))
    truth = clean[0, 0].numpy()
    assert np.isfinite(std).all()
    assert np.mean((mean - truth) ** 2) < 0.6 * np.mean((image - truth) ** 2)


def test_colours_are_learnt_together() -> None:
    clean = np.stack([waves(64, 64), waves(64, 64), 200 - waves(64, 64)], -1)
    image = Volume(noisy(clean), "YXS")
    model = ssd.train(image, BlindSpot(**SMALL), steps=150)
    mean, std = model.predict(image, outputs=("mean", "std"))
    assert mean.shape == std.shape == clean.shape
    assert np.mean((mean - clean) ** 2) < 60


def test_noise_that_rows_share_is_removed_on_every_second_row() -> None:
    clean, rng = waves(128, 128), np.random.default_rng(0)
    even = rng.normal(0, 7, (129, 128))
    image = (clean + even[1:] + even[:-1]).astype(np.float32)  # of 10, shared by a pixel and the next row's
    model = ssd.train(image, BlindSpot(**SMALL, lattice="2,1"), steps=150)
    found, whole = model.predict(image), model.predict(image, tile=(64, 64))
    assert np.mean((found - clean) ** 2) < 40  # noise: 98
    np.testing.assert_allclose(found, whole, atol=0.05)


def test_rows_of_a_stack_that_share_noise_are_denoised_with_the_slices_beside() -> None:
    clean, rng = np.stack([waves(64, 64)] * 5), np.random.default_rng(0)
    even = rng.normal(0, 7, (5, 65, 64))
    stack = ssd.Volume((clean + even[:, 1:] + even[:, :-1]).astype(np.float32), "ZYX")
    model = ssd.train(stack, BlindSpot(**SMALL, lattice="2,1", slices=1), spatial="ZYX", steps=150)
    found, whole = model.predict(stack), model.predict(stack, tile=(3, 32, 32))
    assert np.mean((found - clean) ** 2) < 40  # noise: 98
    np.testing.assert_allclose(found, whole, atol=0.05)


@pytest.mark.parametrize("photons", [False, True])
def test_noise_that_neighbours_share_is_measured_as_strong_as_it_is(photons: bool) -> None:
    clean, rng = waves(256, 256), np.random.default_rng(0)
    level = np.sqrt(clean) if photons else 10.0
    shared = smooth(rng.normal(0, 1, clean.shape), 1.3)  # differences of neighbours show a third of its variance
    image = Volume((clean + level * shared / shared.std()).astype(np.float32), "YX")
    fitted = ssd.Trainer(BlindSpot(**SMALL, lattice="2"), image, steps=1).algorithm
    offset, read_noise = fitted.offset or 0.0, fitted.read_noise or fitted.sigma or 0.0
    variance = (fitted.gain or 0.0) * (clean.mean() - offset) + read_noise**2
    assert variance == pytest.approx(np.mean(level**2), rel=0.3)


def test_sub_lattices_are_not_turned_unless_they_are_square() -> None:
    assert BlindSpot(lattice="2").symmetries("ZYX") == ("Z", "Y", "X", "YX")
    assert BlindSpot(lattice="2,1").symmetries("YX") == ("Y", "X")


def test_the_weights_that_come_with_the_program_serve_sub_lattices() -> None:
    trainer = ssd.Trainer(BlindSpot(lattice="2"), noisy(waves(96, 96)), steps=1)
    assert trainer.algorithm.is_warm


@pytest.mark.parametrize(("start", "sign"), [(6.0, 1), (18.0, -1)])
def test_the_noise_may_be_learnt_from_a_wrong_start_on(start: float, sign: int) -> None:
    algorithm = BlindSpot(**{**SMALL, "sigma": start}, learn_noise=True, learning_rate=5e-3)
    model = ssd.train(noisy(waves(128, 128)), algorithm, steps=150)
    logarithm = model.network.scale.logarithm.detach()
    assert sign * float(logarithm[1]) > 0.02  # towards the true 10


def test_a_long_budget_ends_before_the_noise_is_learnt_by_heart() -> None:
    image = np.random.default_rng(0).normal(100, 10, (64, 64)).astype(np.float32)
    large = ssd.Trainer(BlindSpot(), np.tile(image, (8, 8)), seconds=1e6)
    small = ssd.Trainer(BlindSpot(), image, seconds=1e6)
    assert small.steps is not None
    assert large.steps is not None
    assert 500 <= small.steps < large.steps < 10_000
    assert ssd.Trainer(BlindSpot(), image, steps=9000).steps == 9000, "what is asked for is done"


def test_magnitudes_in_stacks_begin_with_the_weights_of_slices_and_see_those_beside(tmp_path: Path) -> None:
    clean = torch.from_numpy(waves(1, 1, 6, 64, 64))
    level = NoiseLevel(read_noise=20.0)
    noisy_stack = NOISES["rician"].corrupt(clean, level, torch.Generator().manual_seed(0))[0, 0].numpy()
    volume = Volume(noisy_stack.astype(np.float32), "ZYX")
    trainer = ssd.Trainer(BlindSpot(noise="rician", sigma=20.0), volume, steps=4, spatial="ZYX")
    assert trainer.algorithm.is_warm
    assert trainer.algorithm.slices == 2
    for _ in trainer:
        pass
    model = trainer.model
    made = model.predict(volume, precision="float32")
    truth = clean[0, 0].numpy()
    assert np.mean((made - truth) ** 2) < 0.25 * np.mean((noisy_stack - truth) ** 2)
    tiled = model.predict(volume, precision="float32", tile=(2, 32, 32))
    np.testing.assert_allclose(tiled, made, rtol=1e-4, atol=1e-2)
    again = ssd.TrainedModel.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(again.predict(volume, precision="float32"), made)
    assert (
        ssd.Trainer(BlindSpot(noise="rician", sigma=20.0, slices=0), volume, steps=1, spatial="ZYX").algorithm.slices
        == 0
    )


@pytest.mark.parametrize(
    ("chosen", "slices", "warm"),
    [
        ({"noise": "gaussian", "sigma": 20.0}, 2, True),
        ({"noise": "poisson", "gain": 1.0, "offset": 0.0}, 2, True),
        ({"noise": "gaussian", "sigma": 20.0, "slices": 1}, 1, True),
        ({"noise": "gaussian", "sigma": 20.0, "from_scratch": True}, None, False),
        ({"noise": "gaussian", "sigma": 20.0, "width": 8}, None, False),
        ({"noise": "impulse", "impulse_percent": 10.0}, None, False),
        ({"noise": "rician", "sigma": 20.0, "from_scratch": True}, 2, False),
    ],
)
def test_stacks_are_looked_at_slice_by_slice_where_trained_weights_fit(
    chosen: dict[str, Any], slices: int | None, warm: bool
) -> None:
    stack = Volume(np.random.default_rng(0).normal(100, 20, (6, 64, 64)).astype(np.float32), "ZYX")
    algorithm = ssd.Trainer(BlindSpot(**chosen), stack, steps=1, spatial="ZYX").algorithm
    assert algorithm.slices == slices
    assert algorithm.is_warm == warm


@pytest.mark.parametrize("from_scratch", [False, True])
def test_the_usual_memory_is_enough_for_stacks_averaged_over_flips(from_scratch: bool) -> None:
    stack = Volume(np.random.default_rng(0).normal(size=(16, 64, 64)).astype(np.float32), "ZYX")
    algorithm = BlindSpot(noise="gaussian", sigma=1.0, from_scratch=from_scratch)
    model = ssd.Trainer(algorithm, stack, steps=1).model
    large = Volume(np.zeros((64, 512, 512), np.float32), "ZYX")
    for augment in (False, True):
        assert model.plan(large, precision="float32", augment=augment).bytes < 8e9
    if from_scratch:  # in all directions
        with pytest.raises(MemoryError, match="Allow more memory"):
            model.plan(large, precision="float32", augment=True, memory="4 GB")


def test_a_saved_model_must_know_its_noise() -> None:
    BlindSpot(noise="rician").require_settled()
    with pytest.raises(ValueError, match="which kind of noise"):
        BlindSpot().require_settled()
