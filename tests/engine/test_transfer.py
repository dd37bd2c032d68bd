"""Copies to and from the device: the values arrive, in order, and stay as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_ssdenoise.engine.transfer import Transfer

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


@pytest.mark.parametrize("device", DEVICES)
def test_values_arrive_and_return(device: str) -> None:
    transfer = Transfer(torch.device(device))
    planes = torch.arange(48.0).reshape(1, 1, 3, 4, 4)
    sent = transfer.up(planes)
    assert sent.device.type == device
    fetch = transfer.down({"mean": 2 * sent, "std": sent - 1})
    fetched = fetch()
    assert list(fetched) == ["mean", "std"]
    np.testing.assert_array_equal(fetched["mean"], 2 * planes.numpy())
    np.testing.assert_array_equal(fetched["std"], planes.numpy() - 1)
    np.testing.assert_array_equal(fetch()["mean"], fetched["mean"])
    assert transfer.down({})() == {}


@pytest.mark.parametrize("device", DEVICES)
def test_parts_of_larger_images_are_sent(device: str) -> None:
    transfer = Transfer(torch.device(device))
    whole = torch.arange(64.0).reshape(1, 1, 8, 8)
    sent = transfer.up(whole[:, :, ::2, 1:5])
    np.testing.assert_array_equal(transfer.down({"a": sent})()["a"], whole[:, :, ::2, 1:5].numpy())


@pytest.mark.parametrize("device", DEVICES)
def test_one_result_may_wait_while_the_next_is_computed(device: str) -> None:
    """As in a flow: each result is asked for after the next slab was sent."""
    transfer = Transfer(torch.device(device))
    waiting = None
    found = []
    for number in range(20):
        sent = transfer.up(torch.full((1, 1, 64, 64), float(number)))
        result = transfer.down({"mean": sent @ sent / 64})
        del sent
        if waiting:
            found.append(waiting()["mean"])
        waiting = result
    assert waiting
    found.append(waiting()["mean"])
    for number, image in enumerate(found):
        np.testing.assert_array_equal(image, np.full((1, 1, 64, 64), float(number * number), np.float32))
