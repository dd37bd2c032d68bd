"""What a training leaves behind: settings, weights, normalisation and record, ready to denoise."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from napari_ssdenoise.complex_parts import AXIS, is_parts, joined, real_view
from napari_ssdenoise.geometry import Geometry  # noqa: TC001 - scripts import it from here
from napari_ssdenoise.volume import Volume, open_volume, require_intensities

if TYPE_CHECKING:
    from os import PathLike

    import torch
    from numpy.typing import NDArray

    from napari_ssdenoise.algorithms import Algorithm, Conditions
    from napari_ssdenoise.axes import Layout
    from napari_ssdenoise.engine.device import Precision
    from napari_ssdenoise.engine.distributed import Scheduler
    from napari_ssdenoise.engine.glimpses import Gaze
    from napari_ssdenoise.engine.job import TileDone
    from napari_ssdenoise.engine.plan import Plan
    from napari_ssdenoise.engine.predict import Predictor
    from napari_ssdenoise.magnitude import Magnitude
    from napari_ssdenoise.normalize import Normalization

DEFAULT_MEMORY = "4 GB+"  # in float32, the largest network takes more in 3D


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A denoiser for images like those it was trained on.

    Parameters
    ----------
    algorithm
        With its settings.
    network
        The trained module, on the CPU, float32.
    geometry, normalization
        Of the training images.
    record
        How it was trained: steps, seconds, seed, data, loss curve, versions.
    conditions
        What the network is told about the noise, by channel; see `Algorithm.fitted`.
    path
        Where it was loaded from, if it was.
    magnitude
        See `for_magnitudes`.
    """

    algorithm: Algorithm
    network: Any
    geometry: Geometry
    normalization: Normalization
    record: Mapping[str, Any] = field(default_factory=dict)
    conditions: Conditions = ()
    path: Path | None = None
    magnitude: Magnitude | None = None

    def for_magnitudes(self, noise: Magnitude) -> TrainedModel:
        """Return the model for magnitude images (MRI): what noise adds to them on average is taken off the results.

        Parameters
        ----------
        noise
            Known, or from `estimate_magnitude_noise`. It is not saved with the model.

        Raises
        ------
        ValueError
            If the model does so by itself, as the blind-spot network does for noise="rician", or is for complex images.
        """
        if getattr(self.algorithm, "noise", None) == "rician":
            raise ValueError("this model was trained for Rician noise: its results have no bias to be taken off.")
        if any(np.dtype(data["dtype"]).kind == "c" for data in self.record.get("data", ())):
            raise ValueError("this model is for complex images, whose parts have no bias to be taken off.")
        return replace(self, magnitude=noise)

    def predictor(self, *, device: str = "auto", precision: Precision = "auto", augment: bool = False) -> Predictor:
        """Make the network ready for inference on a device."""
        from napari_ssdenoise.engine.predict import Predictor

        return Predictor(
            self.algorithm,
            self.network,
            self.normalization,
            self.geometry.spatial,
            device=device,
            precision=precision,
            augment=augment,
            conditions=self.conditions,
            magnitude=self.magnitude,
        )

    @overload
    def predict(
        self,
        volume: Any,
        *,
        outputs: None = None,
        precision: Precision = "auto",
        device: str = "auto",
        augment: bool = False,
        tile: Sequence[int] | None = None,
        memory: str | int = DEFAULT_MEMORY,
    ) -> NDArray[np.float32]: ...
    @overload
    def predict(
        self,
        volume: Any,
        *,
        outputs: Sequence[str],
        precision: Precision = "auto",
        device: str = "auto",
        augment: bool = False,
        tile: Sequence[int] | None = None,
        memory: str | int = DEFAULT_MEMORY,
    ) -> tuple[NDArray[np.float32], ...]: ...
    def predict(
        self,
        volume: Any,
        *,
        outputs: Sequence[str] | None = None,
        precision: Precision = "auto",
        device: str = "auto",
        augment: bool = False,
        tile: Sequence[int] | None = None,
        memory: str | int = DEFAULT_MEMORY,
    ) -> NDArray[Any] | tuple[NDArray[Any], ...]:
        """Denoise a volume into memory.

        Parameters
        ----------
        volume
            A volume, array or path; axes as in training, or named by the volume.
        outputs
            Which of the algorithm's outputs to return, e.g. ``("mean", "std")``.
        precision, device
            ``"float32"`` for results that do not depend on the tiling (to 1e-5).
        augment
            Average over flips and exchanging Y and X (up to eight-fold).
        tile
            Output tile per spatial axis; chosen within ``memory`` by default.
        memory
            For the network's activations, e.g. ``"4 GB"``; ``"4 GB+"``: more only if the smallest tile takes more.

        Returns
        -------
        ndarray, float32
            In the volume's shape, axes and units; a tuple of them if ``outputs`` is given. Of a complex volume, the
            mean is complex64, and standard deviations hold for the real and the imaginary part each.

        Raises
        ------
        ValueError
            If the volume does not fit the model.
        MemoryError
            If not even the smallest tile fits into ``memory``.
        """
        from napari_ssdenoise.engine.in_memory import whole

        opened, layout = self.fit(volume)
        names = self._check_outputs(outputs or ("mean",))
        predictor = self.told(opened, layout).predictor(device=device, precision=precision, augment=augment)
        arrays = whole(predictor, opened, layout, names, tile=tile, memory=memory)
        if is_parts(opened) and not (isinstance(volume, Volume) and is_parts(volume)):
            arrays = {name: joined(name, array) for name, array in arrays.items()}
        return tuple(arrays[name] for name in names) if outputs else arrays["mean"]

    def predict_part(
        self, volume: Any, region: Sequence[slice], *, predictor: Predictor | None = None, context: int | None = None
    ) -> NDArray[np.float32]:
        """Denoise only a part of a volume, as a preview does.

        Parameters
        ----------
        volume
            A volume, array or path.
        region
            A slice, with start and stop, for each of the volume's axes; all of a channel axis that the network sees
            at once.
        predictor
            From `predictor`, to use it more than once.
        context
            Pixels around the region to look at; fewer than the network's reach are faster, and not exact at the rim.

        Returns
        -------
        ndarray, float32
            In the region's shape and the volume's units.
        """
        return self.outputs_of(volume, region, predictor=predictor, context=context)["mean"]

    def outputs_of(
        self, volume: Any, region: Sequence[slice], *, predictor: Predictor | None = None, context: int | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Return all of the algorithm's outputs for a part of a volume; see `predict_part`."""
        from napari_ssdenoise.engine.in_memory import part

        opened, layout = self.fit(volume)
        joins = is_parts(opened) and len(region) < opened.ndim
        predictor = predictor or self.told(opened, layout).predictor()
        parts = part(predictor, opened, layout, [*region, slice(0, 2)] if joins else region, context=context)
        return {name: joined(name, image) for name, image in parts.items()} if joins else parts

    def plan(
        self,
        volume: Any,
        *,
        memory: str | int = DEFAULT_MEMORY,
        tile: Sequence[int] | None = None,
        precision: Precision = "auto",
        device: str = "auto",
        augment: bool = False,
    ) -> Plan:
        """Return how `predict_into` would go about a volume: tiles, the share of work in halos, memory.

        Parameters
        ----------
        volume, memory, tile, precision, device, augment
            As for `predict`.

        Raises
        ------
        MemoryError
            If not even the smallest tile fits into ``memory``.
        """
        from napari_ssdenoise.engine.stream import choose_dtype, plan_output

        opened, layout = self.fit(volume)
        predictor = self.predictor(device=device, precision=precision, augment=augment)
        dtype = choose_dtype(self, opened)
        return plan_output(predictor, opened, layout, dtype.itemsize, tile=tile, memory=memory)[0]

    def predict_into(
        self,
        volume: Any,
        path: str | PathLike[str],
        *,
        output: str = "mean",
        also: Mapping[str, str | PathLike[str]] | None = None,
        dtype: str = "auto",
        memory: str | int = DEFAULT_MEMORY,
        tile: Sequence[int] | None = None,
        precision: Precision = "auto",
        device: str = "auto",
        augment: bool = False,
        overwrite: bool = False,
        resume: bool = True,
        scheduler: str | Scheduler | None = None,
        view: Gaze | None = None,
    ) -> Generator[TileDone]:
        """Denoise a volume of any size into a file, tile by tile.

        The result appears under its name only when it is complete. A run that is stopped leaves what is done beside
        it, and the same call goes on from there.

        Parameters
        ----------
        volume
            A volume, array or path.
        path
            Output file: ``.ome.zarr``, ``.zarr``, ``.tif``, ``.npy`` or ``.png``.
        output
            Which of the algorithm's outputs to write.
        also
            Further outputs to write in the same run, and their files: ``{"std": "uncertainty.ome.zarr"}``.
        dtype
            ``"auto"`` keeps the input's dtype where its steps are fine enough for the denoised values, else float32.
            Standard deviations are always float32.
        overwrite
            Replace existing outputs.
        resume
            Go on from a stopped run of the same model on the same image.
        scheduler
            A `Scheduler`, or the address of one, to compute on a cluster: each worker opens the image and the output
            (which must be OME-Zarr) by their paths.
        view
            Returns what somebody looks at, a slice for each of the volume's axes, or None. It is asked again and again,
            and those parts of the file are filled first, in a quarter of ``memory`` beside the rest; the finished file
            is the same. Not with a scheduler.
        memory, tile, precision, device, augment
            As for `predict`.

        Yields
        ------
        TileDone
            After each tile.

        Raises
        ------
        FileExistsError
            If an output exists and ``overwrite`` is False.
        ValueError
            If the volume does not fit the model.
        """
        from napari_ssdenoise.engine.stream import prepare, stream

        opened, layout = self.fit(volume)
        paths = {output: Path(path), **{name: Path(other) for name, other in (also or {}).items() if name != output}}
        self._check_outputs(tuple(paths))
        task = prepare(
            self.told(opened, layout),
            opened,
            layout,
            paths,
            dtype,
            memory=memory,
            tile=tile,
            device=device,
            precision=precision,
            augment=augment,
            remote=scheduler is not None,
        )
        return stream(task, overwrite=overwrite, resume=resume, scheduler=scheduler, view=view)

    def save(self, path: str | PathLike[str], *, overwrite: bool = True, sample: Any = None) -> Path:
        """Save as a folder, or as one file if the name ends in .zip: JSON and safetensors.

        Parameters
        ----------
        path
            Folder or file.
        overwrite
            Replace another model.
        sample
            A volume, array or path, of which a small picture, before and after, is kept with the model.
        """
        from napari_ssdenoise.io.bundle import save_model

        return save_model(self, Path(path), overwrite=overwrite, sample=sample)

    def export_bioimage(
        self,
        path: str | PathLike[str],
        *,
        sample: Any = None,
        name: str = "",
        description: str = "",
        authors: Sequence[str] = (),
        license: str | None = None,  # noqa: A002 - the zoo's word
        overwrite: bool = True,
    ) -> Path:
        """Write a package (.zip) of the BioImage Model Zoo, tested by the zoo's own library.

        Other programs run the network in it, with images in their own units; `load` opens the package as this model.

        Parameters
        ----------
        path
            Of the package; ``.zip`` is added where it is missing.
        sample
            A volume, array or path, out of which the test image is cut: it is published with the package. A made-up
            image by default.
        name, description, authors
            For people. Authors by their names.
        license
            SPDX identifier, e.g. ``"CC-BY-4.0"``.
        overwrite
            Replace another model or package.

        Raises
        ------
        ValueError
            If ``bioimageio.core`` is not installed, or the model computes something that the zoo cannot describe; the
            message says what.
        FileExistsError
            If something else has that name, or ``overwrite`` is False.
        """
        from napari_ssdenoise.io.bioimage import About, export_model

        about = About(name, description, authors, license)
        return export_model(self, Path(path), sample=sample, about=about, overwrite=overwrite)

    @staticmethod
    def load(path: str | PathLike[str]) -> TrainedModel:
        """Load a saved model; nothing in the file is executed.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is broken, of another program, or of a newer version.
        """
        from napari_ssdenoise.io.bundle import load_model

        return load_model(Path(path))

    def differences(self, volume: Any) -> tuple[str, ...]:
        """Say in which ways an image is unlike those of the training, so that the result may be poor.

        Parameters
        ----------
        volume
            A volume, array or path; some blocks are read.

        Returns
        -------
        tuple of str
            A sentence for each: that it does not fit at all, its pixel size (25 % and more), values (three times the
            contrast, or far from what was seen), noise (half as much again). Empty if nothing was noticed.
        """
        from napari_ssdenoise.differences import differences

        return differences(self, self._open(volume))

    def reopened(self) -> Algorithm:
        """Return the algorithm for other images: what these had decided of its settings is left open again."""
        open_again = type(self.algorithm)()
        return replace(self.algorithm, **{name: getattr(open_again, name) for name in self.record.get("chosen", ())})

    def told(self, volume: Volume, layout: Layout) -> TrainedModel:
        """Return the model with the conditions of this volume, if its algorithm tells images apart."""
        if not self.algorithm.per_image:
            return self
        from napari_ssdenoise.engine.scenes import View

        views = [View(volume, layout, index) for index in layout.indices(volume.shape)]
        conditions = self.algorithm.fitted(views, self.normalization, np.random.default_rng(0))[1]
        return replace(self, conditions=conditions)

    def describe(self) -> dict[str, Any]:
        """Return everything but the weights, as plain values for JSON."""
        return {
            "algorithm": self.algorithm.key,
            "settings": asdict(self.algorithm),
            "geometry": asdict(self.geometry),
            "normalization": asdict(self.normalization),
            "conditions": [list(told) for told in self.conditions],
            **({"magnitude": asdict(self.magnitude)} if self.magnitude else {}),
            "record": dict(self.record),
        }

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the network's tensors by name."""
        return {name: value.contiguous() for name, value in self.network.state_dict().items()}

    def fit(self, volume: Any) -> tuple[Volume, Layout]:
        """Open a volume, and tell how its axes map to the network.

        Raises
        ------
        ValueError
            If it does not fit the model.
        """
        opened = real_view(self._open(volume))
        require_intensities(opened)
        self._check_kind(opened)
        layout = self.geometry.layout(opened)
        return self.algorithm.prepared(opened), layout

    def _open(self, volume: Any) -> Volume:
        """Open a volume; an unnamed array with as many dimensions as the training images gets their axes."""
        if isinstance(volume, (str, os.PathLike, Volume)):
            return open_volume(volume)
        trained = [data["axes"] for data in self.record.get("data", ()) if len(data["axes"]) == len(volume.shape)]
        return open_volume(volume, axes=trained[0] if trained else None)

    def _check_kind(self, volume: Volume) -> None:
        """Refuse complex images where real ones were learnt from, and the other way round."""
        kinds = {np.dtype(data["dtype"]).kind == "c" for data in self.record.get("data", ())}
        found, learnt = ("complex", "real images, such as magnitudes") if is_parts(volume) else ("real", "complex ones")
        has_parts = is_parts(volume) or volume.sizes.get(AXIS) == 2  # of which an array may be made before
        if kinds and has_parts not in kinds:
            raise ValueError(
                f"{volume.name!r} is {found}, but the model was trained on {learnt}. Choose an image like those it was "
                "trained on, or train a new model."
            )

    def _check_outputs(self, names: Sequence[str]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in self.algorithm.outputs]
        if unknown:
            known = ", ".join(self.algorithm.outputs)
            raise ValueError(f"{self.algorithm.title} has no output {', '.join(unknown)}; it has {known}.")
        return tuple(names)
