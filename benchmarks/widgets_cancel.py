"""How long a stop takes, from the click until nothing runs any longer, in each state of each widget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from widgets_loop import Watch
from widgets_viewer import dock, isolated, kspace, noisy, open_viewer, pump, wait, zarr_of

SPREAD = 0.37  # seconds between the moments at which repetitions stop
LONG = 100_000  # steps
STACK = (64, 512, 512)


@dataclass
class Scene:
    """A viewer with a widget, and a folder for files."""

    viewer: Any
    folder: Path
    widget: Any = None

    def open(self, name: str) -> Any:
        self.widget = dock(self.viewer, name)
        return self.widget

    def show(self, data: Any, labels: str) -> Any:
        return self.viewer.add_image(data, name="noisy", axis_labels=tuple(labels), contrast_limits=(40, 160))

    def said(self, *words: str) -> Callable[[], bool]:
        """Return a question: whether the widget says one of these words now."""
        return lambda: any(word in self.widget.run.status.text() for word in words)


Begin = Callable[[], None]
Reached = Callable[[], bool]


def denoise(scene: Scene, data: Any, labels: str, method: str = "n2v") -> Any:
    """Open the widget for an image."""
    scene.show(data, labels)
    widget = scene.open("Denoise")
    widget.method.choose(method, {})
    widget.method.length.set_steps(LONG)
    return widget


def trained(widget: Any) -> Any:
    """Train a little."""
    widget.method.length.set_steps(2)
    widget.train()
    wait(lambda: not widget.busy)
    wait(lambda: widget.quality.job is None)
    widget.method.length.set_steps(LONG)
    return widget


def flagged(owner: Any, name: str) -> Event:
    """Note when a function is entered (for generators: begun); forgotten when it is asked."""
    seen, before = Event(), getattr(owner, name)

    def noting(*args: Any, **kwargs: Any) -> Any:
        seen.set()
        return before(*args, **kwargs)

    setattr(owner, name, noting)
    return seen


def loading(scene: Scene) -> tuple[Begin, Reached]:
    widget = denoise(scene, noisy(512, 512), "yx")
    return widget.train, scene.said("Loading PyTorch")


def training(method: str, *shape: int) -> Callable[[Scene], tuple[Begin, Reached]]:
    def make(scene: Scene) -> tuple[Begin, Reached]:
        widget = denoise(scene, noisy(*shape), "zyx"[-len(shape) :], method)
        return widget.train, scene.said("Step ")

    return make


def previewing(scene: Scene) -> tuple[Begin, Reached]:
    from napari_ssdenoise.widgets import _work

    widget = denoise(scene, zarr_of(scene.folder, *STACK), "zyx")
    seen = flagged(_work.Previewer, "show")

    def begin() -> None:
        seen.clear()
        widget.train()

    return begin, seen.is_set


def applying(scene: Scene) -> tuple[Begin, Reached]:
    widget = trained(denoise(scene, zarr_of(scene.folder, *STACK), "zyx"))
    return widget.apply, scene.said("Block ", "Denoising")


def streaming(scene: Scene) -> tuple[Begin, Reached]:
    widget = trained(denoise(scene, zarr_of(scene.folder, *STACK), "zyx"))
    path = scene.folder / "out.ome.zarr"
    return lambda: widget.apply_to(path, overwrite=True), scene.said("Block ", "Denoising")


def finishing(scene: Scene) -> tuple[Begin, Reached]:
    widget = trained(denoise(scene, zarr_of(scene.folder, 16, 1024, 1024), "tyx"))
    paths = iter(scene.folder / f"out{i}.ome.zarr" for i in range(100))
    return lambda: widget.apply_to(next(paths)), scene.said("lower resolutions")


def diagnosing(scene: Scene) -> tuple[Begin, Reached]:
    widget = denoise(scene, zarr_of(scene.folder, *STACK), "zyx")
    return widget.diagnose, scene.said("Looking at the noise")


def saving(scene: Scene) -> tuple[Begin, Reached]:
    widget = trained(denoise(scene, zarr_of(scene.folder, *STACK), "zyx"))
    return lambda: widget.save_model(scene.folder / "a.model.zip"), scene.said("Saving")


def quick(scene: Scene) -> tuple[Begin, Reached]:
    widget = denoise(scene, noisy(1024, 1024), "yx")
    return widget.quick_look, scene.said("Step ", "First step")


def batch(word: str) -> Callable[[Scene], tuple[Begin, Reached]]:
    def make(scene: Scene) -> tuple[Begin, Reached]:
        widget = scene.open("Denoise many")
        files = [scene.folder / f"{i}.npy" for i in range(2)]
        for file in files:
            np.save(file, noisy(32, 256, 256))
        widget.images.add_paths(files)
        (scene.folder / "out").mkdir()
        widget.output.folder.setText(str(scene.folder / "out"))
        widget.output.existing.setCurrentIndex(1)
        widget.method.choose("n2v", {})
        widget.method.length.set_steps(2 if word == "denoising" else LONG)
        return widget.denoise, lambda: word in widget.images.text(0, 1)

    return make


def upscaling(word: str, *shape: int) -> Callable[[Scene], tuple[Begin, Reached]]:
    def make(scene: Scene) -> tuple[Begin, Reached]:
        scene.show(noisy(*shape), "zyx"[-len(shape) :])
        widget = scene.open("Super-resolve")
        begin = widget.preview if "in view" in word else widget.upscale
        if "Enlarging" in word:  # with what was adapted before
            widget.preview()
            wait(lambda: not widget.busy)
        return begin, scene.said(word)

    return make


def reconstructing(method: str) -> Callable[[Scene], tuple[Begin, Reached]]:
    def make(scene: Scene) -> tuple[Begin, Reached]:
        from napari_ssdenoise.io.kspace import open_kspace

        widget = scene.open("Reconstruct MRI")
        widget.show_kspace(open_kspace(kspace(8, 12, 320), axes="ZCYX", name="scan"))
        widget.choose(method, LONG if method == "zs-ssdu" else 0)
        return widget.reconstruct, lambda: widget.busy

    return make


STATES: dict[str, Callable[[Scene], tuple[Begin, Reached]]] = {
    "loading PyTorch": loading,
    "training, 2D": training("n2v", 1024, 1024),
    "training, 3D": training("n2v", *STACK),
    "training, blind spot": training("blindspot", 1024, 1024),
    "training, Neighbor2Neighbor 3D": training("nb2nb", *STACK),
    "quick look": quick,
    "preview, 3D": previewing,
    "diagnosis": diagnosing,
    "apply, 3D": applying,
    "apply to file, 3D": streaming,
    "lower resolutions": finishing,
    "saving a model": saving,
    "batch: looking and learning": batch("learning"),
    "batch: denoising": batch("denoising"),
    "super-resolution: looking": upscaling("Looking", 512, 512),
    "super-resolution: adapting": upscaling("Adapting", 512, 512),
    "super-resolution: enlarging": upscaling("Enlarging", 1024, 1024),
    "super-resolution: preview": upscaling("Enlarging what is in view", 1024, 1024),
    "reconstruction: auto": reconstructing("auto"),
    "reconstruction: cs": reconstructing("cs"),
    "reconstruction: cg-sense": reconstructing("cg-sense"),
    "reconstruction: zs-ssdu": reconstructing("zs-ssdu"),
}


def cancelling(state: str, repeat: int) -> dict[str, Any]:
    """Stop at several moments of a state, and time each stop."""
    scene = Scene(open_viewer(), isolated())
    begin, reached = STATES[state](scene)
    pump(1.0)
    times, missed, doing = [], 0, ""
    for number in range(repeat):
        begin()
        ready = wait(lambda: reached() or not scene.widget.busy, 120)
        # Some states are short: a moment later they are over.
        pump(number * SPREAD)
        if not ready or not scene.widget.busy:
            missed += 1
            continue
        watch = Watch()
        watch.start()
        clicked = time.perf_counter()
        scene.widget.stop()
        wait(lambda: not scene.widget.busy, 120)
        times.append(round(time.perf_counter() - clicked, 3))
        watch.stop()
        doing = watch.beside() if times[-1] == max(times) else doing
        pump(0.3)
        if state == "loading PyTorch":
            break
    longest = max(times, default=None)
    return {"stop_s": times, "longest_s": longest, "over_before_the_stop": missed, "doing": doing}
