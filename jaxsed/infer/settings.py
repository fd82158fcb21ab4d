"""How to sample."""

from __future__ import annotations

from dataclasses import dataclass

SEGMENT = 50
"""Transitions per compiled call."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to sample.

    The warm-up runs more chains than are kept: its draws teach the global moves where the posterior
    is, and what few chains do not come across in time would hold them up later.

    A galaxy that does not converge is run again, its global moves learned anew from the runs
    before, which are then left out; each run is twice as long as the one before. What does not
    converge after `retries` of these goes to the methods of `fallback` in turn, each with the
    length of the last run, and if all fail it comes back as it is, and its diagnostics say so.
    Longer runs are thinned to `draws` per chain in the end; their diagnostics are those of all
    draws.
    """

    chains: int = 4
    warmup_chains: int = 16
    warmup: int = 200
    """Transitions."""
    draws: int = 300
    """Transitions of every chain in the first run, and draws of every chain that are returned."""
    retries: int = 4
    fallback: tuple[str, ...] = ()
    slots: int = 256
    """Galaxies advanced together: more fill a GPU, and need memory."""
    proposals: int = 32
    """Global proposals after every trajectory."""
    warmup_proposals: int = 8
    """The same in the warm-up."""
    dense: bool = True
    """Whether the metric of a galaxy has covariances, or variances only."""
    max_tree_depth: int = 6
    target_acceptance: float = 0.8
    starts: int = 16
    """Descents towards best fits, where the chains begin."""
    walkers: int = 32
    """Of each of the `chains` ensembles of the ensemble methods."""
    live_points: int = 200
    """Of each of the `chains` runs of nested sampling; more with every retry."""

    def __post_init__(self) -> None:
        if self.chains < 2:
            raise ValueError(f"expected at least 2 chains for R-hat, got {self.chains}")
        if self.warmup_chains < self.chains:
            raise ValueError(
                f"expected at least as many chains in the warm-up as after it ({self.chains}), "
                f"got {self.warmup_chains}"
            )
        for name in ("warmup", "draws"):
            value = getattr(self, name)
            if value < SEGMENT:
                raise ValueError(f"expected at least {SEGMENT} transitions of {name}, got {value}")
        if self.walkers % 2:
            raise ValueError(f"expected an even number of walkers, got {self.walkers}")
