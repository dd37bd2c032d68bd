"""What widgets in a dock have in common: a form that scrolls, and an end in which nothing is left running."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_ssdenoise._threads import share_processor, use_large_pages
from napari_ssdenoise.widgets._form import FormArea, Section


class DockedWidget(QWidget):
    """A widget that lets go of everything, and destroys itself, when its dock is closed."""

    _closed = False

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        use_large_pages()
        share_processor()  # with the viewer's own event loop

    @property
    def working(self) -> bool:
        """Whether something still runs in another thread."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Stop everything, and listen to the viewer no longer."""
        raise NotImplementedError

    def shut_down(self) -> None:
        """Stop everything and let go of the viewer; for when the widget is closed."""
        if self._closed:
            return
        self._closed = True
        self.let_go()
        self.leave()

    def leave(self) -> None:
        """Go, if the dock is closed and nothing runs any longer."""
        if self._closed and not self.working:
            # Nobody else destroys a widget that was taken out of its dock, and no other thread may.
            self.deleteLater()

    def event(self, event: QEvent | None) -> bool:
        """Notice that the dock is closed: napari then takes the widget out of it."""
        if event is not None and event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.shut_down()
        return bool(super().event(event))

    def arrange(self, form: Sequence[QWidget], run: QWidget) -> None:
        """Put a form that scrolls above what is always in view."""
        content = QWidget()
        column = QVBoxLayout(content)
        column.setContentsMargins(0, 0, 6, 0)
        column.setSpacing(8)
        for part in form:
            column.addWidget(part)
        column.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.setSpacing(8)
        area = FormArea(content)
        layout.addWidget(area)
        layout.addWidget(run)
        layout.addStretch(1)
        self.setMinimumWidth(340)
        for section in content.findChildren(Section):
            section.toggled.connect(self.make_room)
            section.toggled.connect(lambda opened, section=section: area.reveal(section) if opened else None)

    def make_room(self, opened: bool) -> None:
        """Give a section of the form that was opened the room of what lies below, and back when it is closed."""
