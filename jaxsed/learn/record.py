"""What a trained network says of its training."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import jax
import numpy as np

import jaxsed
from jaxsed.learn.settings import History


@dataclasses.dataclass(frozen=True)
class TrainingRecord:
    """How one network was trained; see `training_record`."""

    settings: dict[str, Any] = dataclasses.field(hash=False, compare=False)
    """Sizes and schedule, JSON types."""
    seed: tuple[int, ...]
    """Words of the random key."""
    training_seconds: float
    samples_trained_on: int
    best_loss: float
    """The lowest loss of the validation set, which the weights are those of."""
    stopped: str
    """Why the training ended."""
    backend: str
    """Of JAX, such as "cpu"."""
    jax: str
    """Versions of JAX and of this package."""
    jaxsed: str

    def to_dict(self, loss: str) -> dict[str, Any]:
        """As JSON types, with the name of the loss in place of "best_loss"."""
        named = dataclasses.asdict(self) | {"seed": list(self.seed), loss: self.best_loss}
        del named["best_loss"]
        return named


def training_record(seed: jax.Array, settings: Any, history: History) -> TrainingRecord:
    """The record of a training that `fit` has done.

    Args:
        seed: words of the random key of the whole training, ``jax.random.key_data(key)``.
        settings: a dataclass.
        history: what `fit` returned.
    """
    return TrainingRecord(
        settings=json.loads(json.dumps(dataclasses.asdict(settings), default=_as_list)),
        seed=tuple(np.asarray(seed).tolist()),
        training_seconds=round(float(history.seconds[-1]), 1),
        samples_trained_on=int(history.samples[-1]),
        best_loss=float(history.best_loss),
        stopped=history.stopped,
        backend=jax.default_backend(),
        jax=jax.__version__,
        jaxsed=jaxsed.__version__,
    )


def _as_list(value: Any) -> Any:
    return np.asarray(value).tolist()
