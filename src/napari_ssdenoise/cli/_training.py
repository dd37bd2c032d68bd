"""Train with a progress bar, checkpoints and Ctrl-C: what ``train``, ``denoise`` and ``demo`` share."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from napari_ssdenoise.batch import resume_training, train_with_checkpoints
from napari_ssdenoise.cli._choosing import AUTO, diagnosed, require_outputs, wants_target
from napari_ssdenoise.cli._program import Stopped, seconds_since_start
from napari_ssdenoise.cli._settings import configure, given_settings
from napari_ssdenoise.complex_parts import real_view
from napari_ssdenoise.volume import Volume, open_volume, require_intensities

if TYPE_CHECKING:
    from napari_ssdenoise.algorithms import Algorithm
    from napari_ssdenoise.cli._report import Reporter
    from napari_ssdenoise.engine.trainer import Trainer
    from napari_ssdenoise.model import TrainedModel

DEFAULT_ALGORITHM = "n2v"

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class TrainingPlan:
    """How to train, as the command line says it."""

    algorithm: Algorithm | None  # None: a diagnosis of the image chooses
    targets: tuple[Path, ...]
    options: Mapping[str, Any]
    command: click.Command
    flags: Mapping[str, Any]
    start: TrainedModel | None = None  # to go on from

    @classmethod
    def from_flags(
        cls, context: click.Context, flags: Mapping[str, Any], default: str = DEFAULT_ALGORITHM
    ) -> TrainingPlan:
        """Check the flags against the chosen algorithm."""
        start = load_model(flags["start"]) if flags["start"] else None
        key = flags["algorithm"] or (start.algorithm.key if start else default)
        recommended = {f.name: getattr(start.reopened(), f.name) for f in fields(start.algorithm)} if start else {}
        if start and key != start.algorithm.key:
            raise click.UsageError(f"--start goes on from a model of {start.algorithm.key}; leave --algorithm out.")
        algorithm = None if key == AUTO else configure(context.command, key, flags, recommended)
        options = {name: flags[name] for name in ("steps", "seconds", "seed", "spatial", "device", "precision")}
        options["channels"] = flags["channels"] or "auto"
        if start:
            options |= {"spatial": options["spatial"] or start.geometry.spatial}
            options |= {} if flags["channels"] else {"channels": start.geometry.channels}
        return cls(algorithm, flags["target"], options, context.command, flags, start)

    def describe(self) -> dict[str, Any]:
        """Return all that decides what is trained."""
        given = {option.setting: self.flags[option.name or ""] for option in given_settings(self.command, self.flags)}
        about = {"start": str(self.flags["start"])} if self.start else {}
        return {"algorithm": self.algorithm or AUTO, "settings": given, **self.options, **about}

    def trainer(
        self, volumes: Sequence[Volume], axes: str | None, reporter: Reporter, outputs: Sequence[str] = ()
    ) -> tuple[Trainer, dict[str, Any]]:
        """Make the trainer; this imports torch.

        Parameters
        ----------
        outputs
            Of the algorithm, besides the mean, that will be asked for with ``--std``.

        Returns
        -------
        trainer
        about
            How its algorithm was chosen, if a diagnosis did.

        Raises
        ------
        ValueError
            If the chosen algorithm does not fit what else the command line says.
        """
        targets = open_all(self.targets, axes)
        about: dict[str, Any] = {}
        algorithm = self.algorithm
        if algorithm is None:
            # Of several images, which should be of one kind, the first stands for all.
            algorithm, about = diagnosed(volumes[0], targets[0] if targets else None, self._configured, reporter)
            targets = targets if wants_target(algorithm) else []
        require_outputs(algorithm, outputs, "--std")
        from napari_ssdenoise.engine.trainer import Trainer

        return Trainer(algorithm, list(volumes), target=targets or None, start=self.start, **self.options), about

    def _configured(self, key: str, recommended: Mapping[str, Any]) -> Algorithm:
        try:
            return configure(self.command, key, self.flags, recommended)
        except click.UsageError as error:
            raise ValueError(
                f"{error.format_message()} The diagnosis chose {key}; name the algorithm with --algorithm."
            ) from error


def training_options(command: Command, default: str = DEFAULT_ALGORITHM, more: tuple[str, ...] = ()) -> Command:
    """Add the flags of `TrainingPlan`, apart from the algorithms' settings and those of `computing_options`.

    ``more`` algorithms are offered that are no `Algorithm`.
    """
    from napari_ssdenoise.algorithms import algorithms_for

    algorithm_help = f"How to learn; auto looks at the noise and chooses. {default} by default."
    options = (
        click.option("--algorithm", type=click.Choice([AUTO, *algorithms_for("denoise"), *more]), help=algorithm_help),
        click.option(
            "--steps",
            type=click.IntRange(min=1),
            help="Length of the training; by default 2000 steps, 300 where weights that come with the program fit.",
        ),
        click.option(
            "--seconds", type=click.FloatRange(min=0, min_open=True), help="Length of the training in seconds."
        ),
        click.option(
            "--spatial",
            type=click.Choice(["YX", "ZYX", "TYX"], case_sensitive=False),
            metavar="YX|ZYX|TYX",
            help="What the network looks at: planes, stacks, or neighbouring frames; by default what the axes suggest.",
        ),
        click.option(
            "--channels",
            type=click.Choice(["auto", "independent", "joint"]),
            help="Each channel by itself, or all at once; auto: joint for RGB only, and not with blindspot.",
        ),
        click.option(
            "--target",
            type=click.Path(path_type=Path),
            multiple=True,
            help="Second image of the same scene, once per IN: noisy for n2n, clean for supervised.",
        ),
        click.option("--start", type=click.Path(path_type=Path), help="A saved model to go on from, with new images."),
        click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, help="Of weights, patches and masks."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def computing_options(command: Command) -> Command:
    """Add ``--axes``, ``--device`` and ``--precision``."""
    options = (
        click.option("--axes", metavar="TCZYXS", help="One letter per dimension, if the file names none."),
        click.option("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps."),
        click.option(
            "--precision",
            type=click.Choice(["auto", "float32", "bfloat16"]),
            default="auto",
            help="bfloat16 is faster where the hardware has it; float32 is exact.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def open_all(paths: Sequence[Path], axes: str | None) -> list[Volume]:
    """Open images, and refuse early what no algorithm can work on."""
    volumes = [open_volume(path, axes=axes) for path in paths]
    for volume in volumes:
        require_intensities(real_view(volume))
    return volumes


def load_model(path: Path) -> TrainedModel:
    """Load a saved model, and say at once if there is none."""
    if not path.exists():
        raise FileNotFoundError(f"there is no model {path}. Check the name.")
    from napari_ssdenoise.model import TrainedModel

    return TrainedModel.load(path)


def describe_volume(volume: Volume) -> str:
    """Say in a few words what an image is."""
    return f"{volume.name} ({volume.axes} {' x '.join(map(str, volume.shape))}, {volume.dtype})"


def run_training(trainer: Trainer, checkpoint: Path, reporter: Reporter) -> dict[str, Any]:
    """Train to the end of the budget, or to Ctrl-C, keeping a checkpoint.

    The checkpoint is left to the caller, who removes it when what it serves is on disk.

    Returns
    -------
    dict
        ``steps``, ``train_seconds``, ``loss`` and the time from the start of the program to the first step.

    Raises
    ------
    Stopped
        After Ctrl-C, when the checkpoint is written.
    """
    from napari_ssdenoise.engine.device import describe_device

    if said := resume_training(trainer, checkpoint):
        reporter.say(said)
    for remark in trainer.remarks:
        reporter.say(f"note: {remark}")
    reporter.say(f"training {trainer.algorithm.title} on {describe_device(trainer.device, trainer.dtype)}")
    first = _steps(trainer, checkpoint, reporter)
    loss = trainer.history[-1][2] if trainer.history else None
    result = {"steps": trainer.step, "train_seconds": trainer.seconds, "loss": loss, "first_step_seconds": first}
    return result if trainer.moved is None else {**result, **_about_the_start(trainer, reporter)}


def _about_the_start(trainer: Trainer, reporter: Reporter) -> dict[str, Any]:
    """Say how far a training went from weights that it had not learnt itself, and whether that helped."""
    whose = "the model's" if trainer.start else "those that come with the program"
    text = f"the weights moved by {trainer.moved:.1%} from {whose}"
    losses = [loss for _, _, loss in trainer.held_out]
    if len(losses) > 1:
        text += f"; the loss on parts held out went from {losses[0]:.4f} to {losses[-1]:.4f}"
    reporter.say(f"{text}.")
    return {"moved": trainer.moved, "held_out_loss": [losses[0], losses[-1]] if losses else None}


def _steps(trainer: Trainer, checkpoint: Path, reporter: Reporter) -> float | None:
    """Take all steps; return when, since the start of the program, the first one was done."""
    first: float | None = None
    mean = 0.0
    failures: list[str] = []
    steps = train_with_checkpoints(trainer, checkpoint, warn=failures.append)
    with stop_between_steps() as stop_asked, reporter.progress("training") as update:
        for count, step in enumerate(steps):
            first = first or seconds_since_start()
            mean += (step.loss - mean) * max(0.02, 1 / (count + 1))
            total = f"/{step.steps}" if step.steps else ""
            update(step.fraction, step.remaining, f"step {step.step}{total}, loss {mean:.4f}")
            _report(failures, reporter)
            if stop_asked():
                steps.close()
                but = f"but {failures[-1]}" if failures else ""
                kept = f"which is kept in {checkpoint}. The same command goes on from there."
                raise Stopped(f"at step {trainer.step}, {but or kept}")
    _report(failures, reporter)
    return first


def _report(failures: list[str], reporter: Reporter) -> None:
    """Say which checkpoints could not be written."""
    for failure in failures:
        reporter.fail(f"{failure} The training goes on.")
    failures.clear()


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question to ask, so that no step is left half done; a second one is immediate."""
    asked = False

    def note(*_: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread hears signals
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
