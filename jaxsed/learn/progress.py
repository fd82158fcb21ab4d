"""The progress line of a training run."""

import math
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
        self._task = self._bar.add_task(
            "", total=1.0, stage=1, epoch=0, loss=math.nan, validation=math.nan, speed=0.0
        )
        self._last: tuple[float, int] | None = None

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *error):
        self._bar.stop()

    def round_done(self, at, loss: float, fraction: float) -> None:
        """Show a round's loss; `fraction` is how far the stage is."""
        now, then = (time.perf_counter(), at.samples), self._last
        self._last = now
        speed = (now[1] - then[1]) / (now[0] - then[0]) if then else 0.0
        self._bar.update(self._task, completed=fraction, loss=loss, speed=speed, stage=at.stage + 1)

    def epoch_done(self, at, validation: float) -> None:
        """Show an epoch's validation loss."""
        self._bar.update(self._task, epoch=at.epoch, validation=validation)
