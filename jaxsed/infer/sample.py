"""The one way to a posterior: ``sample(key, problem, method)``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxsed import params
from jaxsed.core.keys import typed_keys
from jaxsed.core.types import Key, PyTree
from jaxsed.infer.amortised.method import FlowImportance, by_flow
from jaxsed.infer.methods import method_of, options_of
from jaxsed.infer.samplers.base import KernelMethod, Method, SingleCallMethod
from jaxsed.infer.samplers.hmc import HMC
from jaxsed.infer.samples import Samples
from jaxsed.infer.schedule.galaxies import Galaxies, Report
from jaxsed.infer.schedule.kernels import by_kernel
from jaxsed.infer.schedule.single_calls import by_single_calls
from jaxsed.problem import Problem, batch_of_one

DEFAULT = HMC()

Keep = Callable[[np.ndarray, Callable[[np.ndarray], Samples]], Any]
"""``keep(finished, samples)``: positions of galaxies, and their `Samples` as a function of them."""


def sample(
    key: Key,
    problem: Problem,
    method: Method | FlowImportance | str = DEFAULT,
    *,
    fallback: Sequence[Method | str] = (),
    slots: int = 256,
    derive: PyTree = None,
    report: Report | None = None,
    keep: Keep | None = None,
) -> Samples:
    """Draw from the posterior of one galaxy or of a batch.

    Args:
        key: one key, or one per galaxy [galaxy], of either of JAX's kinds.  The random numbers of
            a galaxy depend on its key alone, not on its neighbours or its place among them.  The
            same batch in any order gives the same draws; a batch of another size is another
            compiled program, which rounds differently, and its draws agree within their Monte
            Carlo error.
        problem: one galaxy, or a batch (see `Problem`) with as many galaxies as keys.
        method: such as ``NUTS(draws=1000)``, or its name with the default options.
        fallback: methods for galaxies that do not converge, one after another; each runs once, as
            long as its last run (``draws * 2**retries`` transitions).  A name stands for the method
            with those options of `method` that it shares and that are not defaults.  What converges
            with none of them comes back as it is, and its diagnostics say so.
        slots: galaxies that are advanced together: more fill a GPU, and need memory.
        derive: a model with ``derived(theta)``, a NamedTuple: they come back as
            ``Samples.derived``, and those that are one number must converge as well.
        report: called with (phase, galaxies done, galaxies left) after every segment.
        keep: called likewise with the positions of all galaxies that converged so far and a
            function that gives the samples of some of them, which are final: to save them while
            the others are sampled.

    Returns:
        Draws with a galaxy axis for keys [galaxy], and without one for a single key.

    Raises ValueError for what is no random key, for a prior that `params.check` refuses, for an
    unknown method, for a flow of another dimension, and for a batch that does not fit the keys.
    """
    method = method_of(method) if isinstance(method, str) else method
    sampler = method.sampler if isinstance(method, FlowImportance) else method
    options = options_of(sampler)
    others = [method_of(m, **options) if isinstance(m, str) else m for m in fallback]
    keys = typed_keys(key)
    params.check(problem.prior, batch=keys.ndim > 0)
    many = problem if keys.ndim else batch_of_one(problem)
    n, counted = max(keys.size, 1), jax.tree.leaves(many.data)[0].shape[0]
    if counted != n:
        raise ValueError(f"{n} keys for {counted} galaxies")
    shape = (method.chains, method.draws)
    if isinstance(method, SingleCallMethod):
        shape = (method.returned_chains(params.dimension(_first(many).prior)), method.draws)
    galaxies = Galaxies(keys.reshape(n), many, derive=derive, shape=shape, slots=slots)
    _sample(galaxies, method, others, _reporting(report, keep, galaxies))
    samples = galaxies.samples()
    return samples if keys.ndim else samples.galaxy(0)


def _sample(
    galaxies: Galaxies,
    method: Method | FlowImportance,
    fallback: Sequence[Method],
    report: Report,
) -> None:
    """Sample all galaxies, whatever comes of them."""
    waiting = list(np.argsort(-_expected_cost(galaxies.problem), kind="stable"))
    if isinstance(method, FlowImportance):
        method.check(galaxies.problem)
        waiting = by_flow(galaxies, method, report, waiting)
        sampler: Method = method.sampler
        from_flow = dataclasses.replace(sampler, retries=method.retries)
        waiting = _run(galaxies, from_flow, from_flow.lengths, report, waiting)
        _forget_ends(galaxies, waiting)
    else:
        sampler = method
    waiting = _run(galaxies, sampler, sampler.lengths, report, waiting)
    for other in dict.fromkeys(fallback):
        if other == sampler:
            continue
        # Steps that another method found fit may be why it failed.
        _forget_ends(galaxies, waiting)
        waiting = _run(galaxies, other, other.lengths[-1:], report, waiting)


def _run(
    galaxies: Galaxies,
    method: Method,
    lengths: Sequence[int],
    report: Report,
    waiting: Sequence[int],
) -> list[int]:
    """Runs of these lengths of all galaxies that wait; returns those that do not converge."""
    if not waiting:
        return []
    if isinstance(method, KernelMethod):
        return by_kernel(galaxies, method, lengths, report, waiting)
    if isinstance(method, SingleCallMethod):
        return by_single_calls(galaxies, method, lengths, report, waiting)
    raise ValueError(f"not a method that samples: {method!r}")


def _forget_ends(galaxies: Galaxies, waiting: Sequence[int]) -> None:
    for galaxy in waiting:
        galaxies.change(galaxy, end=None)


def _reporting(report: Report | None, keep: Keep | None, galaxies: Galaxies) -> Report:
    def tell(phase: str, done: int, left: int) -> None:
        if report is not None:
            report(phase, done, left)
        if keep is not None:
            keep(galaxies.finished(), galaxies.samples)

    return tell


def _first(problem: Problem) -> Problem:
    prior = jax.tree.map(lambda a: a[0], problem.prior)
    return dataclasses.replace(problem, prior=prior)


def _expected_cost(problem: Problem) -> np.ndarray:
    """[galaxy] the squared signal over noise: the more the data know, the thinner the posterior.

    Every kind of data begins with its values over their uncertainties.
    """
    scaled = np.asarray(jax.tree.leaves(problem.data)[0], float)
    return np.nan_to_num(scaled.reshape(len(scaled), -1) ** 2).sum(axis=1)
