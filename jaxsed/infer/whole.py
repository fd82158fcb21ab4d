"""What a method returns that takes one galaxy from its start to its end in one call."""

from __future__ import annotations

from typing import NamedTuple

from jax import Array


class Whole(NamedTuple):
    """A run of one galaxy."""

    x: Array
    """[chain, draw, dimension] coordinates of the problem."""
    log_density: Array
    """[chain, draw]."""
    divergences: Array
    """Number of divergent transitions."""
    gradients: Array
    """Number of gradients of all chains."""
    evaluations: Array
    """Number of values without gradient."""
    effective: Array
    """An upper limit to the effective sample size that the draws do not show, such as that of the
    weights they were drawn by; infinity if there is none."""
    log_evidence: Array
    """ln of the evidence; not-a-number if the method does not find it."""
    log_evidence_error: Array
    """Its standard error."""
