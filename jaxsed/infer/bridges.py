"""A `Problem` as NumPyro wants it, for its samplers and its tools."""

from __future__ import annotations

from collections.abc import Callable

import numpyro
import numpyro.distributions as dist
from jax import Array

from jaxsed.problem import Problem


def numpyro_model(problem: Problem) -> Callable[[], None]:
    """A NumPyro model of one galaxy: ``MCMC(NUTS(numpyro_model(problem)), ...)``.

    Its one sampled site is ``x`` [dimension], the problem's coordinates; every parameter of theta
    is a deterministic site under its own name, and ``flux`` [band] is in maggies.
    """
    dimension = problem.dimension

    def model() -> None:
        real = dist.constraints.real_vector
        x = numpyro.sample("x", dist.ImproperUniform(real, (), event_shape=(dimension,)))
        at = problem.evaluate(x)
        for name, value in at.theta._asdict().items():
            numpyro.deterministic(name, value)
        flux = problem.data.kept(at.prediction)
        if flux is not None:
            numpyro.deterministic("flux", flux)
        numpyro.factor("log_density", problem.logdensity(x))

    return model


def numpyro_potential(problem: Problem) -> Callable[[Array], Array]:
    """Minus the log density at coordinates x [dimension]: ``NUTS(potential_fn=...)``."""
    return lambda x: -problem.logdensity(x)
