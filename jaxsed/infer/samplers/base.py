"""What a sampling method is: a frozen dataclass of its options, of one of two kinds.

A `KernelMethod` moves the chains of all galaxies transition by transition, in batch slots.  A
`SingleCallMethod` takes each galaxy from its start to its end in one compiled call.  Both sample
in runs: a galaxy that has not converged is run again, twice as long, up to `retries` times.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import blackjax
from jax import Array

from jaxsed.core.types import Key
from jaxsed.problem import Problem

SEGMENT = 50
"""Transitions per compiled call."""

LogDensity = Callable[[Array], Array]
Value = Any
"""An array of JAX inside compiled code, of numpy outside."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """Options that all methods have."""

    name: ClassVar[str]
    """By which a configuration calls it."""

    draws: int = 300
    """Transitions of every chain in the first run, and draws of every chain that are returned.
    Longer runs are thinned to as many; their diagnostics are those of all draws."""
    chains: int = 4
    retries: int = 4
    """Longer runs of galaxies that have not converged."""

    def __post_init__(self) -> None:
        if self.chains < 2:
            raise ValueError(f"expected at least 2 chains for R-hat, got {self.chains}")
        if self.draws < SEGMENT:
            raise ValueError(
                f"expected at least {SEGMENT} transitions of draws, got {self.draws}"
            )
        if self.retries < 0:
            raise ValueError(f"expected no negative number of retries, got {self.retries}")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Transitions of every chain in the first run and the longer ones after it."""
        return tuple(self.draws * 2**i for i in range(self.retries + 1))


class Move(NamedTuple):
    """What one transition reports."""

    acceptance: Array
    """Mean acceptance probability along the trajectory."""
    divergent: Array
    """Whether the energy error exceeded the threshold."""
    gradients: Array
    """Number of gradients used."""


class Kernel(NamedTuple):
    """A transition kernel and what it aims at: equal ones share their compiled code."""

    step: Callable[..., tuple[blackjax.mcmc.hmc.HMCState, Move]]
    """``step(key, state, logdensity, step_size, length) -> (state, Move)``, in whitened
    coordinates, so that its mass matrix is the identity.  `length`, the number of leapfrog steps,
    is the same for all galaxies, so that none waits for another."""
    target_acceptance: float


@dataclass(frozen=True, kw_only=True)
class KernelMethod(Method):
    """A transition kernel with global moves.

    The warm-up (always by HMC) finds the step size, whitens the coordinates, and fits a mixture of
    Student t to its draws.  Every transition is a trajectory of the kernel followed by independence
    proposals from the mixture, each with its own Metropolis-Hastings test.  The warm-up runs more
    chains than are kept: its draws teach the global moves where the posterior is, and what few
    chains do not come across in time would hold them up later.  Before a longer run the mixture is
    fitted anew to the draws of the runs before, which are then left out.
    """

    warmup: int = 200
    """Transitions."""
    warmup_chains: int = 16
    starts: int = 16
    """Descents towards best fits, where the chains begin."""
    proposals: int = 32
    """Global proposals after every trajectory."""
    warmup_proposals: int = 8
    """The same in the warm-up."""
    dense: bool = True
    """Whether the metric of a galaxy has covariances, or variances only."""
    target_acceptance: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup < SEGMENT:
            raise ValueError(
                f"expected at least {SEGMENT} transitions of warmup, got {self.warmup}"
            )
        if self.warmup_chains < self.chains:
            raise ValueError(
                f"expected at least as many chains in the warm-up as after it ({self.chains}), "
                f"got {self.warmup_chains}"
            )

    @property
    def kernel(self) -> Kernel:
        """The transition kernel."""
        raise NotImplementedError

    @property
    def warmup_acceptance(self) -> float:
        """Target acceptance of the warm-up's HMC."""
        return self.target_acceptance


@dataclass(frozen=True, kw_only=True)
class SingleCallMethod(Method):
    """A method that takes a galaxy from its start to its end in one compiled call."""

    def returned_chains(self, dimension: int) -> int:
        """Chains of a run of a problem of this dimension."""
        del dimension
        return self.chains

    def run(self, key: Key, problem: Problem, length: int) -> SamplerRun:
        """One galaxy, with `length` draws of every chain."""
        raise NotImplementedError


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
