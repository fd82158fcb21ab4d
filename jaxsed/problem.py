"""A problem is a prior, a forward model and data: everything a sampler needs, as one pytree.

A batch of galaxies is a `Problem` whose prior and data leaves have a leading axis; the forward
model is shared.  `axes` is the `in_axes` that maps over such a batch.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import params
from jaxsed.core.types import Forward, Prediction, Prior, Theta
from jaxsed.likelihood import Data
from jaxsed.params import Constrained


class Evaluation(NamedTuple):
    """A problem at one point."""

    theta: Theta
    """The parameters."""
    u: Array
    """[dimension] their standard-normal coordinates under the prior."""
    excess: Array
    """Log prior density in excess of ``-u.u / 2``, see `params.constrain`."""
    prediction: Prediction
    """What the forward model says about the data."""


class Transform(Protocol):
    """Which coordinates are sampled, in place of those of the prior.

    Its Jacobian with respect to the coordinates of the prior must be one.
    """

    def evaluate(
        self, prior: Prior, forward: Forward, data: Any, x: Array
    ) -> tuple[Constrained, Any]:
        """Theta at sampled coordinates x [dimension], and the prediction there."""

    def unconstrain(self, prior: Prior, forward: Forward, data: Any, theta: Theta) -> Array:
        """[dimension] sampled coordinates of a theta inside the prior's support."""


@struct.dataclass
class PriorCoordinates:
    """The coordinates of the prior as they are, see `params.constrain`."""

    def evaluate(
        self, prior: Prior, forward: Forward, data: Any, x: Array
    ) -> tuple[Constrained, Any]:
        """Theta at coordinates x [dimension], and the prediction there."""
        at = params.constrain(prior, x)
        return at, forward(at.theta)

    def unconstrain(self, prior: Prior, forward: Forward, data: Any, theta: Theta) -> Array:
        """[dimension] coordinates of a theta inside the prior's support."""
        return params.unconstrain(prior, theta)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True)
class Problem:
    """Prior, forward model and data of one galaxy, and the posterior that follows.

    Samplers move in coordinates ``x`` [dimension].
    """

    prior: Prior
    """Theta of distributions; numbers where a parameter is known."""
    forward: Forward
    """``forward(theta) -> prediction`` of the kind that `data` takes (for `Photometry` fluxes
    [band] in maggies): a pytree such as those of jaxsed, or a function."""
    data: Data
    transform: Transform | None = None
    """Which coordinates are sampled.  None stands for the transform that the forward model names
    (``forward.transform``; those of galaxies name `jaxsed.likelihood.MassShear`), and where it
    names none for `PriorCoordinates`."""

    def __post_init__(self) -> None:
        if inspect.isroutine(self.forward):  # which compiled functions would not take
            object.__setattr__(self, "forward", jax.tree_util.Partial(self.forward))

    def tree_flatten_with_keys(self) -> tuple[tuple[Any, ...], Transform | None]:
        """For JAX: the leaves of the prior have one order in every process, see `params.order`."""
        parts = (params.ordered(self.prior), self.forward, self.data)
        names = ("prior", "forward", "data")
        keyed = zip(map(jax.tree_util.GetAttrKey, names), parts, strict=True)
        return tuple(keyed), self.transform

    @classmethod
    def tree_unflatten(cls, transform: Transform | None, parts: tuple[Any, ...]) -> Problem:
        """For JAX."""
        prior, forward, data = parts
        made = object.__new__(cls)  # without a look at what may be no function
        values = (params.restored(prior), forward, data, transform)
        for field, value in zip(dataclasses.fields(cls), values, strict=True):
            object.__setattr__(made, field.name, value)
        return made

    def replace(self, **changes: Any) -> Problem:
        """With other values of some fields."""
        return dataclasses.replace(self, **changes)

    @property
    def dimension(self) -> int:
        """Number of sampled coordinates."""
        return params.dimension(self.prior)

    @property
    def axes(self) -> Problem:
        """`in_axes` that maps over galaxies: prior and data, not the forward model."""
        in_axes: Any = {"prior": 0, "forward": None, "data": 0}
        return Problem(**in_axes, transform=self.transform)

    def evaluate(self, x: Array) -> Evaluation:
        """Parameters, their coordinates under the prior, and the prediction at `x`."""
        at, prediction = self._transform.evaluate(self.prior, self.forward, self.data, x)
        return Evaluation(*at, prediction)

    def constrain(self, x: Array) -> Theta:
        """Theta at coordinates `x`."""
        return self.evaluate(x).theta

    def unconstrain(self, theta: Theta) -> Array:
        """Coordinates of a theta inside the prior's support."""
        return self._transform.unconstrain(self.prior, self.forward, self.data, theta)

    def residuals(self, prediction: Prediction) -> Array:
        """[residual] residuals whose squares sum to chi-square, in units of the uncertainties."""
        return self.data.residuals(prediction)

    def log_likelihood(self, prediction: Prediction) -> Array:
        """Log likelihood of a prediction, up to a constant."""
        return self.data.log_likelihood(prediction)

    def logdensity(self, x: Array) -> Array:
        """Log posterior density at coordinates `x`, up to a constant."""
        at = self.evaluate(x)
        return self.log_likelihood(at.prediction) - 0.5 * jnp.sum(at.u**2) + at.excess

    def guarded_logdensity(self, x: Array) -> Array:
        """`logdensity`, but minus infinity where it is not a number: samplers reject such a point,
        where a not-a-number would stop a chain for good."""
        value = self.logdensity(x)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def chi2(self, prediction: Prediction) -> Array:
        """Sum of squared residuals."""
        return jnp.sum(self.residuals(prediction) ** 2)

    @property
    def _transform(self) -> Transform:
        named = self.transform or getattr(self.forward, "transform", None)
        return named or PriorCoordinates()


def stack(problems: Sequence[Problem]) -> Problem:
    """One batch from problems that share their forward model."""
    first = problems[0]
    prior, data = jax.tree.map(
        lambda *leaves: jnp.stack([jnp.asarray(x) for x in leaves]),
        *[(p.prior, p.data) for p in problems],
    )
    return dataclasses.replace(first, prior=prior, data=data)


def batch_of_one(problem: Problem) -> Problem:
    """One galaxy as a batch."""
    prior, data = jax.tree.map(lambda a: jnp.asarray(a)[None], (problem.prior, problem.data))
    return dataclasses.replace(problem, prior=prior, data=data)


def take(problem: Problem, rows: Any) -> Problem:
    """The problem of some galaxies of a batch: an index, or an array of them."""
    parts = (params.ordered(problem.prior), problem.data)
    prior, data = rows_of(parts, np.asarray(rows))
    return dataclasses.replace(problem, prior=params.restored(prior), data=data)


@jax.jit
def rows_of(tree: Any, rows: Any) -> Any:
    """Some rows of all arrays of a pytree, by one compiled program; not by a mask."""
    return jax.tree.map(lambda a: a[rows], tree)
