"""What a training learns from: the images as its algorithm sees them, measured before the first step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_ssdenoise.axes import Channels, Layout
from napari_ssdenoise.complex_parts import is_parts
from napari_ssdenoise.engine.patches import PatchSampler, choose_patch
from napari_ssdenoise.geometry import Geometry
from napari_ssdenoise.normalize import Normalization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_ssdenoise.algorithms import Algorithm, Conditions
    from napari_ssdenoise.engine.scenes import Scene, View
    from napari_ssdenoise.volume import Volume


@dataclass(frozen=True, eq=False)
class Material:
    """Images, with all that is found out about them before a training.

    Attributes
    ----------
    scenes
        The places to draw patches from.
    geometry, normalization
        Of all of them.
    algorithm
        With the settings that it chose for these images.
    chosen
        Names of those settings.
    conditions
        What a trained network is to be told about the noise.
    told
        What it is told about each scene while it learns.
    """

    scenes: Sequence[Scene]
    geometry: Geometry
    normalization: Normalization
    algorithm: Algorithm
    chosen: list[str]
    conditions: Conditions
    told: list[Conditions]

    @classmethod
    def of(
        cls,
        algorithm: Algorithm,
        volumes: Sequence[Volume],
        targets: Sequence[Volume],
        *,
        spatial: str | None,
        channels: Channels,
        seed: int,
    ) -> Material:
        """Look at images.

        Parameters
        ----------
        algorithm, volumes, targets, spatial, channels, seed
            As for `Trainer`; volumes are opened, and real.

        Raises
        ------
        ValueError
            If they cannot be trained on.
        """
        # Of complex images, parts are twice as many images to learn from; see benchmarks/README.md.
        if channels == "auto" and (algorithm.colours_apart or any(map(is_parts, volumes))):
            channels = "independent"
        layouts = [Layout.choose(v.axes, v.shape, spatial, channels) for v in volumes]
        scenes = algorithm.scenes(volumes, layouts, targets)
        views = _views(scenes)
        geometry = Geometry.choose(views, channels)
        normalization = Normalization.fit(views, np.random.default_rng([seed, 0]))
        fitted, conditions = algorithm.fitted(views, normalization, np.random.default_rng([seed, 3]))
        told = [conditions] * len(scenes)
        if fitted.per_image:
            found: dict[int, Conditions] = {}
            for volume in volumes:
                own = [view for view in views if view.volume is volume]
                found[id(volume)] = fitted.fitted(own, normalization, np.random.default_rng([seed, 3]))[1]
            told = [found[id(scene.views[0].volume)] for scene in scenes]
        given = asdict(algorithm)
        chosen = [name for name, value in asdict(fitted).items() if value != given[name]]
        return cls(scenes, geometry, normalization, fitted, chosen, conditions, told)

    @property
    def views(self) -> list[View]:
        """All views of all scenes."""
        return _views(self.scenes)

    @property
    def voxels(self) -> int:
        """Pixels of all scenes."""
        return sum(scene.voxels for scene in self.scenes)

    def sampler(self, seed: int) -> PatchSampler:
        """Return what draws patches of a size that suits images and algorithm.

        Raises
        ------
        ValueError
            If an image is too thin for the network.
        """
        algorithm, spatial = self.algorithm, self.geometry.spatial
        stride = self.geometry.build(algorithm).stride
        side = algorithm.patch or algorithm.patch_side
        patch = choose_patch(spatial, [view.shape for view in self.views], stride, side)
        return PatchSampler(
            self.scenes,
            self.normalization,
            patch,
            algorithm.batch or algorithm.batch_size(patch),
            algorithm.symmetries(spatial),
            seed,
            conditions=self.told,
            spares=algorithm.spares,
        )


def _views(scenes: Sequence[Scene]) -> list[View]:
    return [view for scene in scenes for view in scene.views]
