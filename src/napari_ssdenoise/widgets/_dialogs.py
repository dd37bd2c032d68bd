"""Ask people for files."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

MODEL_FILTER = "Models (*.zip model.json)"
KSPACE_FILTER = "K-space (*.h5 *.hdf5 *.mrd *.npy *.mat)"
BLUR_FILTER = "Point-spread functions (*.tif *.tiff *.npy)"


def ask_output(parent: QWidget, name: str) -> tuple[Path, bool] | None:
    """Ask where to write a denoised image; return the file and whether to replace it, or None for nothing."""
    chosen, _ = QFileDialog.getSaveFileName(
        parent, "Denoise into a file", name, "OME-Zarr (*.zarr)", options=QFileDialog.Option.DontConfirmOverwrite
    )
    if not chosen:
        return None
    path = Path(chosen)
    if not path.exists():
        return path, False
    question = f"{path.name} exists. Replace it when the new one is complete?"
    answer = QMessageBox.question(parent, "Replace the file?", question)
    return (path, True) if answer == QMessageBox.StandardButton.Yes else None


def ask_model_to_save(parent: QWidget) -> Path | None:
    """Ask where to save a model; a .zip."""
    chosen, _ = QFileDialog.getSaveFileName(parent, "Save the model", "denoiser.model.zip", "Model (*.zip)")
    return Path(chosen if chosen.endswith(".zip") else f"{chosen}.zip") if chosen else None


def ask_model_to_load(parent: QWidget) -> Path | None:
    """Ask for a saved model."""
    chosen, _ = QFileDialog.getOpenFileName(parent, "Load a model", "", MODEL_FILTER)
    return Path(chosen) if chosen else None


def ask_blur(parent: QWidget) -> Path | None:
    """Ask for a measured point-spread function."""
    chosen, _ = QFileDialog.getOpenFileName(parent, "Choose a point-spread function", "", BLUR_FILTER)
    return Path(chosen) if chosen else None


def ask_kspace(parent: QWidget) -> Path | None:
    """Ask for a file of raw MRI data."""
    chosen, _ = QFileDialog.getOpenFileName(parent, "Open k-space", "", KSPACE_FILTER)
    return Path(chosen) if chosen else None
