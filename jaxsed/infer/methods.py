"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from jax import Array

from jaxsed.infer.samplers import chees, ensemble, kernels, nested, numpyro_nuts
from jaxsed.infer.samplers.result import SamplerRun
from jaxsed.infer.settings import Settings
from jaxsed.problem import Problem

KERNELS: dict[str, Callable[[Settings], kernels.Kernel]] = {
    "hmc": lambda s: kernels.hmc(target_acceptance=s.target_acceptance),
    "nuts": lambda s: kernels.nuts(
        max_tree_depth=s.max_tree_depth, target_acceptance=s.target_acceptance
    ),
    "mclmc": lambda s: kernels.mclmc(),
}
"""Methods that move all galaxies transition by transition, in slots."""

SINGLE_CALL: dict[str, Callable[[Array, Problem, Settings, int], SamplerRun]] = {
    "chees": chees.run,
    "numpyro": numpyro_nuts.run,
    "ensemble_slice": ensemble.slice_run,
    "aies": ensemble.stretch_run,
    "nested": nested.run,
}
"""Methods that take each galaxy from its start to its end in one compiled call."""

METHODS = (*KERNELS, *SINGLE_CALL)


@lru_cache
def kernel(method: str, settings: Settings) -> kernels.Kernel:
    """The same kernel object for the same settings, so that nothing compiles twice."""
    return KERNELS[method](settings)
