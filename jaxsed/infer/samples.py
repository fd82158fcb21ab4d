"""What a sampler returns, and whether it may be called a posterior."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

RHAT_BAR = 1.01
ESS_BAR = 400.0


class Diagnostics(NamedTuple):
    """How well a posterior was sampled, per galaxy.

    Rank-normalised split R-hat, bulk and tail effective sample sizes (Vehtari+ 2021) of every
    coordinate and of every monitored function of the parameters.
    """

    rhat: np.ndarray
    """[galaxy, quantity]."""
    ess_bulk: np.ndarray
    """[galaxy, quantity]."""
    ess_tail: np.ndarray
    """[galaxy, quantity]."""
    divergences: np.ndarray
    """[galaxy] number of divergent transitions among the kept draws."""
    unique_fraction: np.ndarray
    """[galaxy] share of kept draws that differ from the one before."""
    gradients: np.ndarray
    """[galaxy] gradients of the log density, all chains, warm-up included."""
    evaluations: np.ndarray
    """[galaxy] values of the log density without a gradient, likewise."""

    def passes(self) -> np.ndarray:
        """[galaxy] whether a posterior has converged: R-hat < 1.01 and bulk and tail ESS >= 400.

        A not-a-number anywhere fails.
        """
        return (
            (np.max(self.rhat, axis=1) < RHAT_BAR)
            & (np.min(self.ess_bulk, axis=1) >= ESS_BAR)
            & (np.min(self.ess_tail, axis=1) >= ESS_BAR)
        )


class Samples(NamedTuple):
    """Draws from the posteriors of a batch of galaxies."""

    theta: Any
    """Theta of arrays [galaxy, chain, draw, ...]."""
    x: np.ndarray
    """[galaxy, chain, draw, dimension] coordinates of the problem."""
    log_density: np.ndarray
    """[galaxy, chain, draw] log density of `x`, up to a constant."""
    flux: Any
    """[galaxy, chain, draw, band] model fluxes in maggies; None if the data are a spectrum alone,
    of which nothing is kept."""
    derived: dict[str, np.ndarray]
    """[galaxy, chain, draw] derived quantities by name; empty if none were asked for."""
    diagnostics: Diagnostics
    method: tuple[str, ...]
    """[galaxy] the method that gave the draws."""
    run: np.ndarray
    """[galaxy] which run gave the draws: 0 the first, 1 the first repeat and so on."""
    log_evidence: np.ndarray
    """[galaxy] ln of the evidence, for methods that find it; not-a-number elsewhere.  The constants
    that the likelihood leaves out are missing here too."""
    log_evidence_error: np.ndarray
    """[galaxy] its standard error."""
    khat: np.ndarray
    """[galaxy] Pareto shape of the importance weights of a flow's draws; not-a-number where no flow
    was asked.  Kept where another method gave the draws in the end."""
    importance_ess: np.ndarray
    """[galaxy] effective number of these weights."""
    support: tuple[str, ...]
    """[galaxy] "inside" the flow's training set, or why not; empty where no flow was asked."""
    slot_efficiency: float
    """Gradients that served a galaxy over those computed: less than one where slots wait for each
    other or are empty."""

    def to_arviz(self, galaxy: int = 0) -> Any:
        """The draws of one galaxy as an arviz object with variables named as in theta."""
        import arviz

        posterior = {
            name: np.asarray(value)[galaxy]
            for name, value in self.theta._asdict().items()
            if np.ndim(value) >= 3
        }
        groups: dict[str, Any] = {
            "posterior": posterior,
            "sample_stats": {"lp": self.log_density[galaxy]},
        }
        if arviz.__version__.startswith("0."):
            return arviz.from_dict(**groups)
        return arviz.from_dict(groups)


@jax.jit
def _convergence(draws: Array) -> tuple[Array, Array, Array]:
    from blackjax import diagnostics

    def one(x: Array) -> tuple[Array, Array, Array]:
        return diagnostics.rhat(x), diagnostics.ess_bulk(x), diagnostics.ess_tail(x)

    # All at once would not fit in the caches.
    return jax.lax.map(jax.vmap(one, in_axes=-1), draws, batch_size=8)


def convergence(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R-hat, bulk ESS and tail ESS of draws [galaxy, chain, draw, quantity].

    Each result is [galaxy, quantity].
    """
    rhat, bulk, tail = _convergence(jnp.asarray(draws))
    return np.asarray(rhat), np.asarray(bulk), np.asarray(tail)
