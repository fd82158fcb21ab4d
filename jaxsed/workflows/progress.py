"""What a training or a prediction tells while it runs and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxsed.core.flags import flag_counts
from jaxsed.core.types import Model
from jaxsed.learn import History


def counter(wanted: bool, things: str) -> Callable[[int, int], None] | None:
    """A function of (done, in all) that rewrites a line on standard error, or None."""
    if not wanted:
        return None
    from rich.console import Console

    console = Console(stderr=True)
    return lambda done, n: console.print(f"{done} of {n} {things}", end="\r" if done < n else "\n")


def summary_of_flags(
    flags: np.ndarray, texts: Mapping[Any, str], things: str, table: Path
) -> list[str]:
    """How many rows of a table have no flag, and how often there is each."""
    good = int((flags == 0).sum())
    counts = flag_counts(flags, texts)
    return [
        f"{good} of {len(flags)} {things} without a flag: {table}",
        *(f"  {n}: {text}" for text, n in counts),
    ]


def summary_of_training(histories: Sequence[History]) -> list[str]:
    """A line for each training."""
    return [
        f"best epoch {h.best_epoch} of {len(h.seconds)}, validation loss {h.best_loss:.4f}, "
        f"{h.seconds[-1]:.0f} s: {h.stopped}"
        for h in histories
    ]


def checkpoint_of(output: Path) -> str:
    """Where the members of an ensemble keep their checkpoints: this and their numbers."""
    return f"{output}.checkpoint"


def save_trained(model: Model, output: Path) -> None:
    """Write a model, and forget the checkpoints of its members."""
    model.save(output)
    for i in range(len(model.members)):
        Path(f"{checkpoint_of(output)}.{i}").unlink(missing_ok=True)
