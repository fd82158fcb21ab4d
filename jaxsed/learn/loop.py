"""`fit`: the training loop every learned part of the package uses.

An epoch is one pass over the shuffled data. It runs on the device as a few compiled scans over
minibatches ("rounds"), between which the host moves the learning rate, the progress bar and the
clock; so a run ends within a second or so of its time limit whatever the size of the data.
"""

import time
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key
from jaxsed.learn import checkpoints
from jaxsed.learn.progress import ProgressLine
from jaxsed.learn.settings import FitSettings, History, Stage, make_optimizer

Model = TypeVar("Model")
Loss = Callable[[Any, Any, Array], Array]
Data = Any  # pytree of [sample, ...] arrays, or a function key -> such a pytree

_ROUND_SAMPLES = 100_000
_CHECKPOINT_SECONDS = 30.0
_DIVERGED = 100.0  # times the validation loss of the first epoch


class TrainState(NamedTuple):
    """What one optimiser step changes."""

    model: Any
    optimizer: Any


class Progress(NamedTuple):
    """Where a run stands: host-side counters, stored in checkpoints."""

    stage: int = 0
    epoch: int = 0
    stage_epoch: int = 0
    stale_epochs: int = 0
    samples: int = 0
    elapsed: float = 0.0
    stage_began: float = 0.0
    pace: float = 0.0  # seconds per sample, of the last round
    best_loss: float = np.inf
    best_epoch: int = -1


def fit(
    key: Key,
    model: Model,
    loss: Loss,
    data: Data,
    *,
    settings: FitSettings | None = None,
    validation: Any = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> tuple[Model, History]:
    """Minimise a loss over the leaves of a model by minibatch gradient steps.

    Args:
        key: random key; fixes the validation split, the shuffles and the keys given to `loss`.
        model: pytree whose leaves are all floating-point arrays, all of them trained.
        loss: `loss(model, batch, key) -> scalar`, where `batch` is `data` with batch_size rows.
        data: pytree of arrays [sample, ...], or a function `data(key)` that makes such a pytree
            afresh for every epoch (then each sample is seen once).
        settings: optimiser, schedule and limits.
        validation: pytree like `data` that is never trained on; by default
            `settings.validation_fraction` of `data` is kept apart.
        checkpoint: HDF5 file written at ends of epochs and continued from if it exists; the
            result is the same as that of a run that was never interrupted, save for effects of
            a time limit.
        progress: show a progress line.

    Returns:
        The model with the lowest validation loss, and the History of the run. A loss that is not
        finite ends the run; `History.stopped` says so and the best model until then is returned.

    Raises:
        ValueError: leaves that are not floating-point arrays, arrays of unequal length, fewer
            samples than one batch, or a checkpoint of another run.
    """
    settings = settings or FitSettings()
    check_model(model)
    stages = settings.stages()
    key = typed_key(key)
    key_data, key_split, key_epochs = jax.random.split(key, 3)
    fresh = callable(data)
    first = data(key_data) if fresh else data
    n_samples = check_data(first)
    if validation is None:
        held = min(settings.validation_max, round(settings.validation_fraction * n_samples))
        order = _shuffled(key_split, np.arange(n_samples))
        validation = jax.tree.map(lambda a: jnp.asarray(a)[order[:held]], first)
        # fresh data never meets its validation samples again, so nothing has to be left out
        rows = np.arange(n_samples) if fresh else order[held:]
    else:
        rows = np.arange(n_samples)
    largest = max(stage.batch_size for stage in stages)
    if len(rows) < largest or check_data(validation) < 1:
        raise ValueError(
            f"expected at least one batch ({largest}) of training samples and one validation "
            f"sample, got {len(rows)} and {check_data(validation)}: use a smaller batch_size or "
            "more data"
        )
    first = None if fresh else jax.tree.map(jnp.asarray, first)

    compiled = _compiled if isinstance(loss, Hashable) else _compiled.__wrapped__
    optimizer, train_round, mean_loss = compiled(loss, settings.optimizer, settings.clip_norm)
    evaluate = partial(mean_loss, chunks=_chunks(validation, largest))
    best = _copy(model)
    state, at = _initial(best, optimizer), Progress()
    records: list[tuple] = []
    identity = checkpoints.identity(key, settings, model)
    if checkpoint is not None and Path(checkpoint).exists():
        saved = checkpoints.load(checkpoint, identity, {"state": state, "best": best})
        state, best = saved.trees["state"], saved.trees["best"]
        at, records = Progress(**saved.progress), saved.records

    clock = time.perf_counter() - at.elapsed
    last_saved, stopped = time.perf_counter(), "schedule finished"
    with ProgressLine(progress, len(stages)) as line:
        while at.stage < len(stages):
            stage = stages[at.stage]
            if _stage_is_over(stage, at, settings):
                if settings.out_of_time(at.elapsed):
                    stopped = "time limit"
                    break
                # each stage starts from the best model of the one before
                state = _initial(best, optimizer)
                at = at._replace(
                    stage=at.stage + 1, stage_epoch=0, stale_epochs=0, stage_began=at.elapsed
                )
                continue
            key_epoch = jax.random.fold_in(key_epochs, at.epoch)
            state, train_loss, at = _epoch(
                key_epoch, state, data if fresh else first, rows, stage, at,
                settings, train_round, lambda: time.perf_counter() - clock, line,
            )  # fmt: skip
            value = float(evaluate(state.model))
            at = at._replace(
                epoch=at.epoch + 1,
                stage_epoch=at.stage_epoch + 1,
                stale_epochs=at.stale_epochs + 1,
                elapsed=time.perf_counter() - clock,
            )
            if value < at.best_loss:
                best = _copy(state.model)
                at = at._replace(best_loss=value, best_epoch=at.epoch - 1, stale_epochs=0)
            rate = stage.rate(stage.fraction(at, settings))
            records.append((at.stage, train_loss, value, rate, at.samples, at.elapsed))
            line.epoch_done(at, value)
            if not (np.isfinite(value) and np.isfinite(train_loss)):
                stopped = "loss not finite"
                break
            first_loss = records[0][2]
            if 0 < first_loss < value / _DIVERGED:
                stopped = "loss diverged"
                break
            due = time.perf_counter() - last_saved > _CHECKPOINT_SECONDS
            if checkpoint is not None and (due or _stage_is_over(stage, at, settings)):
                trees = {"state": state, "best": best}
                checkpoints.save(checkpoint, identity, trees, at._asdict(), records)
                last_saved = time.perf_counter()
    return best, History.of(records, at.best_epoch, at.best_loss, stopped)


@partial(jax.jit, static_argnums=1)
def _initial(model, optimizer):
    # the rounds give their input buffers away, so no two leaves may share one
    return _copy(TrainState(model, optimizer.init(model)))


@jax.jit
def _copy(tree):
    return jax.tree.map(jnp.copy, tree)


def _epoch(key, state, data, rows, stage, at, settings, train_round, elapsed, line):
    """One pass over the data, or as much of it as the stage's time allows."""
    key_data, key_order, key_loss = jax.random.split(key, 3)
    if callable(data):
        data, order = jax.tree.map(jnp.asarray, data(key_data)), rows
    else:
        order = jnp.asarray(_shuffled(key_order, rows))
    n_steps = len(rows) // stage.batch_size
    n_rounds = max(1, round(n_steps * stage.batch_size / _ROUND_SAMPLES))
    round_steps = n_steps // n_rounds
    round_samples = round_steps * stage.batch_size
    losses = []
    for i in range(n_rounds):
        now = at._replace(elapsed=elapsed())
        begin = stage.fraction(now, settings, i / n_rounds)
        # the rate runs on at the pace of the round before, so that it has no steps
        then = now._replace(elapsed=now.elapsed + at.pace * round_samples)
        end = stage.fraction(then, settings, (i + 1) / n_rounds)
        fractions = np.linspace(begin, end, round_steps, endpoint=False)
        rates = np.array([stage.rate(f) for f in fractions], np.float32)
        state, loss = train_round(
            state, data, order, i * round_samples, rates, jax.random.fold_in(key_loss, i),
            batch_size=stage.batch_size,
        )  # fmt: skip
        losses.append(float(loss))
        at = at._replace(
            samples=at.samples + round_samples,
            elapsed=elapsed(),
            pace=(elapsed() - now.elapsed) / round_samples,
        )
        line.round_done(at, losses[-1], stage.fraction(at, settings, (i + 1) / n_rounds))
        if not np.isfinite(losses[-1]) or stage.out_of_time(at, settings):
            break
    return state, float(np.mean(losses)), at


def _shuffled(key, rows):
    # jax.random.permutation sorts several times over, which on a CPU costs a tenth of an epoch
    seed = np.asarray(jax.random.bits(key, (4,), np.uint32))
    return np.random.default_rng(seed).permutation(rows)


def _stage_is_over(stage: Stage, at: Progress, settings: FitSettings) -> bool:
    return (
        at.stage_epoch >= settings.epochs
        or at.stale_epochs >= settings.patience
        or stage.out_of_time(at, settings)
    )


@lru_cache(maxsize=4)
def _compiled(loss: Loss, optimizer_name: str, clip_norm: float | None):
    """Optimiser, jitted round and jitted mean loss.

    Trainings with one and the same loss, as those of an ensemble, share the compiled code.
    """
    optimizer = make_optimizer(optimizer_name, clip_norm)
    return optimizer, _compiled_round(loss, optimizer), _compiled_mean(loss)


def _compiled_round(loss: Loss, optimizer):
    """Jitted scan over the minibatches of one round; gives the old state's memory away."""

    def run(state, data, order, start, rates, key, *, batch_size):
        n_steps = rates.shape[0]
        picked = jax.lax.dynamic_slice(order, (start,), (n_steps * batch_size,))

        def step(state, inputs):
            index, rate, key = inputs
            batch = jax.tree.map(lambda a: a[index], data)
            value, gradient = jax.value_and_grad(loss)(state.model, batch, key)
            direction, memory = optimizer.update(gradient, state.optimizer, state.model)
            model = jax.tree.map(
                lambda p, d: (p - rate * d).astype(p.dtype), state.model, direction
            )
            return TrainState(model, memory), value

        inputs = (picked.reshape(n_steps, batch_size), rates, jax.random.split(key, n_steps))
        state, values = jax.lax.scan(step, state, inputs)
        return state, jnp.mean(values)

    return jax.jit(run, donate_argnums=0, static_argnames="batch_size")


def _compiled_mean(loss: Loss):
    """Jitted mean of the loss of a model over chunks of samples."""
    return jax.jit(
        lambda model, chunks: jnp.mean(
            jax.lax.map(lambda batch: loss(model, batch, jax.random.key(0)), chunks)
        )
    )


def _chunks(samples, batch_size):
    """[chunk, sample, ...] as many full batches as there are."""
    n = check_data(samples)
    size = min(n, batch_size)
    return jax.tree.map(
        lambda a: jnp.asarray(a)[: n // size * size].reshape(-1, size, *jnp.shape(a)[1:]), samples
    )


def check_model(model: Any) -> None:
    """ValueError unless every leaf of the model is a floating-point array."""
    leaves = jax.tree_util.tree_leaves_with_path(model)
    if not leaves:
        raise ValueError("expected a model with at least one trainable array, got none")
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"expected floating-point leaves only, got {jnp.result_type(leaf)} at "
                f"model{jax.tree_util.keystr(path)}: pass the trainable part of the model alone"
            )


def check_data(data: Any) -> int:
    """Number of samples; ValueError unless all leaves share their leading axis."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(f"expected arrays with one shared leading axis, got lengths {lengths}")
    return lengths.pop()[0]
