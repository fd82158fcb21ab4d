"""The one way to a posterior: ``sample(keys, problem, method=...)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed import params
from jaxsed.core.keys import typed_keys
from jaxsed.infer.amortised import Amortised
from jaxsed.infer.amortised.run import by_flow
from jaxsed.infer.methods import KERNELS, METHODS, SINGLE_CALL
from jaxsed.infer.samples import Samples
from jaxsed.infer.schedule import chains as mc
from jaxsed.infer.schedule.galaxies import GalaxyStates
from jaxsed.infer.schedule.run import KernelRun, Report
from jaxsed.infer.schedule.slots import padded, take
from jaxsed.infer.settings import Settings
from jaxsed.problem import Problem

Keep = Callable[[np.ndarray, Callable[[np.ndarray], Samples]], Any]
"""``keep(finished, samples)``: positions of galaxies, and their `Samples` as a function of them."""

AUTO = "auto"

AUTO_RETRIES = 2
"""Longer runs of HMC from a flow's draws before it starts from the best fits."""

SINGLE_CALL_BLOCK = 32
"""Galaxies in a compiled call of methods that run each of them from start to end."""


def sample(
    keys: Array,
    problem: Problem,
    *,
    method: str = "hmc",
    settings: Settings | None = None,
    derive: Any = None,
    amortised: Amortised | None = None,
    report: Report | None = None,
    keep: Keep | None = None,
) -> Samples:
    """Draw from the posterior of one galaxy or of a batch.

    Args:
        keys: one key, or one per galaxy [galaxy], of either of JAX's kinds.  The random numbers of
            a galaxy depend on its key alone, not on its neighbours or its place among them.  The
            same batch in any order gives the same draws; a batch of another size is another
            compiled program, which rounds differently, and its draws agree within their Monte
            Carlo error.
        problem: one galaxy, or a batch (see `Problem`) with as many galaxies as keys.
        method: one of `METHODS`, or "auto": draws of a flow made exact by importance weights, HMC
            from these draws where the weights are too uneven, and HMC from its own start where
            that fails.
        settings: how long, how many chains, what to do with galaxies that do not converge.
        derive: a model with ``derived(theta)``, a NamedTuple of scalars: they come back as
            ``Samples.derived`` and must converge as well.
        amortised: the flow, for "auto".
        report: called with (phase, galaxies done, galaxies left) after every segment.
        keep: called likewise with the positions of all galaxies that converged so far and a
            function that gives the samples of some of them, which are final: to save them while
            the others are sampled.

    Raises ValueError for what is no random key, for a prior that `params.check` refuses, for an
    unknown method, for "auto" without a flow or with one of another
    dimension, and for a batch that does not fit the keys.
    """
    settings = settings or Settings()
    for name in (method, *settings.fallback):
        if name not in METHODS and (name != AUTO or name != method):
            known = ", ".join((AUTO, *METHODS))
            raise ValueError(f"unknown method {name!r}: expected one of {known}")
    keys = typed_keys(keys)
    params.check(problem.prior, batch=keys.ndim > 0)
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
    states = GalaxyStates(keys, problem, settings, derive)
    report = _reporting(report, keep, states)
    waiting = list(np.argsort(-_expected_cost(problem), kind="stable"))
    if method == AUTO:
        waiting = by_flow(states, _fitting_flow(amortised, problem), waiting, report)
        lengths = [settings.draws * 2**i for i in range(AUTO_RETRIES + 1)]
        if waiting:
            waiting = KernelRun(states, "hmc", lengths, report)(waiting)
        for g in waiting:  # what the flow knows was of no use
            states[g].end = None
        method = "hmc"
    if not waiting:
        return states.samples()
    for name in dict.fromkeys((method, *settings.fallback)):
        lengths = [settings.draws * 2**i for i in range(settings.retries + 1)]
        if name != method:
            lengths = lengths[-1:]
            for g in waiting:  # steps that another method found fit may be why it failed
                states[g].end = None
        if name in KERNELS:
            waiting = KernelRun(states, name, lengths, report)(waiting)
        else:
            waiting = _in_single_calls(states, name, lengths, report, waiting)
        if not waiting:
            break
    return states.samples()


def _reporting(report: Report | None, keep: Keep | None, states: GalaxyStates) -> Report:
    def tell(phase: str, done: int, left: int) -> None:
        if report is not None:
            report(phase, done, left)
        if keep is not None:
            keep(states.finished(), states.samples)

    return tell


def _fitting_flow(amortised: Amortised | None, problem: Problem) -> Amortised:
    if amortised is None:
        raise ValueError("method 'auto' needs a flow: give amortised=...")
    dimension = params.dimension(jax.tree.map(lambda a: a[0], problem.prior))
    if amortised.flow.dimension != dimension:
        raise ValueError(
            f"the flow has {amortised.flow.dimension} parameters, the problem {dimension}"
        )
    return amortised


def _expected_cost(problem: Problem) -> np.ndarray:
    """[galaxy] the squared signal over noise: the more the data know, the thinner the posterior.

    Every kind of data begins with its values over their uncertainties.
    """
    scaled = np.asarray(jax.tree.leaves(problem.data)[0], float)
    return np.nan_to_num(scaled.reshape(len(scaled), -1) ** 2).sum(axis=1)


def _in_single_calls(
    states: GalaxyStates,
    method: str,
    lengths: Sequence[int],
    report: Report,
    waiting: Sequence[int],
) -> list[int]:
    """Sample galaxies by a method that runs in one call; returns those that do not converge."""
    waiting = list(waiting)
    for number, length in enumerate(lengths):
        late: list[int] = []
        size = padded(min(len(waiting), SINGLE_CALL_BLOCK)) if waiting else 0
        for start in range(0, len(waiting), SINGLE_CALL_BLOCK):
            chosen = np.array(waiting[start : start + SINGLE_CALL_BLOCK])
            rows = chosen[np.arange(size) % chosen.size]
            # The methods one after another must not share their numbers either.
            run = list(SINGLE_CALL).index(method) + len(SINGLE_CALL) * number
            keys = jax.vmap(lambda k, n=run: mc.numbered(k, mc.SINGLE_CALL, n))(states.keys[rows])
            found = mc.single_call_batch(
                mc.place(keys), mc.place_problem(take(states.problem, rows)),
                run=SINGLE_CALL[method], settings=states.settings, length=length,
            )  # fmt: skip
            found = jax.tree.map(np.asarray, found)
            states.computed += size * float(found.gradients.max())
            runs = [jax.tree.map(lambda a, r=r: a[r], found) for r in range(chosen.size)]
            for g, run in zip(chosen, runs, strict=True):
                states[g].gradients += int(run.gradients)
                states[g].evaluations += int(run.evaluations)
            passed = states.diagnose(chosen, runs, method)
            late += [int(g) for g, good in zip(chosen, passed, strict=True) if not good]
            report(method, start + chosen.size - len(late), len(waiting))
        waiting = late
        if not waiting:
            break
    return waiting
