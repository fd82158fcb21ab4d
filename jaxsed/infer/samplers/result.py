"""What a method returns that takes one galaxy from its start to its end in one call."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

Value = Any
"""An array of JAX inside compiled code, of numpy outside."""


class SamplerRun(NamedTuple):
    """A run of one galaxy."""

    x: Value
    """[chain, draw, dimension] coordinates of the problem."""
    log_density: Value
    """[chain, draw]."""
    divergences: Value = 0
    """Number of divergent transitions."""
    gradients: Value = 0
    """Number of gradients of all chains."""
    evaluations: Value = 0
    """Number of values without gradient."""
    effective: Value = math.inf
    """An upper limit to the effective sample size that the draws do not show, such as that of the
    weights they were drawn by; infinity if there is none."""
    log_evidence: Value = math.nan
    """ln of the evidence; not-a-number if the method does not find it."""
    log_evidence_error: Value = math.nan
    """Its standard error."""
    khat: Value = math.nan
    """Pareto shape of importance weights; not-a-number if there are none."""
    importance_ess: Value = math.nan
    """Effective number of the weights."""
    outside: Value = -1
    """Bits of `jaxsed.infer.amortised.support.REASONS`, by which a flow does not know such
    galaxies; -1 if none was asked."""
