"""Theta, its prior and its coordinates.

A *theta* is one NamedTuple of named physical parameters.  The prior is the same NamedTuple with
a `numpyro.distributions` object in each field, or a number where the parameter is known.  Every
prior is carried to **standard-normal coordinates** ``u``: a parameter is the quantile of its prior
at ``Phi(u)``, so that the prior density of ``u`` is N(0, I) whatever the prior was.  Parameters
the data say nothing about are then exactly unit normals, which is the easiest thing a Hamiltonian
sampler can meet, and no draw can leave the prior's support.

Carried exactly are the univariate distributions of `jaxsed.params.quantiles` (with their
truncations and mixtures), vectors of them (``to_event(1)``), bijections of what is carried,
multivariate normal and Student-t distributions, Dirichlet distributions by the beta distributions
of their stick-breaking fractions, Gaussian copulas and random walks.  All others are refused.  A
type of your own is registered with `from_normal`, `to_normal` and `coordinates`.
"""

from jaxsed.params.coordinates import coordinates, from_normal, sticks, to_normal
from jaxsed.params.distributions import (
    DISTRIBUTIONS,
    FlatDirichlet,
    check_parameters,
    distribution,
    student_t2,
)
from jaxsed.params.order import ordered, restored
from jaxsed.params.theta import (
    LN10,
    Constrained,
    Recoordinated,
    Theta,
    check,
    constrain,
    coordinate_names,
    dimension,
    draw,
    extended,
    features,
    flat_names,
    is_fixed,
    log_slope,
    theta_type,
    unconstrain,
    widths,
    within,
)

__all__ = [
    "DISTRIBUTIONS",
    "LN10",
    "Constrained",
    "FlatDirichlet",
    "Recoordinated",
    "Theta",
    "check",
    "check_parameters",
    "constrain",
    "coordinate_names",
    "coordinates",
    "dimension",
    "distribution",
    "draw",
    "extended",
    "features",
    "flat_names",
    "from_normal",
    "is_fixed",
    "log_slope",
    "ordered",
    "restored",
    "sticks",
    "student_t2",
    "theta_type",
    "to_normal",
    "unconstrain",
    "widths",
    "within",
]
