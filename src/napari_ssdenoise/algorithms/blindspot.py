"""HQ-SSL (Laine, Karras, Lehtinen, Aila 2019): a blind-spot network, and the noisy pixel back through Bayes' rule."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from napari_ssdenoise.algorithms._warm_start import WarmStarted, shipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Generator, Tensor

    from napari_ssdenoise.algorithms._base import Conditions, Network
    from napari_ssdenoise.engine.patches import Batch
    from napari_ssdenoise.engine.scenes import View
    from napari_ssdenoise.noise import NoiseModel
    from napari_ssdenoise.normalize import Normalization

# Against learning the noise of a single image by heart (benchmarks/README.md): in training, a share of the input's
# pixels is replaced by others so many pixels away, and more noise is added, in parts of the image's own deviation.
SHUFFLED = 0.05
SHUFFLE_RADIUS = 2
ADDED = 0.4
# Where the spared pixels vary no more than the noise alone, that was taken for too strong: no network predicts a pixel
# better than the noise of its neighbours lets it. A measured variance is believed to be at most so much too large.
TOO_STRONG = 0.12
STIRRED = 1.0  # of the noise's deviation: by how much pixels are changed to see how much of it reaches the prediction
SURE = 0.3  # of that measure: how far the logarithm of the truth may be from it
SMOOTHEST = 0.1  # part of the pixels that are predicted most surely
CALIBRATED_ON = 120_000  # pixels that were learnt from, beside the spared ones
COARSE_TO_FINE = ((16, 40), (4, 10), (1, 1))  # of all candidates: on every so many pixels, and so many go on
TRIED_TOGETHER = 1 << 18  # pixels times candidates: what fits a processor's cache is fastest
SLICES = 2  # on either side, where slices are looked at together
EPOCHS = 240  # on one image of 512 x 512, its result is best after about so many, and 0.1 dB worse after twice as many


@dataclass(frozen=True, kw_only=True)
class BlindSpot(WarmStarted):
    """Learn from one noisy image to predict every pixel from all others, then add what the noisy pixel itself tells.

    Assumes noise of zero mean that is independent between pixels and of a known kind, and a signal that neighbouring
    pixels predict. Gives the posterior mean, the network's own mean and the posterior standard deviation.
    """

    key: ClassVar[str] = "blindspot"
    title: ClassVar[str] = "Blind spot (HQ-SSL)"
    reference: ClassVar[str] = (
        "Laine, Karras, Lehtinen and Aila: High-quality self-supervised deep image denoising. 2019."
    )
    doi: ClassVar[str] = "10.48550/arXiv.1901.10277"
    outputs: ClassVar[tuple[str, ...]] = ("mean", "prior", "std")
    # A deviation that is right in the mean square makes intervals that hold too often (74 % for 68 %): most errors are
    # smaller, a few much larger than a normal distribution has them. This much of it serves both intervals.
    tails: ClassVar[float] = 0.95
    # A mirrored image would show pixels near the border to themselves.
    mirrored: ClassVar[bool] = False
    momenta: ClassVar[tuple[float, float]] = (0.9, 0.99)
    steady: ClassVar[float] = 0.5
    weight_decay: ClassVar[float] = 0.2
    spares: ClassVar[bool] = True
    # A camera makes most colours of a pixel out of its neighbours: colours share noise, which the posterior of all at
    # once takes for signal (benchmarks/README.md). And the weights that come with the program are of one channel.
    colours_apart: ClassVar[bool] = True
    weights: ClassVar[str] = "denoising-blindspot.safetensors"

    learning_rate: Annotated[
        float,
        {"min": 1e-5, "max": 0.1, "step": 1e-4, "label": "Learning rate", "advanced": True},
        "Adam's step size before annealing.",
    ] = 2e-3
    noise: Annotated[
        Literal["auto", "gaussian", "poisson", "poisson-gaussian", "rician", "impulse"],
        {"label": "Noise"},
        "Kind of noise: poisson-gaussian for cameras, rician for magnitude MRI; auto looks at the image.",
    ] = "auto"
    sigma: Annotated[
        float | None,
        {"min": 0.0, "step": 0.01, "label": "Noise deviation"},
        "Standard deviation of gaussian (or rician) noise, in the image's units.",
    ] = None
    gain: Annotated[
        float | None,
        {"min": 0.0, "step": 0.01, "label": "Gain"},
        "Of poisson noise: how much the variance grows for each count of intensity.",
    ] = None
    offset: Annotated[
        float | None,
        {"step": 1.0, "label": "Camera offset"},
        "Intensity without light.",
    ] = None
    read_noise: Annotated[
        float | None,
        {"min": 0.0, "step": 0.1, "label": "Read noise"},
        "Standard deviation of the noise without light, in the image's units.",
    ] = None
    impulse_percent: Annotated[
        float | None,
        {"min": 0.1, "max": 95.0, "step": 1.0, "label": "Replaced pixels (%)", "advanced": True},
        "Share of the pixels that impulse noise replaces.",
    ] = None
    per_image: Annotated[
        bool,
        {"label": "Noise differs per image", "advanced": True},
        "Estimate the noise of each image by itself, of those that the model is applied to later as well.",
    ] = False
    lattice: Annotated[
        str,
        {"label": "Sub-lattices", "advanced": True},
        "Where neighbouring pixels share noise: let the network see every so many pixels only, given as one number, or "
        "two for Y,X. 2 if the noise reaches the next pixel; 1 sees all.",
    ] = "1"
    learn_noise: Annotated[
        bool,
        {"label": "Learn the noise", "advanced": True},
        "Correct the noise parameters by training, from the estimated or given ones on.",
    ] = False
    slices: Annotated[
        int | None,
        {"min": 0, "max": 8, "step": 1, "label": "Slices beside", "advanced": True},
        "In stacks: convolve within slices, and look at so many on either side as well; auto: 2 where the weights that "
        "come with the program fit, and for rician noise; else convolve in all directions, which takes many times as "
        "long.",
    ] = None
    depth: Annotated[
        int,
        {"min": 1, "max": 5, "step": 1, "label": "Network depth", "advanced": True},
        "How many times the network halves the image; deeper sees further and costs more.",
    ] = 3
    width: Annotated[
        int,
        {"min": 4, "max": 256, "step": 4, "label": "Filters", "advanced": True},
        "Filters of every layer in each direction.",
    ] = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._spacing(2)

    def batch_size(self, patch: Sequence[int]) -> int:
        # Every pixel is learnt from: many small steps gain more than few large ones (benchmarks/README.md).
        return max(2 if self.slices is None else 1, 16384 // prod(patch))

    def build(self, channels: int, pooled: Sequence[bool]) -> Any:
        from napari_ssdenoise.networks.blindspot import BlindSpotUNet
        from napari_ssdenoise.noise import CONDITIONS, covariance_entries

        network = BlindSpotUNet(
            len(pooled),
            channels,
            channels + covariance_entries(channels),
            CONDITIONS * channels,
            depth=self.depth,
            width=self.width,
            pooled=pooled,
            lattice=self._spacing(len(pooled)),
            slices=self.slices if len(pooled) > 2 else None,
        )
        network.scale.logarithm.requires_grad_(self.learn_noise)
        return network

    def most_steps(self, epochs: float) -> int | None:
        """Stop after `EPOCHS`: from then on, the network learns the noise of small images by heart."""
        return max(500, round(EPOCHS / epochs))

    def fitted(
        self, views: Sequence[View], normalization: Normalization, rng: np.random.Generator
    ) -> tuple[Self, Conditions]:
        """Choose the kind of noise, and estimate what was left open, channel by channel."""
        from napari_ssdenoise.algorithms._noise_fit import filled_in, find_noise

        *_, y, x = self._spacing(2)
        known = find_noise(self, views, normalization, rng, (y, x))
        conditions = known.conditions(normalization, views[0].channels)
        # What differs from image to image stays open.
        chosen = replace(self, **({"noise": known.kind} if self.per_image else filled_in(known)))
        if self.slices is None and len(views[0].layout.spatial) == 3:
            sliced = replace(chosen, slices=SLICES).begun_for(views)
            if known.kind == "rician" or sliced.is_warm:
                return sliced, conditions
        return chosen.begun_for(views), conditions

    def require_settled(self) -> None:
        """Check that the kind of noise is known: `read_out` goes by it."""
        if self.noise == "auto":
            raise ValueError("it does not say which kind of noise it has learnt")

    def symmetries(self, spatial: str) -> tuple[str, ...]:
        """Leave out what would turn the sub-lattices."""
        *_, y, x = self._spacing(2)
        return tuple(name for name in super().symmetries(spatial) if name != "YX" or y == x)

    def begun_for(self, views: Sequence[View]) -> Self:
        stack = views[0].channels == 1 and len(views[0].layout.spatial) == 3 and self.slices is not None
        return self if self.from_scratch or (stack and self._fits()) else super().begun_for(views)

    def begin(self, network: Any, views: Sequence[View]) -> None:
        if self.is_warm:
            network.from_flat(shipped(self.weights))

    def _fits(self) -> bool:
        return (self._is_camera or self.noise == "rician") and super()._fits()

    @property
    def _is_camera(self) -> bool:
        """Whether the noise is of one of the kinds that cameras have."""
        return self.noise in ("gaussian", "poisson", "poisson-gaussian")

    def loss(self, network: Network, batch: Batch, rng: Generator) -> Tensor:
        """Return the negative log-likelihood of the noisy pixels (Laine et al., eq. 4)."""
        channels = batch.target.shape[1]
        noisy, weight = batch.noisy, batch.learnt
        if network.training:
            noisy, unseen = self._disturbed(noisy, channels, rng)
            weight = unseen if weight is None else unseen * weight
        model, raw, conditions = self._split(network(noisy).float(), channels)
        prior = model.prior(raw, conditions)
        likelihood = model.log_likelihood(batch.target.float(), prior, conditions)
        loss = -(likelihood.mean() if weight is None else (weight * likelihood).sum() / weight.sum())
        if self.learn_noise:
            # The same noisy image is explained by less noise and less certainty as well: prefer noise (appendix).
            loss = loss - 0.1 * model.deviation(prior.mean, conditions).mean()
        return loss

    def calibrate(self, network: Any, batches: Sequence[Batch]) -> None:
        """Scale the network's variance, and add to it, so that it explains the noisy pixels best.

        Of a single image, a network learns some noise by heart, and becomes too sure of itself: most of all where the
        image is smooth, and it says that there is hardly any doubt. The spared pixels tell how much that is; a camera's
        noise that explains more than there is becomes weaker.
        """
        import torch

        from napari_ssdenoise.noise import DOUBT

        channels = batches[0].target.shape[1]
        outputs = [network(batch.noisy).float() for batch in batches]
        raw, target, spared = _looked_at(outputs, batches)
        model, raw, conditions = self._split(raw, channels)
        target, weight = _as_if_spared(model, raw, conditions, target, spared)

        def losses(candidates: Tensor, every: int) -> Tensor:
            scale, share, added = candidates.T[..., None, None]
            seen, noise = raw[..., ::every], conditions[..., ::every]
            wider = torch.cat([seen[:, :channels].expand(len(scale), -1, -1), scale * seen[:, channels:]], 1)
            doubt = added.expand(-1, channels, noise.shape[-1])
            now = torch.cat([share * noise[:, :-channels], doubt], 1)
            likelihood = model.log_likelihood(target[..., ::every], model.prior(wider, now), now)
            doubted = ((added * share / least).log() / SURE).square() / 2 if self._is_camera else torch.zeros(1)
            return doubted.flatten() - every * (weight[..., ::every] * likelihood).sum(1)

        scales = torch.linspace(-0.4, 1.2, 17).exp().tolist()
        least = self._least_doubt(network, batches, outputs) if self._is_camera else DOUBT
        candidates = torch.tensor([(scale, *rest) for scale in scales for rest in self._shares(least)])
        for every, best in COARSE_TO_FINE:
            parts = ceil(len(candidates) * raw.shape[-1] / every / TRIED_TOGETHER)
            loss = torch.cat([losses(some, every) for some in candidates.chunk(parts)])
            candidates = candidates[loss.argsort(stable=True)[:best]]
        scale, share, added = candidates[0].tolist()
        network.head.weight.data[channels:] *= scale
        network.head.bias.data[channels:] *= scale
        network.scale.logarithm.data[:-channels] += math.log(share)
        network.scale.logarithm.data[-channels:] = math.log(added / DOUBT)

    def _shares(self, least: float) -> list[tuple[float, float]]:
        """List what of the noise's variance may be true, and what to add to the network's, in parts of that."""
        import torch

        if not self._is_camera:
            return [(1.0, a) for a in (least, *torch.linspace(-7, 0, 29).exp().tolist())]
        shares = torch.linspace(1 - TOO_STRONG, 1, 13)[:-1].tolist()
        around = (least * torch.linspace(-1, 2, 16).exp()).tolist()
        return [*((share, least / share) for share in shares), *((1.0, a) for a in around)]

    def _least_doubt(self, network: Network, batches: Sequence[Batch], outputs: Sequence[Tensor]) -> float:
        """Measure how much of the noise's variance reaches a prediction where the image is smoothest.

        There, a network errs by little else: what it makes of the pixel's surroundings is as uncertain as they are.
        """
        import torch

        channels = batches[0].target.shape[1]
        rng = torch.Generator().manual_seed(0)
        parts: list[Tensor] = []
        doubts: list[Tensor] = []
        enough = max(1, CALIBRATED_ON // batches[0].target[:, 0].numel())
        for batch, output in zip(batches[:enough], outputs, strict=False):
            image, told = batch.noisy.float()[:, :channels], batch.noisy[:, channels:]
            model, raw, conditions = self._split(output, channels)
            prior = model.prior(raw, conditions)
            deviation = model.deviation(prior.mean, conditions)
            stir = STIRRED * deviation * torch.randn(image.shape, generator=rng).to(image.device)
            up, down = (
                model.prior(*self._split(network(torch.cat([image + by, told], 1)).float(), channels)[1:]).mean
                for by in (stir, -stir)
            )
            variance = prior.covariance.diagonal(dim1=-2, dim2=-1).movedim(-1, 1)
            # Not at a patch's border, where surroundings are missing.
            middle: tuple[Any, ...] = (..., *(slice(n // 4, n - n // 4) for n in image.shape[2:]))
            parts.append((((up - down) / (2 * STIRRED * deviation)) ** 2).mean(1)[middle].flatten())
            doubts.append((variance / deviation**2).mean(1)[middle].flatten())
        part, doubt = torch.cat(parts), torch.cat(doubts)
        return float(part[doubt <= doubt.quantile(SMOOTHEST)].mean().clamp(1e-4, 0.5))

    def read_out(self, raw: Tensor, noisy: Tensor) -> dict[str, Tensor]:
        from napari_ssdenoise.noise import CONDITIONS

        channels = noisy.shape[1] // (1 + CONDITIONS)
        model, raw, conditions = self._split(raw, channels)
        prior = model.prior(raw, conditions)
        mean, std = model.posterior(noisy[:, :channels], prior, conditions)
        return {"mean": mean, "prior": model.clean(prior.mean, conditions), "std": self.tails * std}

    def _disturbed(self, noisy: Tensor, channels: int, rng: Generator) -> tuple[Tensor, Tensor]:
        """Change the input in every step, so that the network learns nothing by heart.

        Returns
        -------
        disturbed : (B, C + conditions, *spatial)
        unseen : (B, *spatial)
            1 where a pixel's value stands nowhere else in the input, which might give it away.
        """
        import torch

        from napari_ssdenoise.noise import NOISES

        image, conditions = noisy[:, :channels], noisy[:, channels:]
        axes = list(range(2, noisy.ndim))
        drawn = torch.randint(-SHUFFLE_RADIUS, SHUFFLE_RADIUS + 1, (len(axes),), generator=rng).tolist()
        # Within a sub-lattice: what shares a pixel's noise must not come where the pixel is predicted from.
        moves = [n * spacing for n, spacing in zip(drawn, self._spacing(len(axes)), strict=True)]
        chosen = (torch.rand((len(image), 1, *image.shape[2:]), generator=rng) < SHUFFLED).to(image.device)
        mixed = torch.where(chosen, image.roll(moves, axes), image)
        deviation = NOISES[self.noise].deviation(mixed, conditions)
        mixed = mixed + ADDED * deviation * torch.randn(mixed.shape, generator=rng).to(mixed.device)
        copied = chosen.roll([-move for move in moves], axes)[:, 0]
        return torch.cat([mixed, conditions], 1), (~copied).to(image.dtype)

    def _spacing(self, ndim: int) -> tuple[int, ...]:
        """Return the spacing of the sub-lattices along each spatial axis.

        Raises
        ------
        ValueError
            If the setting is no such spacing.
        """
        parts = [part.strip() for part in self.lattice.split(",")]
        if len(parts) > 2 or not all(part in tuple("12345678") for part in parts):
            raise ValueError(
                f"lattice={self.lattice!r} is no spacing of pixels. Give one number from 1 to 8, or two for Y,X, e.g. "
                "'2' or '2,1'."
            )
        y, x = int(parts[0]), int(parts[-1])
        return (*(1,) * (ndim - 2), y, x)

    def _split(self, raw: Tensor, channels: int) -> tuple[NoiseModel, Tensor, Tensor]:
        """Return the noise model, and the network's prediction and conditions apart."""
        from napari_ssdenoise.noise import CONDITIONS, NOISES

        count = raw.shape[1] - CONDITIONS * channels
        return NOISES[self.noise], raw[:, :count], raw[:, count:]


def _looked_at(outputs: Sequence[Tensor], batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    """Return a network's outputs and the noisy values, (1, channels, N), and whether a pixel was spared.

    Of those that were not, a part; where none was spared, all count as such.
    """
    import torch

    raws: list[Tensor] = []
    targets: list[Tensor] = []
    spared: list[Tensor] = []
    every = max(1, sum(b.target[:, 0].numel() for b in batches) // CALIBRATED_ON)
    for batch, output in zip(batches, outputs, strict=True):
        learnt = torch.zeros_like(batch.target[:, 0]) if batch.learnt is None else batch.learnt
        chosen = (learnt == 0).contiguous()
        chosen.view(-1)[::every] = True
        for values, to in ((output, raws), (batch.target.float(), targets)):
            to.append(values.movedim(1, 0)[None, :, chosen])
        spared.append(learnt[chosen] == 0)
    return torch.cat(raws, -1), torch.cat(targets, -1), torch.cat(spared)


def _as_if_spared(
    model: NoiseModel, raw: Tensor, conditions: Tensor, target: Tensor, spared: Tensor
) -> tuple[Tensor, Tensor]:
    """Return noisy values that lie as far from the prediction as if nothing had been learnt by heart, and weights.

    There are many more pixels that were learnt from than spared ones, so that they tell the noise's strength better.
    How much nearer they are to the prediction is believed as far as it stands out from chance (James and Stein 1961).
    """
    import torch

    if bool(spared.all()):
        return target, torch.ones_like(target[:, 0])
    prior = model.prior(raw, conditions)
    total = prior.covariance.diagonal(dim1=-2, dim2=-1).movedim(-1, 1) + model.deviation(prior.mean, conditions) ** 2
    distance = ((target - prior.mean) ** 2 / total).mean(1)[0]
    away, near = distance[spared], distance[~spared]
    nearer = float(away.mean() - near.mean())
    error = float((away.var() / len(away) + near.var() / len(near)).sqrt())
    believed = max(0.0, nearer - error**2 / nearer) if nearer > 0 else 0.0
    # By heart is learnt what cannot be predicted: less where the network itself says that there is little doubt.
    doubt = (1 - model.deviation(prior.mean, conditions) ** 2 / total).mean(1)
    excess = believed * doubt / doubt[:, ~spared].mean()
    moved = prior.mean + (target - prior.mean) * torch.where(spared, 1.0, (1 + excess).sqrt())[:, None]
    # Each kind counts as much as it is sure of what it says.
    weight = torch.where(spared, 1.0, (1.0 if not believed else min(1.0, error**2 / nearer**2)))
    return moved, weight[None]
