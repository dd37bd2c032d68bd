"""From undersampled k-space to images: maps, methods, and the choice among them without the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from napari_ssdenoise import psnr
from napari_ssdenoise.reconstruction import Reconstructor, reconstruct
from napari_ssdenoise.reconstruction._maps import calibration
from napari_ssdenoise.reconstruction._problem import hold_out, line_axis, prepare
from napari_ssdenoise.reconstruction._tune import best, tune
from napari_ssdenoise.reconstruction._wavelet import compressed_sensing, compressed_sensing_path

MakeScan = Callable[..., Any]


def quality(image: Any, scan: Any) -> float:
    return psnr(np.abs(np.asarray(image)), np.abs(scan.image), float(np.abs(scan.image).max()))


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_maps_are_those_of_the_coils_up_to_a_phase(make_scan: MakeScan) -> None:
    scan = make_scan(noise=0.001)
    problem = prepare(scan.measured, np.broadcast_to(scan.mask[:, None], scan.image.shape))
    assert problem.maps.shape == (1, *scan.maps.shape)
    inside = np.abs(scan.image) > 0.1
    agreement = np.abs((problem.maps[0].numpy().conj() * scan.maps).sum(0))
    assert agreement[inside].min() > 0.98
    assert np.median(agreement[inside]) > 0.999
    np.testing.assert_allclose(np.square(np.abs(problem.maps[0].numpy())).sum(0), 1, atol=1e-4)


def test_an_object_larger_than_the_field_of_view_gets_a_second_set_of_maps(make_scan: MakeScan) -> None:
    scan = make_scan(noise=0.001, shape=(64, 96), size=0.9)
    full = scan.kspace[:, :, ::2]  # half the field of view along X
    problem = prepare(full, np.ones(full.shape[1:], bool))
    assert problem.maps.shape[0] == 2
    assert problem.wrapped > 0.2
    operator, data = problem.sense()
    both = problem.error(fit(operator, data), problem.mask)
    first = prepare(full, problem.mask.numpy(), problem.maps[:1].numpy())
    assert both < 0.5 * first.error(fit(*first.sense()), first.mask)


def fit(operator: Any, data: Any) -> Any:
    from napari_ssdenoise.ops.kspace import conjugate_gradients

    right = operator.adjoint(data)
    return conjugate_gradients(lambda x: operator.normal(x) + 1e-4 * x, right, torch.zeros_like(right), steps=50)


def test_the_centre_is_the_largest_sampled_rectangle() -> None:
    mask = np.zeros((40, 30), bool)
    mask[11:29] = True
    assert calibration(mask, 32) == (slice(11, 29), slice(0, 30))
    assert calibration(mask, 12) == (slice(14, 26), slice(9, 21))


@pytest.mark.parametrize("axis", [0, 1, None])
def test_held_out_lines_are_acquired_spread_out_and_not_of_the_centre(axis: int | None, make_scan: MakeScan) -> None:
    scan = make_scan(shape=(64, 64))
    lines = np.broadcast_to(scan.mask[:, None], (64, 64))
    mask = {0: lines, 1: lines.T}.get(axis, lines | (np.random.default_rng(0).random((64, 64)) < 0.3))
    problem = prepare(scan.kspace * mask, mask)
    assert line_axis(problem.mask) == axis
    folds = hold_out(problem, 2, rng())
    assert len(folds) == 2
    assert not (folds[0] & folds[1]).any()
    outside = problem.mask & ~problem.centre
    for held in folds:
        assert (held & ~outside).sum() == 0
        assert 0.08 < float(held.sum() / outside.sum()) < 0.2
        assert axis is None or line_axis(held) == axis


def test_compressed_sensing_beats_cg_sense_beats_zero_filling(make_scan: MakeScan) -> None:
    scan = make_scan()
    found = {m: reconstruct(scan.measured, m) for m in ("zero-filled", "cg-sense", "cs")}
    scores = [quality(r.image[0], scan) for r in found.values()]
    assert scores[0] + 2 < scores[1]
    assert scores[1] + 2 < scores[2]
    errors = [r.error for r in found.values()]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("noise", [0.002, 0.03])
def test_the_strength_is_chosen_without_the_truth_as_the_truth_would(noise: float, make_scan: MakeScan) -> None:
    scan = make_scan(noise=noise)
    problem = prepare(scan.measured, np.broadcast_to(scan.mask[:, None], scan.image.shape))
    folds = hold_out(problem, 2, rng())
    tried: dict[float, list[float]] = {}
    for _ in tune(problem, folds, lambda p: compressed_sensing_path(p, rng()), tried):
        pass
    chosen, _ = best(tried, 2)
    scores = {}
    for threshold in sorted({chosen, *(0.024 * 2.0 ** np.arange(-5, 1))}):
        *_, image = compressed_sensing(problem, threshold, rng())
        scores[threshold] = quality(image[0] * problem.scale, scan)
    assert scores[chosen] > max(scores.values()) - 0.6


def test_auto_takes_the_method_that_predicts_held_out_lines(make_scan: MakeScan) -> None:
    scan = make_scan()
    steps = list(reconstructor := Reconstructor(np.stack([scan.measured] * 2), seed=3))
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    assert {s.method for s in steps} == {"coil maps", "zero-filled", "cg-sense", "cs"}
    result = reconstructor.result
    assert result.methods == ("cs", "cs")
    for found in result.slices:
        assert set(found.errors) == {"zero-filled", "cg-sense", "cs"}
        assert found.error == min(found.errors.values())
    best_score = max(quality(reconstruct(scan.measured, m).image[0], scan) for m in ("zero-filled", "cg-sense", "cs"))
    assert quality(result.image[0], scan) > best_score - 0.3
    assert (result.volume().axes, result.maps_volume().axes, result.mask_volume().axes) == ("ZYX", "ZCYX", "ZYX")
    np.testing.assert_array_equal(result.mask_volume()[0], np.broadcast_to(scan.mask[:, None], scan.image.shape))


def test_results_are_in_the_units_of_kspace_and_repeatable(make_scan: MakeScan) -> None:
    scan = make_scan()
    one, other = reconstruct(scan.measured, "cs"), reconstruct(1e6 * scan.measured, "cs")
    np.testing.assert_allclose(np.abs(other.image), 1e6 * np.abs(one.image), rtol=0.05, atol=2e4)
    np.testing.assert_array_equal(reconstruct(scan.measured, "cs").image, one.image)


def test_given_maps_are_used_and_need_to_fit(make_scan: MakeScan) -> None:
    scan = make_scan()
    image = reconstruct(scan.measured, "cs", maps=scan.maps).image[0]
    assert np.corrcoef(image.real.ravel(), scan.image.real.ravel())[0, 1] > 0.99  # the phase is that of the maps
    with pytest.raises(ValueError, match="coil maps"):
        reconstruct(scan.measured, maps=scan.maps[:2])


def test_a_single_coil_is_reconstructed_without_cg_sense(make_scan: MakeScan) -> None:
    scan = make_scan(coils=1, others=30)
    result = reconstruct(scan.measured)
    assert set(result.slices[0].errors) == {"zero-filled", "cs"}
    with pytest.raises(ValueError, match="single coil"):
        reconstruct(scan.measured, "cg-sense")


def test_all_of_kspace_gives_the_image(make_scan: MakeScan) -> None:
    scan = make_scan(noise=0.0005)
    assert quality(reconstruct(scan.kspace).image[0], scan) > 35


def test_kspace_without_a_sampled_centre_is_refused(make_scan: MakeScan) -> None:
    scan = make_scan()
    mask = scan.mask.copy()
    mask[30:34] = False
    with pytest.raises(ValueError, match=r"slice 0: the centre of k-space .*autocalibration"):
        reconstruct(scan.kspace, mask=mask)


def test_kspace_that_is_not_centred_is_refused(make_scan: MakeScan) -> None:
    scan = make_scan()
    with pytest.raises(ValueError, match="fftshift"):
        reconstruct(np.fft.ifftshift(scan.kspace, (1, 2)))


def test_methods_that_are_not_known_are_refused(make_scan: MakeScan) -> None:
    with pytest.raises(ValueError, match="choose one of auto, zero-filled"):
        reconstruct(make_scan().measured, "magic")


def test_a_network_learns_from_the_slice_and_is_judged_by_lines_it_never_saw(make_scan: MakeScan) -> None:
    scan = make_scan(shape=(48, 32), others=14, centre=12)
    result = reconstruct(scan.measured, "auto", steps=12)
    errors = result.slices[0].errors
    assert set(errors) == {"zero-filled", "cg-sense", "cs", "zs-ssdu", "blend"}
    assert errors["blend"] <= min(errors["zs-ssdu"], errors["cs"]) + 0.02
    assert errors["zs-ssdu"] < errors["cg-sense"]
    alone = reconstruct(scan.measured, "zs-ssdu", steps=12)
    assert alone.methods == ("zs-ssdu",)
    candidates = [quality(alone.image[0], scan), quality(reconstruct(scan.measured, "cs").image[0], scan)]
    assert quality(result.image[0], scan) > max(candidates) - 0.5


def test_held_out_lines_are_in_no_example(make_scan: MakeScan, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_ssdenoise.reconstruction import _zero_shot

    scan = make_scan(shape=(48, 32), others=14, centre=12)
    problem = prepare(scan.measured, np.broadcast_to(scan.mask[:, None], scan.image.shape))
    held = hold_out(problem, 1, rng())[0]
    learnt = []
    monkeypatch.setattr(_zero_shot, "_update", lambda n, a, o, example, step: learnt.append(example))
    for _ in (run := _zero_shot.ZeroShot(problem, held, 0.003, rng(), 30)).run():
        pass
    assert len(learnt) == 30
    assert run.error > 0
    for example in learnt:
        assert not (example.operator.mask & held).any()
        assert not (example.target.mask & held).any()
        assert not (example.operator.mask & example.target.mask).any()


def test_steps_are_of_methods_that_learn(make_scan: MakeScan) -> None:
    with pytest.raises(ValueError, match="zs-ssdu and auto only"):
        reconstruct(make_scan().measured, "cs", steps=5)
