"""Inference: `sample(keys, problem, method=...) -> Samples`, and the convergence criterion."""

from jaxsed.infer.approximations import pathfinder
from jaxsed.infer.bridges import numpyro_model, numpyro_potential
from jaxsed.infer.laplace import Laplace, laplace
from jaxsed.infer.methods import METHODS
from jaxsed.infer.sample import sample
from jaxsed.infer.samples import ESS_BAR, RHAT_BAR, Diagnostics, Samples, convergence
from jaxsed.infer.settings import Settings

__all__ = [
    "ESS_BAR",
    "METHODS",
    "RHAT_BAR",
    "Diagnostics",
    "Laplace",
    "Samples",
    "Settings",
    "convergence",
    "laplace",
    "numpyro_model",
    "numpyro_potential",
    "pathfinder",
    "sample",
]
