"""The progress line of a training run."""

import time

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressLine:
    """Context manager that shows one line, or nothing when disabled."""

    def __init__(self, enabled: bool, n_stages: int):
        self._bar = Progress(
            TextColumn("stage {task.fields[stage]}/" + str(n_stages)),
            BarColumn(bar_width=24),
            TextColumn("epoch {task.fields[epoch]}"),
            TextColumn("loss {task.fields[loss]:.5f} validation {task.fields[validation]:.5f}"),
            TextColumn("{task.fields[speed]:,.0f} samples/s"),
            TimeRemainingColumn(compact=True),
            disable=not enabled,
        )
        blank = {"stage": 1, "epoch": 0, "loss": float("nan"), "speed": 0.0}
        self._task = self._bar.add_task("", total=1.0, validation=float("nan"), **blank)
        self._last = (time.perf_counter(), None)

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *error):
        self._bar.stop()

    def round_done(self, at, loss: float, fraction: float) -> None:
        """Show a round's loss; `fraction` is how far the stage is."""
        then, samples = self._last
        now = time.perf_counter()
        self._last = (now, at.samples)
        speed = 0.0 if samples is None else (at.samples - samples) / (now - then)
        self._bar.update(self._task, completed=fraction, loss=loss, speed=speed, stage=at.stage + 1)

    def epoch_done(self, at, validation: float) -> None:
        """Show an epoch's validation loss."""
        self._bar.update(self._task, epoch=at.epoch, validation=validation)
