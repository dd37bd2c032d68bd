"""Copy how a result was made: as a command, as Python, or as a notebook."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QApplication, QFileDialog, QMenu, QPushButton, QWidget

from napari_ssdenoise.io._whole import written_whole
from napari_ssdenoise.volume import Volume

if TYPE_CHECKING:
    from napari_ssdenoise._repeatable import Repeatable
    from napari_ssdenoise.model import TrainedModel
    from napari_ssdenoise.recipe import Recipe

KINDS = {"command": "Command", "python": "Python", "notebook": "Notebook…"}


@dataclass(frozen=True)
class Made:
    """What a result was made of, and how: see `Recipe.of`."""

    model: TrainedModel
    volume: Volume
    source: Path | None
    applying: dict[str, Any]
    std: bool = False

    @classmethod
    def of(cls, model: TrainedModel, layer: Image, volume: Volume, *, std: bool = False, **applying: Any) -> Made:
        """Note it for a result that a layer becomes."""
        return cls(model, volume, layer.source.path and Path(layer.source.path), applying, std)

    def saved(self, model: TrainedModel, again: TrainedModel) -> Made:
        """Take a model that tells where it is saved for the same one that did not."""
        return replace(self, model=again) if self.model is model else self

    def recipe(self) -> Recipe:
        """Return how to make it again; this reads parts of the image."""
        from napari_ssdenoise.recipe import Recipe

        return Recipe.of(self.model, self.volume, self.source, std=self.std, **self.applying)


class RecipeButton(QPushButton):
    """A menu of what a recipe can become."""

    chosen = Signal(str)  # of `KINDS`

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("Copy as…", parent)
        self.setToolTip("How the last result was made, to make it again without napari: the same pixels.")
        menu = QMenu(self)
        for kind, label in KINDS.items():
            action = menu.addAction(label)
            if action is not None:
                action.triggered.connect(lambda _=False, kind=kind: self.chosen.emit(kind))
        self.setMenu(menu)
        self.setEnabled(False)


def deliver(kind: str, recipe: Repeatable, parent: QWidget) -> str:
    """Put a recipe onto the clipboard, or into a notebook; return what to say about it."""
    if kind == "notebook":
        name = str(recipe.output.with_suffix("").with_suffix(".ipynb"))
        chosen, _ = QFileDialog.getSaveFileName(parent, "Save a notebook", name, "Notebook (*.ipynb)")
        if not chosen:
            return ""
        path = Path(chosen if chosen.endswith(".ipynb") else f"{chosen}.ipynb")
        with written_whole(path) as partial:
            partial.write_text(recipe.notebook(), encoding="utf8")
        return f"Saved as {path.name}."
    clipboard = QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(recipe.command() if kind == "command" else recipe.python())
    return f"Copied. It writes {recipe.output.name} beside {recipe.source.name}."
