"""What a training run is told (`FitSettings`) and what it tells (`History`)."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import optax

from jaxsed.learn.soap import scale_by_soap

# Directions of descent without a learning rate; `fit` multiplies by the rate itself, so that
# changing the rate never recompiles.
_OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "nadam": lambda: optax.scale_by_adam(b1=0.9, b2=0.999, nesterov=True),
    "adam": lambda: optax.scale_by_adam(b1=0.9, b2=0.999),
    "soap": scale_by_soap,
}


def make_optimizer(name: str, clip_norm: float | None = None) -> optax.GradientTransformation:
    """The optimiser of this name, giving steps for a learning rate of one, after the gradient was
    shortened to a norm of `clip_norm`."""
    if name not in _OPTIMIZERS:
        raise ValueError(f"unknown optimizer {name!r}: choose one of {sorted(_OPTIMIZERS)}")
    optimizer = _OPTIMIZERS[name]()
    if clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)


def constant_adam(rate: float) -> optax.GradientTransformation:
    """Adam at one learning rate, for what adapts by gradient outside of `fit`."""
    return optax.adam(rate)


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """Optimiser, learning-rate schedule and limits of `fit`.

    The defaults are those of Mathews et al. (2023, section 2.2): NADAM in three stages of
    constant rate, each until 20 epochs brought nothing better or 1000 are over.

    With `max_seconds` the schedule runs on the clock as well: it has advanced by the larger of
    the fraction of the epochs and the fraction of the time, so a cosine always ends at its last
    rate, and stage k of a staged schedule ends at the latest at the k-th of `stage_ends`.
    """

    optimizer: str = "nadam"  # "nadam", "adam" or "soap"
    schedule: str = "staged"  # "staged": one stage per rate; "cosine": first rate to last rate
    learning_rates: tuple[float, ...] = (1e-3, 1e-4, 1e-5)
    batch_size: int | tuple[int, ...] = 1000  # one for all stages or one each
    epochs: int = 1000  # at most, per stage
    patience: int = 20  # epochs of a stage without improvement before it ends
    warmup: float = 0.02  # first fraction of a cosine, in which the rate rises from zero
    clip_norm: float | None = None  # longest gradient, for losses with rare huge terms
    validation_fraction: float = 0.05
    validation_max: int = 50_000
    max_seconds: float | None = None
    stage_ends: tuple[float, ...] | None = None  # fractions of max_seconds; default: see stages

    def __post_init__(self):
        make_optimizer(self.optimizer)
        if self.schedule not in ("staged", "cosine"):
            raise ValueError(f"unknown schedule {self.schedule!r}: choose 'staged' or 'cosine'")
        if not self.learning_rates or min(self.learning_rates) < 0:
            raise ValueError(f"expected non-negative learning rates, got {self.learning_rates}")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"expected 0 < validation_fraction < 1, got {self.validation_fraction}"
            )
        for name in ("epochs", "patience", "validation_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"expected clip_norm > 0 or None, got {self.clip_norm}")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"expected max_seconds > 0 or None, got {self.max_seconds}")
        n = len(self.learning_rates) if self.schedule == "staged" else 1
        sizes = (self.batch_size,) if isinstance(self.batch_size, int) else self.batch_size
        if len(sizes) not in (1, n) or min(sizes) < 1:
            raise ValueError(f"expected one positive batch_size or {n} of them, got {sizes}")
        ends = self.stage_ends
        if ends is not None and (len(ends) != n or sorted(ends) != list(ends) or ends[-1] != 1):
            raise ValueError(f"expected {n} increasing stage_ends, the last of them 1, got {ends}")

    def stages(self) -> tuple["Stage", ...]:
        """The stages in order. Without `stage_ends` each takes half of the time that is left."""
        if self.schedule == "cosine":
            rates: tuple = (_cosine(self.learning_rates[0], self.learning_rates[-1], self.warmup),)
        else:
            rates = tuple(_constant(rate) for rate in self.learning_rates)
        n = len(rates)
        sizes = (self.batch_size,) * n if isinstance(self.batch_size, int) else self.batch_size
        sizes = tuple(sizes) * (n if len(sizes) == 1 else 1)
        ends = self.stage_ends or (*(1 - 0.5 ** (k + 1) for k in range(n - 1)), 1.0)
        return tuple(Stage(*stage) for stage in zip(rates, sizes, ends, strict=True))

    def out_of_time(self, elapsed: float) -> bool:
        """Whether this many seconds use the limit up."""
        return self.max_seconds is not None and elapsed >= self.max_seconds

    def to_dict(self) -> dict:
        """The settings as JSON types."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of the schedule; `at` in its methods is the run's `Progress`."""

    rate: Callable[[float], float]  # learning rate at a fraction of the stage
    batch_size: int
    end: float  # fraction of max_seconds at which the stage is over

    def fraction(self, at, settings: FitSettings, epoch_part: float = 0.0) -> float:
        """How far the stage has advanced, 0 to 1."""
        done = (at.stage_epoch + epoch_part) / settings.epochs
        if settings.max_seconds is not None:
            length = self.end * settings.max_seconds - at.stage_began
            done = max(done, (at.elapsed - at.stage_began) / max(length, 1e-9))
        return min(done, 1.0)

    def out_of_time(self, at, settings: FitSettings) -> bool:
        """Whether the stage's share of the time is used up."""
        return settings.out_of_time(at.elapsed / self.end)


def _constant(rate):
    return lambda fraction: rate


def _cosine(first, last, warmup):
    def rate(fraction):
        if fraction < warmup:
            return first * max(fraction / warmup, 1e-3)
        x = (fraction - warmup) / (1 - warmup)
        return last + (first - last) * 0.5 * (1 + math.cos(math.pi * x))

    return rate


@dataclasses.dataclass(frozen=True)
class History:
    """Record of a run, one entry per epoch (the last may be part of one)."""

    stage: np.ndarray  # [epoch]
    train_loss: np.ndarray  # [epoch] mean over the epoch's batches
    validation_loss: np.ndarray  # [epoch]
    learning_rate: np.ndarray  # [epoch] at its end
    samples: np.ndarray  # [epoch] trained on since the start
    seconds: np.ndarray  # [epoch] since the start
    best_epoch: int
    best_loss: float  # validation loss of the model that was returned
    stopped: str  # "schedule finished", "time limit", "loss not finite" or "loss diverged"

    @classmethod
    def of(cls, records: list[tuple], best_epoch: int, best_loss: float, stopped: str) -> "History":
        """From tuples in the order of the fields."""
        columns = np.array(records, float).reshape(-1, 6).T
        stage, train, validation, rate, samples, seconds = columns
        return cls(
            stage.astype(int), train, validation, rate, samples.astype(int), seconds,
            best_epoch, best_loss, stopped,
        )  # fmt: skip

    @property
    def samples_per_second(self) -> float:
        """Mean training speed, validation and compilation included."""
        return float(self.samples[-1] / self.seconds[-1]) if len(self.samples) else math.nan

    def to_dict(self) -> dict:
        """The record as JSON types."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in dataclasses.asdict(self).items()
        }
