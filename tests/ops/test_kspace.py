"""The operators of MRI: transforms, coils, sampling, and the equations they lead to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_ssdenoise.ops.kspace import Sense, conjugate_gradients, fft, ifft, root_sum_of_squares


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(8, 6), (7, 5), (7, 6)])
def test_the_transform_is_centred_and_orthonormal(shape: tuple[int, int]) -> None:
    image = noise(*shape)
    y, x = (np.arange(n) - n // 2 for n in shape)
    kernel_y = np.exp(-2j * np.pi * np.outer(y, y) / shape[0]) / np.sqrt(shape[0])
    kernel_x = np.exp(-2j * np.pi * np.outer(x, x) / shape[1]) / np.sqrt(shape[1])
    np.testing.assert_allclose(fft(image), kernel_y @ image.numpy() @ kernel_x, atol=1e-5)
    np.testing.assert_allclose(ifft(fft(image)), image, atol=1e-6)
    constant = torch.ones(shape, dtype=torch.complex64)
    assert fft(constant).abs().argmax() == shape[0] // 2 * shape[1] + shape[1] // 2


def masks(shape: tuple[int, int]) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    rows, columns = torch.rand(shape[0], 1, generator=rng) < 0.5, torch.rand(1, shape[1], generator=rng) < 0.5
    samples = torch.rand(shape, generator=rng) < 0.5
    everything = torch.ones(shape, dtype=torch.bool)
    return {"rows": rows & everything, "columns": columns & everything, "samples": samples, "both": rows & columns}


@pytest.mark.parametrize("sets", [1, 2])
@pytest.mark.parametrize("kind", ["rows", "columns", "samples", "both"])
@pytest.mark.parametrize("shape", [(16, 12), (15, 9)])
def test_an_image_is_measured_as_the_definition_says(shape: tuple[int, int], kind: str, sets: int) -> None:
    mask, maps, image = masks(shape)[kind], noise(sets, 3, *shape), noise(sets, *shape, seed=2)
    operator = Sense(maps, mask)
    measured = fft((maps * image[:, None]).sum(0)) * mask
    torch.testing.assert_close(operator.forward(image), operator.prepare(measured), atol=1e-5, rtol=1e-4)
    assert operator.axes == {"rows": (-2,), "columns": (-1,)}.get(kind, (-2, -1))
    data = noise(3, *shape, seed=3)
    one = torch.vdot(operator.forward(image).flatten(), data.flatten())
    other = torch.vdot(image.flatten(), operator.adjoint(data).flatten())
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    back = (ifft(measured) * maps.conj()).sum(1)
    torch.testing.assert_close(operator.normal(image), back, atol=1e-4, rtol=1e-4)


def test_images_of_a_batch_are_measured_each_for_itself() -> None:
    operator = Sense(noise(1, 3, 8, 6), masks((8, 6))["rows"])
    images = noise(4, 1, 8, 6, seed=5)
    torch.testing.assert_close(operator.forward(images)[2], operator.forward(images[2]))
    torch.testing.assert_close(operator.normal(images)[1], operator.normal(images[1]))


def test_conjugate_gradients_solve_each_image_for_itself() -> None:
    operator = Sense(noise(1, 3, 8, 6), masks((8, 6))["rows"])
    right = noise(2, 1, 8, 6, seed=4) * torch.tensor([1.0, 100.0])[:, None, None, None]
    found = conjugate_gradients(lambda x: operator.normal(x) + 0.5 * x, right, torch.zeros_like(right), steps=60)
    torch.testing.assert_close(operator.normal(found) + 0.5 * found, right, atol=1e-3, rtol=1e-4)


def test_the_root_sum_of_squares_is_over_coils() -> None:
    coils = noise(2, 3, 4, 5)
    np.testing.assert_allclose(root_sum_of_squares(coils)[1], np.linalg.norm(coils[1], axis=0), rtol=1e-6)
