"""A picture of the blur that an enlargement undoes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QLabel, QWidget

from napari_ssdenoise.ops.kernels import widths
from napari_ssdenoise.widgets._reports import WrappedText

PICTURE_SIDE = 64  # pixels of the screen
FEWEST_COLUMNS = 5


class KernelView(QWidget):
    """A small picture of a blur, and its width in words; it takes no room while there is none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.picture, self.text = QLabel(), WrappedText()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(10)
        row.addWidget(self.picture)
        row.addWidget(self.text, 1)
        self.setToolTip(
            "How a point of the enlarged image looks in the image as it was taken; each square is a new pixel. Of a "
            "blur in 3D, the right picture is along Z."
        )
        self.clear()

    def show_kernel(self, kernel: NDArray[Any]) -> None:
        """Show a blur, whose axes are ([Z,] Y, X)."""
        shown = blur_picture(kernel)
        self.picture.setPixmap(_pixmap(shown))
        self.picture.setVisible(shown.size > 1)
        named = zip("ZYX"[3 - kernel.ndim :], widths(kernel), kernel.shape, strict=True)
        blurred = [(axis, sigma) for axis, sigma, n in named if n > 1]
        sizes, axes = " x ".join(f"{sigma:.1f}" for _, sigma in blurred), " x ".join(axis for axis, _ in blurred)
        words = f"{sizes} new pixels along {axes} (standard deviation)" if blurred else "none"
        if kernel.min() < 0:  # such as a bicubic reduction: its width says nothing
            words = "a reduction that sharpens a little"
        self.text.setText(f"The blur to undo: {words}.")
        self.setVisible(True)

    def clear(self) -> None:
        """Forget the blur."""
        self.picture.clear()
        self.text.setText("")
        self.setVisible(False)


def blur_picture(kernel: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a kernel in grey values; of one in 3D, what is seen from above, and right of it what is seen from ahead.

    Returns
    -------
    ndarray (rows, columns)
    """
    views = [kernel] if kernel.ndim == 2 else [kernel.sum(0), kernel.sum(1)]
    views = [view for view in views if view.size > 1]
    if not views:
        return np.full((1, 1), 255, np.uint8)
    rows = max(len(view) for view in views)
    columns = []
    for view in views:
        grey = np.round(255 * np.clip(view, 0, None) / view.max()).astype(np.uint8)
        above = (rows - len(view)) // 2
        columns.append(np.pad(grey, ((above, rows - len(view) - above), (0, 1))))
    picture = np.concatenate(columns, 1)[:, :-1]
    beside = max(0, FEWEST_COLUMNS - picture.shape[1]) // 2  # a line alone could hardly be seen
    return np.pad(picture, ((0, 0), (beside, beside)))


def _pixmap(grey: NDArray[np.uint8]) -> QPixmap:
    rows, columns = grey.shape
    image = QImage(grey.tobytes(), columns, rows, columns, QImage.Format.Format_Grayscale8).copy()
    size = max(1, PICTURE_SIDE // rows) * rows if rows <= PICTURE_SIDE else PICTURE_SIDE
    return QPixmap.fromImage(image).scaledToHeight(size)
