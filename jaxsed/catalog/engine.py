"""The engine of `jaxsed fit`: observations of a chunk of galaxies in, posteriors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from jaxsed import infer, params
from jaxsed.catalog.chunk import ChunkResult, Keep
from jaxsed.catalog.flags import Flag
from jaxsed.catalog.flows import find_flow
from jaxsed.catalog.plan import FreeRedshift, Plan
from jaxsed.catalog.predictors import Predictor, make_predictor
from jaxsed.catalog.tables import Observations
from jaxsed.core.constants import PERCENTILES
from jaxsed.core.diagnostics import Goodness
from jaxsed.core.errors import JaxsedError
from jaxsed.core.types import Prior, PyTree, Theta
from jaxsed.infer.samplers.base import Method
from jaxsed.likelihood import (
    STARLIGHT_LIMIT,
    Photometry,
    RedshiftedPhotometry,
    WithRedshift,
    photometry,
)
from jaxsed.likelihood.goodness import smallest_chi2, weights_of_draws
from jaxsed.likelihood.photometry import DETECTION, MISSING
from jaxsed.problem import Problem

LITTLE_WEIGHT = 0.5
"""A galaxy with a band whose inverse variance is reduced to less than this share, for possible dust
emission, is flagged."""

EDGE_WIDTH, EDGE_SHARE = 0.02, 0.1
"""A galaxy with a larger share of draws than the second, in a share of the range of redshifts at
its upper end that is the first, is flagged."""

OUTSIDE_SHARE = 0.01
"""A galaxy with a larger share of draws outside the emulator's range is flagged."""


class Engine:
    """Fits chunks of galaxies as a plan says; compiled code is kept from one chunk to the next.

    Args:
        plan: see `jaxsed.catalog.plan.resolve`.
        train: where no emulator covers the bands, train one first.
        report: is told what is done.
    """

    in_parts = True

    def __init__(
        self,
        plan: Plan,
        *,
        train: bool = False,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.plan = plan
        self.filters = plan.filters
        self.galaxies = plan.model.galaxies
        self.train = train
        self.report = report
        self.method: Method | infer.FlowImportance = plan.sampling.method
        self._predictor: Predictor | None = None
        self._last_news: tuple[str, int, int] | None = None
        self.provenance: dict[str, Any] = {}
        self.notes: tuple[str, ...] = ()
        """What was left out and why; see `note`."""

    def prepare(self, redshift: np.ndarray) -> None:
        """Choose the predictor for galaxies at these redshifts (NaN where free).

        Raises JaxsedError if there is none.
        """
        free = self.plan.redshift
        z = redshift if free is None else np.array([free.low, free.high])
        self._predictor = make_predictor(
            self.plan.model, self.filters, z, train=self.train, report=self.report
        )
        self.provenance = dict(self.predictor.provenance)
        self.report(f"predictor: {self.predictor.kind} ({self.predictor.reason})")
        if free is not None:
            self._report_redshift(free)
        if self.plan.sampling.flow is not None:
            self._find_flow(self.plan.sampling.flow)

    def _report_redshift(self, free: FreeRedshift) -> None:
        default = ", the default; redshift_prior in [catalog] sets another" if free.default else ""
        self.note(f"redshift prior: uniform from {free.low:g} to {free.high:g}{default}")
        late = [
            f.name for f, dusty in zip(self.filters, self._dusty_somewhere(), strict=True) if dusty
        ]
        if late:
            self.note(
                f"bands beyond {STARLIGHT_LIMIT / 1e4:g} micron at rest, where dust emission is "
                f"not modelled, lose their weight at redshifts where they are: {', '.join(late)}"
            )

    def _dusty_somewhere(self) -> np.ndarray:
        """[band] whether a band is beyond starlight somewhere in the prior of a free redshift."""
        if self.plan.redshift is None or self.galaxies.emits:
            return np.zeros(len(self.filters), bool)
        pivot = np.array([f.pivot for f in self.filters])
        dusty = pivot / (1 + self.plan.redshift.low) > STARLIGHT_LIMIT
        return dusty & self.predictor.reachable

    def note(self, line: str) -> None:
        """Tell the user, and keep it for the results."""
        self.report(line)
        self.notes = (*self.notes, line) if line not in self.notes else self.notes

    def _find_flow(self, source: str | Path) -> None:
        """The flow of these bands; where no shipped one knows them, the sampler alone."""
        bands = [f.name for f in self.filters]
        names = getattr(self.predictor.forward, "band_names", bands)
        flow = find_flow(
            source, self.galaxies.name, names, free_redshift=self.plan.redshift is not None
        )
        self.provenance["flow_checksum"] = "none" if flow is None else flow.checksum()
        if flow is None:
            self.report("no shipped flow knows these bands: all galaxies are sampled by hmc")
            return
        sampler: Any = self.plan.sampling.method
        self.method = infer.FlowImportance(flow=flow, sampler=sampler)
        self.provenance["flow"] = flow.record.text
        self.report(f"flow: {flow.record.text}")

    @property
    def predictor(self) -> Predictor:
        """What evaluates the model.

        Raises RuntimeError before `prepare`.
        """
        if self._predictor is None:
            raise RuntimeError("the engine has no predictor yet: call prepare() first")
        return self._predictor

    def __call__(
        self,
        ids: Sequence[str],
        observations: Observations,
        seeds: NDArray[np.uint32],
        keep: Keep | None = None,
    ) -> ChunkResult:
        """Fit n galaxies; see `jaxsed.catalog.chunk.Engine`."""
        if self._predictor is None:
            self.prepare(observations.redshift)
        predictor = self.predictor
        modelled = self.modelled(observations)
        kind = np.where(modelled, observations.kind, 0)[:, predictor.reachable]
        flux = observations.flux[:, predictor.reachable]
        error = observations.error[:, predictor.reachable]
        data: Any = photometry(
            flux, error, kind,
            error_floor=self.plan.error_floor,
            emulator_sigma=predictor.sigma,
            emulator_correlation=(
                predictor.correlation if self.plan.emulator_covariance else None
            ),
        )  # fmt: skip
        forward: Any = predictor.forward
        if self._dusty_somewhere().any():
            data, forward = self._redshifted(data), WithRedshift(forward)
        problem = Problem(self._prior(observations.redshift), forward, data)
        keys = jax.random.wrap_key_data(jnp.asarray(seeds))
        samples = infer.sample(
            keys, problem, self.method,
            fallback=self.plan.sampling.fallback, slots=self.plan.sampling.slots,
            derive=predictor.physics, report=self._progress,
            keep=None if keep is None else lambda finished, of: keep(
                finished, lambda rows: self._result(
                    of(rows), jax.tree.map(lambda a: a[rows], data), observations.rows(rows),
                    kind[rows], modelled[rows],
                ),
            ),
        )  # fmt: skip
        return self._result(samples, data, observations, kind, modelled)

    def _result(
        self,
        samples: infer.Samples,
        data: Any,
        observations: Observations,
        kind: np.ndarray,
        modelled: np.ndarray,
    ) -> ChunkResult:
        """What is told of galaxies that are sampled; all arguments are of these galaxies."""
        return ChunkResult(
            theta=self._sampled(samples.theta),
            derived=samples.derived,
            log_density=samples.log_density,
            goodness=Goodness(
                chi2=smallest_chi2(data, samples.flux, samples.theta.redshift),
                n_bands=(kind != MISSING).sum(axis=1),
                n_detected=(kind == DETECTION).sum(axis=1),
            ),
            diagnostics=samples.diagnostics,
            flag=self._flags(samples, data, observations.kind),
            predicted_flux=self._predicted(samples.flux, modelled),
            per_galaxy={"sfh_age": self._sfh_age(len(kind))},
        )

    def modelled(self, observations: Observations) -> np.ndarray:
        """[galaxy, band] whether the model has all the light that the band would see."""
        if self.galaxies.emits or self.plan.redshift is not None:
            return np.broadcast_to(self.predictor.reachable, observations.kind.shape)
        rest = np.array([f.pivot for f in self.filters]) / (1 + observations.redshift[:, None])
        dusty = rest > STARLIGHT_LIMIT
        lost = dusty & (observations.kind != 0)
        if lost.any():
            names = [f.name for f, any_ in zip(self.filters, lost.any(axis=0), strict=True) if any_]
            self.note(
                f"fluxes beyond {STARLIGHT_LIMIT / 1e4:g} micron at rest, where dust emission is "
                f"not modelled, are left out ({', '.join(names)})"
            )
        return self.predictor.reachable & ~dusty

    def _redshifted(self, data: Photometry) -> RedshiftedPhotometry:
        """The data of a batch with bands that lose weight beyond starlight."""
        if data.whitener is not None:
            raise JaxsedError(
                "[likelihood] emulator_covariance: not with a free redshift where bands lie beyond "
                f"{STARLIGHT_LIMIT / 1e4:g} micron at rest: leave it out, or narrow redshift_prior."
            )
        pivot = np.array([f.pivot for f in self.filters])[self.predictor.reachable]
        pivots = jnp.broadcast_to(jnp.asarray(pivot, float), data.scaled.shape)
        return RedshiftedPhotometry(data, pivots)

    def _dust_flag(self, samples: infer.Samples, data: Any) -> np.ndarray:
        """[galaxy] the flag of bands that have lost their weight in most of the draws."""
        if not isinstance(data, RedshiftedPhotometry):
            return np.zeros(len(samples.flux), np.int64)
        share = np.asarray(weights_of_draws(data, samples.theta.redshift)) ** 2
        # of detections alone: the weight of other bands is one
        lost = np.median(share.reshape(len(share), -1, share.shape[-1]), axis=1) < LITTLE_WEIGHT
        return np.where(lost.any(axis=1), int(Flag.DUST_EMISSION), 0)

    def _prior(self, redshift: np.ndarray) -> Prior:
        """Priors of a batch: leaves with a galaxy axis."""
        free = self.plan.redshift

        def one(z: Array) -> PyTree:
            if free is not None:
                z = params.distribution("uniform", free.low + 0.0 * z, free.high + 0.0 * z)
            own = self.galaxies.prior(z, self.plan.model.cosmology)
            return own._replace(**self.plan.prior)

        z = redshift if free is None else np.zeros_like(redshift)
        return jax.vmap(one)(jnp.asarray(z, dtype=float))

    def _sampled(self, theta: Theta) -> dict[str, np.ndarray]:
        fields = theta._asdict()
        if self.plan.redshift is None:
            fields.pop("redshift")
        return fields

    def _flags(self, samples: infer.Samples, data: Any, kind: np.ndarray) -> np.ndarray:
        flag = self._dust_flag(samples, data)
        lost = (kind[:, ~self.predictor.reachable] != 0).any(axis=1)
        flag[lost] |= int(Flag.UNREACHABLE_BAND)
        if self.predictor.kind == "emulator":
            inside = _inside(self.predictor.forward, samples.theta)
            outside = 1 - inside.reshape(len(kind), -1).mean(axis=1)
            flag[outside > OUTSIDE_SHARE] |= int(Flag.OUTSIDE_EMULATOR)
        if (free := self.plan.redshift) is not None:
            edge = free.high - EDGE_WIDTH * (free.high - free.low)
            late = np.asarray(samples.theta.redshift) > edge
            flag[late.reshape(len(kind), -1).mean(axis=1) > EDGE_SHARE] |= int(Flag.REDSHIFT_EDGE)
        return flag

    def _predicted(self, flux: np.ndarray, modelled: np.ndarray) -> np.ndarray:
        flat = flux.reshape(flux.shape[0], -1, flux.shape[-1])
        found = np.moveaxis(np.percentile(flat, PERCENTILES, axis=1), 0, 1)
        full = np.full((*found.shape[:2], len(self.filters)), np.nan)
        full[..., self.predictor.reachable] = found
        return np.where(modelled[:, None], full, np.nan)

    def _sfh_age(self, n: int) -> np.ndarray:
        age = np.asarray(self.predictor.physics.stars.axis.age)
        return np.broadcast_to(age, (n, age.size))

    def _progress(self, phase: str, done: int, left: int) -> None:
        news = phase.partition(",")[0], done, left
        if news != self._last_news:
            self.report(f"  {phase}: {done} galaxies done, {left} to go")
        self._last_news = news


def _over_draws(function, theta: Theta) -> PyTree:
    """Apply a function of one theta to draws [galaxy, chain, draw], a block at a time."""
    shape = np.shape(theta.log_mass_formed)
    full = type(theta)(*(_fill(np.asarray(v), shape) for v in theta))
    flat = jax.tree.map(lambda a: a.reshape(-1, *a.shape[3:]), full)
    block, n = 65536, int(np.prod(shape))
    parts = []
    for start in range(0, n, block):
        rows = np.arange(start, start + block) % n  # always full blocks: one compilation
        part = function(jax.tree.map(lambda a, r=rows: a[r], flat))
        parts.append(jax.tree.map(np.asarray, part))
    joined = jax.tree.map(lambda *a: np.concatenate(a)[:n], *parts)
    return jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), joined)


def _fill(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A known parameter, one per galaxy, repeated for every draw."""
    return value if value.ndim >= 3 else np.broadcast_to(value[:, None, None], shape)


@jax.jit
def _contains(emulator, theta):
    return jax.vmap(emulator.inside)(theta)


def _inside(emulator, theta: Theta) -> np.ndarray:
    return _over_draws(partial(_contains, emulator), theta)
