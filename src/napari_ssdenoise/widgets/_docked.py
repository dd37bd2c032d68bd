"""What widgets in a dock have in common: a form that scrolls, jobs, and an end in which nothing is left running."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from napari.viewer import Viewer
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_ssdenoise._threads import share_processor, use_large_pages
from napari_ssdenoise.widgets._colors import MAIN, Colors, Painted
from napari_ssdenoise.widgets._control import Control, TaskControl
from napari_ssdenoise.widgets._form import FormArea, Section
from napari_ssdenoise.widgets._job import Job, Reason, Work
from napari_ssdenoise.widgets._recipes import deliver
from napari_ssdenoise.widgets._reports import problem
from napari_ssdenoise.widgets._run_panel import StatusPanel
from napari_ssdenoise.widgets._work import Task

if TYPE_CHECKING:
    from napari_ssdenoise._repeatable import Repeatable

LOOKING = "Looking at what the image's file holds…"


class DockedWidget(QWidget):
    """A widget that lets go of everything, and destroys itself, when its dock is closed."""

    _closed = False

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.viewer = viewer
        viewer.events.theme.connect(self.paint)
        use_large_pages()
        share_processor()  # with the viewer's own event loop

    @property
    def working(self) -> bool:
        """Whether something still runs in another thread."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Stop everything, and listen to the viewer no longer."""
        self.viewer.events.theme.disconnect(self.paint)

    def paint(self, *_: Any) -> None:
        """Take on the colours of the viewer's theme."""
        colors = Colors.of(self.viewer)
        self.setStyleSheet(colors.sheet)
        for part in self.findChildren(Painted):
            part.paint(colors)

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


class WorkingWidget(DockedWidget):
    """A docked widget that does one thing at a time in another thread, and tells of it in its panel ``run``."""

    run: StatusPanel

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(viewer, parent)
        self._controls: tuple[Control, ...] = ()

    def attend(self, *controls: Control) -> None:
        """Take up the jobs that the panel shows; short ones, ``tasks``, come with them."""
        self.tasks = TaskControl(self.viewer, self.run, self)
        self._controls = (*controls, self.tasks)
        for control in self._controls:
            control.ended.connect(self.end)
        self.run.main.setProperty(MAIN, True)
        self.paint()

    @property
    def job(self) -> Job | None:
        """What is running."""
        return next((control.job for control in self._controls if control.job is not None), None)

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self.job is not None

    @property
    def stopping(self) -> bool:
        """Whether a job is running that has been asked to stop."""
        return any(control.stopping for control in self._controls)

    @property
    def working(self) -> bool:
        """Whether something still runs in another thread."""
        return self.busy

    def update_check(self, *_: Any) -> None:
        """Say what can be started, or what to change, and offer what is possible now."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop what is running; what is done is kept where that has a worth."""
        for control in self._controls:
            control.cancel()
        self.update_check()

    def run_task(self, work: Work, done: Callable[[Any], str]) -> None:
        """Do something short, unless something is running; ``done`` returns what to say about its result."""
        if not self.busy:
            self.tasks.begin(work, done)
            self.update_check()

    def copy_recipe(self, kind: str, find: Callable[[], Repeatable], text: str = LOOKING) -> None:
        """Copy how a result was made; ``kind``: command, python or notebook."""
        self.run_task(Task(text, find).reports, lambda recipe: deliver(kind, recipe, self))

    def show_problem(self, error: Exception) -> None:
        """Tell people what is wrong, here and as a notification; napari goes on."""
        text = problem(error)
        self.run.say(text, error=True)
        show_error(text)

    def end(self, _: Reason, error: Exception | None) -> None:
        """Take in that a job has ended."""
        if error is not None:
            self.show_problem(error)
        self.update_check()
        self.leave()

    def let_go(self) -> None:
        """Stop everything, and listen to the viewer no longer."""
        super().let_go()
        if self.job is not None:
            self.job.cancel()  # not as people do who wait for what is left: nobody will take it
