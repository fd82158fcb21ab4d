"""Priors by name, the checks of their parameters, and distributions that numpyro lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from jaxsed.core.types import PyTree
from jaxsed.params import quantiles

DISTRIBUTIONS: dict[str, tuple[tuple[str, ...], Callable[..., dist.Distribution]]] = {
    "uniform": (("low", "high"), dist.Uniform),
    "log_uniform": (("low", "high"), dist.LogUniform),
    "normal": (("mean", "sigma"), dist.Normal),
    "truncated_normal": (
        ("mean", "sigma", "low", "high"),
        lambda mean, sigma, low, high: dist.TruncatedNormal(mean, sigma, low=low, high=high),
    ),
    "student_t": (("df", "mean", "sigma"), dist.StudentT),
}
"""name -> the numbers that a distribution takes, in order, and what makes it of them."""


def distribution(name: str, *args: Any) -> dist.Distribution:
    """A prior by its name in `DISTRIBUTIONS`.

    Raises ValueError for another name, for a wrong number of arguments and for arguments that
    the distribution does not have (see `check_parameters`).
    """
    if name not in DISTRIBUTIONS:
        known = ", ".join(DISTRIBUTIONS)
        raise ValueError(f"unknown distribution {name!r}: expected one of {known}")
    wanted, make = DISTRIBUTIONS[name]
    if len(args) != len(wanted):
        raise ValueError(f"{name} takes {len(wanted)} numbers, got {len(args)}")
    made = make(*args)
    check_parameters(made)
    return made


def check_parameters(prior: dist.Distribution) -> None:
    """Look at the parameters of a distribution, and of those that it is made of.

    Traced parameters are passed over: check before tracing.

    Raises ValueError for a parameter outside of its range or not a number, and for bounds that are
    not below each other.
    """
    name = type(prior).__name__
    for key, constraint in prior.arg_constraints.items():
        value = prior.__dict__.get(key)
        if value is None or not is_concrete(value) or isinstance(value, dist.Distribution):
            continue
        values = np.asarray(value)
        inside = np.isfinite(values)
        if not constraints.is_dependent(constraint):
            with jax.ensure_compile_time_eval():  # a prior may be made inside of a trace
                inside = np.all(inside) & np.asarray(constraint(jnp.asarray(value)))
        if not np.all(inside):
            raise ValueError(f"{name}: {key} = {value} is out of its range")
    low, high = (prior.__dict__.get(key) for key in ("low", "high"))
    if low is not None and high is not None and is_concrete(low) and is_concrete(high):
        low, high = np.asarray(low), np.asarray(high)
        if not np.all(low < high):
            raise ValueError(f"{name}: expected low < high, got low = {low}, high = {high}")
    for part in prior.__dict__.values():
        for inner in part if isinstance(part, list | tuple) else (part,):
            if isinstance(inner, dist.Distribution):
                check_parameters(inner)


def is_concrete(tree: PyTree) -> bool:
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def student_t2(scale: float, limit: float, size: int) -> dist.Distribution:
    """`size` independent Student-t(2) priors of this scale, truncated to +-limit."""
    base = quantiles.StudentT2(jnp.zeros(size), scale)
    return dist.TruncatedDistribution(base, -limit, limit).to_event(1)


class FlatDirichlet(dist.Dirichlet):
    """The Dirichlet distribution of `size` shares that is uniform on the simplex.

    Its stick-breaking fractions have quantiles in closed form, which are faster than those of a
    general `Dirichlet`.
    """

    def __init__(self, size: int, *, validate_args: Any = None) -> None:
        super().__init__(jnp.ones(size), validate_args=validate_args)
