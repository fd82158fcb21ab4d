"""The one way to a posterior: ``sample(keys, problem, method=...)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.infer import chains as mc
from jaxsed.infer import kernels
from jaxsed.infer.samples import Diagnostics, Samples, convergence
from jaxsed.problem import Problem

SEGMENT = 100
"""Transitions per compiled call."""

HMC_STEPS = (3, 16)
"""Range of the shared number of leapfrog steps, drawn anew for every transition."""

STEP_FACTORS = ((1.0, 0.75), (0.4, 0.15), (0.15, 0.1))
"""Factors of the step size and how often each is used."""

LEARN_FROM = 4800
"""Draws that the mixture of the global moves is fitted to."""

WARMUP_MEMORY = 3
"""Warm-up segments whose draws it is fitted to before there are others."""


Report = Callable[[str, int, int], Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample.

    The warm-up runs more chains than are kept: its draws teach the global moves where the posterior
    is, and what few chains do not come across in time would hold them up later.

    A galaxy that misses the bar is run again, its global moves learned anew from the runs before,
    which are then left out; each run but the first repeat is twice as long as the one before.
    After `retries` of these the galaxy is returned as it is, and its diagnostics say so. Longer
    runs are thinned to `draws` per chain in the end; their diagnostics are those of all draws.
    """

    chains: int = 4
    warmup_chains: int = 16
    warmup: int = 400
    draws: int = 1000
    retries: int = 4
    max_tree_depth: int = 6
    target_acceptance: float = 0.8
    starts: int = 16

    def __post_init__(self) -> None:
        if self.chains < 2:
            raise ValueError(f"expected at least 2 chains for R-hat, got {self.chains}")
        if self.warmup_chains < self.chains:
            raise ValueError(
                f"expected at least as many chains in the warm-up as after it ({self.chains}), "
                f"got {self.warmup_chains}"
            )
        if min(self.warmup, self.draws) < SEGMENT:
            raise ValueError(f"expected warmup and draws of at least {SEGMENT} transitions")


METHODS: dict[str, Callable[[Settings], kernels.Kernel]] = {
    "nuts": lambda s: kernels.nuts(
        max_tree_depth=s.max_tree_depth, target_acceptance=s.target_acceptance
    ),
    "hmc": lambda s: kernels.hmc(target_acceptance=s.target_acceptance),
}

_KERNELS: dict[tuple[str, Settings], kernels.Kernel] = {}


def _kernel(method: str, settings: Settings) -> kernels.Kernel:
    """The same kernel object for the same settings, so that nothing compiles twice."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: expected one of {', '.join(METHODS)}")
    key = (method, settings)
    if key not in _KERNELS:
        _KERNELS[key] = METHODS[method](settings)
    return _KERNELS[key]


def sample(
    keys: Array,
    problem: Problem,
    *,
    method: str = "nuts",
    settings: Settings | None = None,
    report: Report | None = None,
) -> Samples:
    """Draw from the posterior of one galaxy or of a batch.

    Args:
        keys: one key, or one per galaxy [galaxy]; a galaxy's draws depend on its key alone, not
            on its neighbours.
        problem: one galaxy, or a batch (see `Problem`) with as many galaxies as keys.
        method: "nuts" or "hmc".
        settings: how long, how many chains.
        report: called with (phase, transitions done, galaxies still running) after each segment.

    Raises ValueError for an unknown method or a batch that does not fit the keys.
    """
    settings = settings or Settings()
    kernel = _kernel(method, settings)
    if keys.ndim == 0:
        problem = dataclasses.replace(
            problem,
            prior=jax.tree.map(lambda a: jnp.asarray(a)[None], problem.prior),
            data=jax.tree.map(lambda a: a[None], problem.data),
        )
        keys = keys[None]
    n = keys.shape[0]
    galaxies = jax.tree.leaves(problem.data)[0].shape[0]
    if galaxies != n:
        raise ValueError(f"{n} keys for {galaxies} galaxies")
    report = report or (lambda phase, done, running: None)
    batch = _Batch(keys, problem, np.arange(n))
    gradients, draws = _warm_up(batch, settings, report)
    runs: dict[int, mc.Segment] = {}
    found: dict[int, Diagnostics] = {}
    for attempt in range(settings.retries + 1):
        late = [g for g in range(n) if g not in found or not found[g].passes()[0]]
        if not late:
            break
        batch = batch.only(np.array(late))
        if attempt:
            draws |= {g: np.concatenate([draws[g], _pooled(runs[g].x)]) for g in late}
            batch.learn(7000 + attempt, [draws[g] for g in late])
        segment = _draw(batch, kernel, settings, attempt, report)
        runs |= {g: jax.tree.map(lambda a, r=row: a[r], segment) for row, g in enumerate(late)}
        gradients[late] += segment.gradients
        rows = _diagnose([runs[g] for g in late], gradients[late], batch.problem)
        found |= dict(zip(late, rows, strict=True))
    kept = [_thinned(runs[g], settings.draws) for g in range(n)]
    x = np.stack([run.x for run in kept])
    theta, _, flux = _describe(x, problem)
    return Samples(
        theta=theta,
        x=x,
        log_density=np.stack([run.log_density for run in kept]),
        flux=flux,
        diagnostics=jax.tree.map(lambda *v: np.concatenate(v), *[found[g] for g in range(n)]),
        method=(method,) * n,
    )


def _thinned(run: mc.Segment, draws: int) -> mc.Segment:
    rows = np.linspace(0, run.x.shape[1] - 1, draws).round().astype(int)
    return run._replace(x=run.x[:, rows], log_density=run.log_density[:, rows])


def _diagnose(runs: list[mc.Segment], gradients: np.ndarray, problem: Problem) -> list[Diagnostics]:
    """One-galaxy `Diagnostics` of runs of equal length."""
    x = np.stack([run.x for run in runs])
    u = _describe(x, problem)[1]
    rhat, bulk, tail = convergence(u)
    moved = np.any(np.diff(x, axis=2) != 0, axis=-1).mean(axis=(1, 2))
    one = np.newaxis
    return [
        Diagnostics(
            rhat[i][one], bulk[i][one], tail[i][one], np.array([run.divergences]),
            moved[i][one], gradients[i][one],
        )
        for i, run in enumerate(runs)
    ]  # fmt: skip


def _describe(x: np.ndarray, problem: Problem) -> tuple[Any, np.ndarray, np.ndarray]:
    """Theta, coordinates u and kept predictions of draws, in blocks of shapes that are compiled."""
    n, _, length, _ = x.shape
    rows = np.arange(_padded(n)) % n
    padded, taken = mc.place(jnp.asarray(x[rows]), _take(problem, rows))
    blocks = []
    for start in range(0, length, SEGMENT):
        # The last block may overlap the one before: its shape stays the same.
        begin = max(min(start, length - SEGMENT), 0)
        out = mc.describe_batch(padded[:, :, begin : begin + SEGMENT], taken)
        blocks.append(jax.tree.map(lambda a, s=start - begin: np.asarray(a)[:n, :, s:], out))
    sampled, u, flux = jax.tree.map(lambda *a: np.concatenate(a, axis=2), *blocks)
    return type(problem.prior)(**sampled), u, flux


def _key_at(keys: Array, step: int) -> Array:
    return jax.vmap(lambda k: jax.random.fold_in(k, step))(keys)


def _schedule(step: int) -> mc.Schedule:
    """Lengths and step factors of one segment: the same for every galaxy and run."""
    generator = np.random.default_rng(step)
    low, high = HMC_STEPS
    factors, shares = zip(*STEP_FACTORS, strict=True)
    return mc.Schedule(
        jnp.asarray(generator.integers(low, high + 1, SEGMENT)),
        jnp.asarray(generator.choice(factors, SEGMENT, p=shares), dtype=float),
    )


class _Batch:
    """Galaxies that are being sampled, padded to a size that compiled code exists for."""

    def __init__(
        self, keys: Array, problem: Problem, index: np.ndarray, chains: mc.Chains | None = None
    ) -> None:
        self.index = index
        """[galaxy] positions in the caller's batch."""
        n = index.size
        self.rows = np.arange(_padded(n)) % n  # padding repeats galaxies
        self.keys = keys[self.rows]
        self.chains = None if chains is None else jax.tree.map(lambda a: a[self.rows], chains)
        self.chains, self.problem = mc.place(self.chains, _take(problem, self.rows))

    def only(self, index: np.ndarray) -> _Batch:
        """The part of the batch at these positions of the caller's batch."""
        if index.size == self.index.size:
            return self
        rows = np.flatnonzero(np.isin(self.index, index))
        chains = jax.tree.map(lambda a: a[rows], self.chains)
        return _Batch(self.keys[rows], _take(self.problem, rows), self.index[rows], chains)

    def learn(self, number: int, draws: list[np.ndarray]) -> None:
        """Fit the mixtures of the global moves to each galaxy's draws [draw, dimension]."""
        rows = [np.linspace(0, len(d) - 1, LEARN_FROM).round().astype(int) for d in draws]
        chosen = np.stack([d[r] for d, r in zip(draws, rows, strict=True)])[self.rows]
        self.chains = mc.learn_batch(
            _key_at(self.keys, number), self.chains, jnp.asarray(chosen), self.problem
        )

    def real(self, values: Any) -> Any:
        """Values of the galaxies without the padding, as numpy."""
        return jax.tree.map(lambda a: np.asarray(a)[: self.index.size], values)


def _padded(n: int) -> int:
    """The next size that is a power of two, or three times one, on every device."""
    devices = mc.device_count()
    per_device = -(-n // devices)
    power = 1 << (per_device - 1).bit_length()
    size = power * 3 // 4 if power >= 4 and per_device <= power * 3 // 4 else power
    return size * devices


def _take(problem: Problem, rows: np.ndarray) -> Problem:
    prior, data = jax.tree.map(lambda a: a[rows], (problem.prior, problem.data))
    return dataclasses.replace(problem, prior=prior, data=data)


def _warm_up(
    batch: _Batch, settings: Settings, report: Report
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Adapted chains of a batch; gradients per galaxy and the last draws of each galaxy.

    It moves by HMC for every method: the scale, the step size and the mixture that it learns
    serve them all, and no lane waits for the deepest tree of the others.
    """
    kernel = _kernel("hmc", settings)
    keys = _key_at(batch.keys, 0)
    report("start", 0, batch.index.size)
    batch.chains = mc.begin_batch(
        keys, batch.problem, chains=settings.warmup_chains, starts=settings.starts
    )
    gradients = np.zeros(batch.index.size)
    recent: list[np.ndarray] = []
    for step in range(settings.warmup // SEGMENT):
        batch.chains, segment = mc.advance_batch(
            _key_at(batch.keys, 1 + step), batch.chains, batch.problem, _schedule(step),
            kernel=kernel, adapt=True,
        )  # fmt: skip
        gradients += batch.real(segment.gradients)
        recent = [*recent, batch.real(segment.x)][-WARMUP_MEMORY:]
        draws = [np.concatenate([_pooled(x) for x in own]) for own in zip(*recent, strict=True)]
        if step > 0:
            batch.learn(5000 + step, draws)
        report("warm-up", (step + 1) * SEGMENT, batch.index.size)
    kept = np.linspace(0, settings.warmup_chains - 1, settings.chains).round().astype(int)
    batch.chains = batch.chains._replace(x=batch.chains.x[:, kept])
    return gradients, dict(enumerate(draws))


def _pooled(x: np.ndarray | Array) -> np.ndarray:
    """Draws [chain, draw, dimension] of all chains in the order they were made."""
    return np.swapaxes(np.asarray(x), 0, 1).reshape(-1, x.shape[-1])


def _draw(
    batch: _Batch, kernel: kernels.Kernel, settings: Settings, attempt: int, report: Report
) -> mc.Segment:
    """A run of the galaxies in a batch; later attempts are longer."""
    parts = []
    for step in range(settings.draws // SEGMENT * 2 ** max(attempt - 1, 0)):
        number = 10_000 * (1 + attempt) + step
        batch.chains, segment = mc.advance_batch(
            _key_at(batch.keys, number), batch.chains, batch.problem, _schedule(number),
            kernel=kernel, adapt=False,
        )  # fmt: skip
        parts.append(batch.real(segment))
        phase = "sampling" if attempt == 0 else f"again, longer ({attempt})"
        report(phase, (step + 1) * SEGMENT, batch.index.size)
    x = np.concatenate([p.x for p in parts], axis=2)
    log_density = np.concatenate([p.log_density for p in parts], axis=2)
    return parts[-1]._replace(
        x=x,
        log_density=log_density,
        divergences=sum(p.divergences for p in parts),
        gradients=sum(p.gradients for p in parts),
    )
