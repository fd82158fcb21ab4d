"""Quantiles of univariate distributions, and the probabilities that they invert.

Both tails are carried: ``p`` is the probability below a value and ``q`` that above it, each with
its own relative precision.  In 32-bit, ``1 - p`` alone would lose all beyond five standard
deviations.  Distributions without a quantile function in closed form are inverted by Newton's
method between bounds, and differentiated by the implicit function theorem.
"""

from jaxsed.params.quantiles import closed_forms  # noqa: F401  # registers its distributions
from jaxsed.params.quantiles.base import U_MAX, bounds, is_known, quantile, tails, to_normal
from jaxsed.params.quantiles.beta_gamma import log_odds, log_odds_tails
from jaxsed.params.quantiles.composed import TRUNCATED
from jaxsed.params.quantiles.inversion import MAX_ITERATIONS
from jaxsed.params.quantiles.symmetric import StudentT2

__all__ = [
    "MAX_ITERATIONS",
    "TRUNCATED",
    "U_MAX",
    "StudentT2",
    "bounds",
    "is_known",
    "log_odds",
    "log_odds_tails",
    "quantile",
    "tails",
    "to_normal",
]
