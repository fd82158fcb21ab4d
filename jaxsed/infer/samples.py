"""What a sampler returns, and whether it may be called a posterior."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxsed.core.diagnostics import Diagnostics, rows_of
from jaxsed.core.types import Numbers, Theta
from jaxsed.infer.chain_diagnostics import Convergence


@dataclass(frozen=True)
class Samples:
    """Draws from the posteriors of a batch of galaxies; of one galaxy without the galaxy axis.

    ``samples[name]`` are the draws of a parameter or derived quantity [galaxy, chain, draw, ...].
    """

    theta: Theta
    """Theta of arrays [galaxy, chain, draw, ...]."""
    x: np.ndarray
    """[galaxy, chain, draw, dimension] coordinates of the problem."""
    log_density: np.ndarray
    """[galaxy, chain, draw] log density of `x`, up to a constant."""
    flux: Numbers
    """[galaxy, chain, draw, band] model fluxes in maggies; None if the data are a spectrum alone,
    of which nothing is kept."""
    derived: dict[str, np.ndarray]
    """[galaxy, chain, draw, ...] derived quantities by name."""
    convergence: Convergence
    diagnostics: Diagnostics
    slot_efficiency: float
    """Gradients that served a galaxy over those computed: less than one where slots wait for each
    other or are empty."""

    def __getitem__(self, name: str) -> np.ndarray:
        """Draws of a parameter or derived quantity; KeyError lists the known ones."""
        known = {**self.derived, **self.theta._asdict()}
        if name not in known:
            raise KeyError(f"no quantity {name!r}: known are {', '.join(known)}")
        return known[name]

    def galaxy(self, galaxy: int) -> Samples:
        """The draws of one galaxy of a batch."""
        cut = lambda tree: jax.tree.map(lambda a: np.asarray(a)[galaxy], tree)  # noqa: E731
        return dataclasses.replace(
            self,
            **{
                name: cut(getattr(self, name))
                for name in ("theta", "x", "log_density", "flux", "derived", "convergence")
            },
            diagnostics=rows_of(self.diagnostics, galaxy),
        )

    def to_arviz(self) -> Any:
        """The draws of one galaxy as an arviz object with variables named as in theta.

        Raises ValueError for a batch: take a galaxy of it first.
        """
        import arviz

        if self.log_density.ndim != 2:
            raise ValueError("a batch of galaxies: choose one, samples.galaxy(0).to_arviz()")
        known = {**self.theta._asdict(), **self.derived}
        groups: dict[str, Any] = {
            "posterior": {n: np.asarray(v) for n, v in known.items() if np.ndim(v) >= 2},
            "sample_stats": {"lp": self.log_density},
        }
        if arviz.__version__.startswith("0."):
            return arviz.from_dict(**groups)
        return arviz.from_dict(groups)
