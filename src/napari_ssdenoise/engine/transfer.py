"""Move slabs to the device and results back while it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


class Transfer:
    """Copies beside the computation: on CUDA from and to pinned memory, each way on a stream of its own.

    Elsewhere there is nothing to hide, and the copies are made at once.

    Parameters
    ----------
    device
        Where the network is.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: Any = None
        if device.type == "cuda":
            cuda: Any = torch.cuda  # partly untyped
            self._streams = (cuda.Stream(device), cuda.Stream(device))

    def up(self, planes: Tensor) -> Tensor:
        """Send planes to the device; what is computed next waits for them, and nothing else does."""
        if self._streams is None:
            return planes.to(self._device)
        with torch.cuda.stream(self._streams[0]):
            sent = planes.contiguous().pin_memory().to(self._device, non_blocking=True)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._streams[0])
        sent.record_stream(current)
        return sent

    def down(self, outputs: dict[str, Tensor]) -> Callable[[], dict[str, NDArray[np.float32]]]:
        """Start to fetch results; call what is returned to have them."""
        if self._streams is None:
            fetched = {name: image.cpu() for name, image in outputs.items()}
            return lambda: {name: image.numpy() for name, image in fetched.items()}
        stream = self._streams[1]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            fetched = {name: _fetch(image, stream) for name, image in outputs.items()}
            event = stream.record_event()

        def wait() -> dict[str, NDArray[np.float32]]:
            event.synchronize()
            return {name: image.numpy() for name, image in fetched.items()}

        return wait


def _fetch(image: Tensor, stream: torch.cuda.Stream) -> Tensor:
    """Copy to pinned memory on a stream, and keep the source until it is done."""
    image.record_stream(stream)
    target = torch.empty(image.shape, dtype=image.dtype, pin_memory=True)
    return target.copy_(image, non_blocking=True)
