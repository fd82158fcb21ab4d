"""Inference: `sample(key, problem, method) -> Samples`, and the convergence criterion."""

from jaxsed.core.diagnostics import ESS_MIN, RHAT_MAX, Diagnostics
from jaxsed.infer.amortised.method import FlowImportance
from jaxsed.infer.approximations import pathfinder
from jaxsed.infer.bridges import numpyro_model, numpyro_potential
from jaxsed.infer.chain_diagnostics import Convergence, convergence
from jaxsed.infer.laplace import Laplace, laplace
from jaxsed.infer.methods import METHODS, method_of
from jaxsed.infer.sample import sample
from jaxsed.infer.samplers.base import Method
from jaxsed.infer.samplers.chees import ChEES
from jaxsed.infer.samplers.ensemble import AffineInvariant, EnsembleSlice
from jaxsed.infer.samplers.hmc import HMC
from jaxsed.infer.samplers.mclmc import MCLMC
from jaxsed.infer.samplers.nested import NestedSlice
from jaxsed.infer.samplers.numpyro_nuts import NumpyroNUTS
from jaxsed.infer.samplers.nuts import NUTS
from jaxsed.infer.samples import Samples

__all__ = [
    "ESS_MIN",
    "HMC",
    "MCLMC",
    "METHODS",
    "NUTS",
    "RHAT_MAX",
    "AffineInvariant",
    "ChEES",
    "Convergence",
    "Diagnostics",
    "EnsembleSlice",
    "FlowImportance",
    "Laplace",
    "Method",
    "NestedSlice",
    "NumpyroNUTS",
    "Samples",
    "convergence",
    "laplace",
    "method_of",
    "numpyro_model",
    "numpyro_potential",
    "pathfinder",
    "sample",
]
