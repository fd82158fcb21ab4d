"""How trainings went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxsed.plots.style import BLUE, ORANGE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3
"""Panels side by side at most."""

SHOWN = 0.7
"""Share of the epochs, the last ones, that sets the range of the loss."""


@styled
def loss_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Training and validation loss against the epoch, one panel per model.

    Args:
        histories: by the name of a model, those of its trainings (`History.to_dict`), one line
            each; a dot is the epoch that was kept.

    Raises ValueError if there is none.
    """
    if not histories:
        raise ValueError("no history of a training to draw")
    columns = min(COLUMNS, len(histories))
    rows = -(-len(histories) // columns)
    figure = new_figure(3.0 * columns + 0.4, 2.3 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for ax, (name, runs) in zip(axes.flat, histories.items(), strict=False):
        late = []
        for k, run in enumerate(runs):
            epoch = 1 + np.arange(len(run["train_loss"]))
            for key, colour, label in (
                ("train_loss", BLUE, "training"), ("validation_loss", ORANGE, "kept apart"),
            ):  # fmt: skip
                loss = np.asarray(run[key], float)
                ax.plot(epoch, loss, color=colour, lw=0.9, alpha=0.8, label="" if k else label)
                late.append(loss[round((1 - SHOWN) * len(loss)) :])
            best = run["best_epoch"]
            ax.plot(best + 1, run["validation_loss"][best], "o", color=ORANGE, ms=4)
        low, high = np.nanmin(np.concatenate(late)), np.nanmax(np.concatenate(late))
        pad = 0.05 * (high - low) or 1.0
        ax.set_ylim(low - pad, high + pad)
        ax.set_title(name)
    for ax in axes.flat[len(histories) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("loss")
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    axes.flat[0].legend()
    return figure
