"""Ensembles: the same training several times, from other weights (Lakshminarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxsed.learn.loop import fit
from jaxsed.learn.settings import FitSettings, History


def fit_ensemble(
    keys: list[jax.Array],
    init: Callable[[jax.Array], Any],
    loss: Callable[..., Any],
    data: Any,
    *,
    settings: FitSettings,
    validation: Any,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> tuple[tuple[Any, ...], list[History]]:
    """Train one network for each key.

    Args:
        keys: random keys of the members.
        init: gives the first weights by a key.
        loss: as `fit` takes it, and so `data` and `validation`.
        settings: of each training.
        checkpoint: HDF5 file to go on from if it exists; each member adds its number.
        progress: show a progress line.

    Returns the networks and the history of each.
    """
    members, histories = [], []
    for i, key in enumerate(keys):
        key_init, key_fit = jax.random.split(key)
        member, history = fit(
            key_fit, init(key_init), loss, data, settings=settings, validation=validation,
            progress=progress, checkpoint=f"{checkpoint}.{i}" if checkpoint else None,
        )  # fmt: skip
        members.append(member)
        histories.append(history)
    return tuple(members), histories
