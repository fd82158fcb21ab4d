"""Amortised posteriors: one flow, trained on simulations, for every galaxy of a survey."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import params
from jaxsed.core.keys import typed_key
from jaxsed.core.types import Key, Prior, PyTree
from jaxsed.infer.amortised import flow as flows
from jaxsed.infer.amortised.context import PhotometricContext, photometric_context
from jaxsed.infer.amortised.flow import Flow
from jaxsed.infer.amortised.simulator import NoiseModel, Simulator
from jaxsed.infer.amortised.support import REASONS, Support, support, wider
from jaxsed.io import files
from jaxsed.io.components import Component
from jaxsed.learn import FitSettings, History, fit
from jaxsed.problem import Problem
from jaxsed.sps.models.registry import family

FIRST_LOOK = 16_384
"""Simulations that the scales of features and coordinates are taken from."""

BLOCK = 4096
"""Simulations per compiled call."""

FAR = 500.0
"""-ln q from which on a pair tells a training nothing more: a single one, far out in a tail, would
otherwise outweigh all others."""

NARROWEST = 1e-4
"""Coordinates are never magnified more than to this deviation."""


class Record(NamedTuple):
    """What a flow was trained for."""

    model: str
    """Name of the galaxy model, see `jaxsed.sps.models.registry`."""
    emulator: str
    """Name of the emulator that simulated."""
    bands: tuple[str, ...]
    parameters: tuple[str, ...]
    """[dimension] names of the coordinates."""
    redshift: tuple[float, float]
    anchor: str
    """The band whose magnitude was in the range `magnitudes`."""
    magnitudes: tuple[float, float]
    error_floor: float
    missing: float
    text: str
    """The survey and the training, in words."""


@struct.dataclass(eq=False)
class Amortised(
    Component,
    kind="jaxsed amortised posterior",
    title="flow",
    names={
        "flow/blocks/hidden/{}/0": "blocks/hidden{}",
        "flow/blocks/hidden/{}/1": "blocks/hidden_bias{}",
        "flow/blocks": "blocks",
        "flow/orders": "orders",
        "context/free_redshift": "free_redshift",
        "context/bands": None,
        "prior": None,
        "another_prior": None,
    },
):
    """A posterior for any galaxy of a survey, as good as the flow is."""

    flow: Flow
    context: PhotometricContext
    support: Support
    noise: NoiseModel
    """Of the simulations."""
    record: Record = struct.field(pytree_node=False)
    prior: Callable[[Any], Any] = struct.field(pytree_node=False)
    """``prior(redshift)`` that it was trained with."""
    another_prior: bool = struct.field(pytree_node=False, default=False)
    """Whether problems have another prior than that, see `suited`."""

    def select(self, bands: Sequence[str]) -> Amortised:
        """For problems with these bands; those of the flow that are not among them are missing.

        Raises ValueError for a band that the flow does not know.
        """
        unknown = [name for name in bands if name not in self.record.bands]
        if unknown:
            known = ", ".join(self.record.bands)
            raise ValueError(f"the flow does not know {', '.join(unknown)}: it has {known}")
        at = tuple(self.record.bands.index(name) for name in bands)
        return dataclasses.replace(self, context=dataclasses.replace(self.context, bands=at))

    def suited(self, problem: Problem) -> Amortised:
        """For a batch of problems, whose priors may be others than that of the training.

        The draws are then carried to the coordinates of the other prior, which importance weights
        make a posterior of: a new prior needs no new simulations.
        """
        own = jax.vmap(self._own_prior, (problem.axes,))(problem)
        (leaves, form), (others, other_form) = map(_flat, (own, problem.prior))
        same = form == other_form and all(map(np.allclose, leaves, others))
        return dataclasses.replace(self, another_prior=not same)

    def _own_prior(self, problem: Problem) -> Prior:
        if self.context.free_redshift:
            return self.prior(params.distribution("uniform", *self.record.redshift))
        return self.prior(problem.prior.redshift)

    def outside(self, problem: Problem) -> Array:
        """Bits of `jaxsed.infer.amortised.support.REASONS` for one galaxy; zero is inside."""
        bits = self.support(problem, *self.context.look(problem))
        if self.another_prior:
            bits = bits + 2 ** REASONS.index("prior") * wider(
                problem.prior, self._own_prior(problem)
            )
        return bits

    def _counts(self) -> dict[str, Any]:
        return {"layers": len(self.flow.blocks.hidden)}

    def _before_saving(self) -> Amortised:
        return jax.tree.map(lambda a: np.asarray(a, np.float32), self)

    def _after_loading(self) -> Amortised:
        _check(self)
        given: Any = self.prior
        return dataclasses.replace(self, prior=given or family(self.record.model).prior)

    def sample(self, key: Key, problem: Problem, n: int) -> tuple[Array, Array]:
        """Draws x [n, dimension] for one galaxy and their log densities under the flow [n]."""
        x, log_q = self.flow.sample(key, self.context(problem), n)
        if self.another_prior:
            x, log_det = jax.vmap(self._moved, (0, None))(x, problem)
            log_q = log_q - log_det
        return x, log_q

    def _moved(self, x: Array, problem: Problem) -> tuple[Array, Array]:
        """A draw in the coordinates of a problem with another prior, and ln of the Jacobian; minus
        infinity, which is an infinite density and no weight, outside that prior."""
        own = dataclasses.replace(problem, prior=self._own_prior(problem))
        here = own.evaluate(x)
        moved = problem.unconstrain(here.theta)
        there = problem.evaluate(moved)
        slope = params.log_slope(own.prior, here.theta, here.u)
        slope = slope - params.log_slope(problem.prior, there.theta, there.u)
        return moved, jnp.where(params.within(problem.prior, here.theta), slope, -jnp.inf)


def _flat(prior: Prior) -> tuple[list[Any], Any]:
    return jax.tree.flatten(prior)


def load(path: str | Path, prior: Callable[[Any], Any] | None = None) -> Amortised:
    """A flow that `Amortised.save` wrote.

    Args:
        path: the file.
        prior: ``prior(redshift)`` of the training, if it is not that of the model in the record.

    Raises FileNotFoundError, and ValueError for a file that is not one.
    """
    return Amortised.load(path, prior=prior)


def _check(amortised: Amortised) -> None:
    """ValueError or TypeError unless the parts of a flow fit each other."""
    own, record = amortised.flow, amortised.record
    d, bands, blocks = own.dimension, len(record.bands), len(own.orders)
    if d != len(record.parameters):
        raise ValueError(f"{d} coordinates and {len(record.parameters)} names of parameters")
    if any(sorted(order) != list(range(d)) for order in own.orders):
        raise ValueError(f"expected orders of {d} variables, got {own.orders}")
    context: Any = amortised.context
    files.check_shapes(
        {**vars(own), **vars(context)},
        {
            "x_shift": (d,), "x_scale": (d,),
            "context_shift": (context.size,), "context_scale": (context.size,),
            "softening": (bands,), "shift": (2, bands), "scale": (2, bands),
            "redshift_shift": (), "redshift_scale": (),
        },
    )  # fmt: skip
    if any(leaf.shape[:1] != (blocks,) for leaf in jax.tree.leaves(own.blocks)):
        raise ValueError(f"expected the weights of {blocks} blocks")
    for group, names in (("support", ("ln_sigma", "spread")), ("noise", ("mean", "deviation"))):
        arrays = vars(getattr(amortised, group))
        shape = arrays["magnitude"].shape
        if len(shape) != 2 or shape[0] != bands or not shape[1]:
            raise ValueError(f"expected magnitudes [{bands}, node] of {group}, got shape {shape}")
        files.check_shapes(arrays, dict.fromkeys(names, shape))
    limits = {"colours": (2, bands - 1), "brightness": (2, bands), "redshift": (2,)}
    files.check_shapes(vars(amortised.support), limits)
    for name, limit in (("redshift", record.redshift), ("magnitudes", record.magnitudes)):
        if len(limit) != 2 or not float(limit[0]) <= float(limit[1]):
            raise ValueError(f"expected {name} from low to high, got {limit}")
    # without computing anything: do the layers chain?
    jax.eval_shape(own.log_prob, own.x_shift, own.context_shift)


def simulate(
    key: Key, simulator: Simulator, n: int, look: Callable[[Array, Problem], Any]
) -> Any:
    """``look(x, problem)`` of n simulated galaxies, stacked.

    Args:
        key: random key.
        simulator: of galaxies.
        n: their number.
        look: what is kept of one: a pytree of arrays.

    Raises ValueError where hardly any galaxy of the prior is in the simulator's range.
    """
    key = typed_key(key)
    kept, found, tried = [], 0, 0
    block = _compiled(look)
    while found < n:
        keys = jax.random.split(jax.random.fold_in(key, tried), BLOCK)
        seen, counts = block(keys, simulator)
        good = np.flatnonzero(np.asarray(counts))
        kept.append(jax.tree.map(lambda a, g=good: np.asarray(a)[g], seen))
        found, tried = found + good.size, tried + BLOCK
        if tried >= 20 * BLOCK and found < 0.01 * tried:
            low, high = np.asarray(simulator.magnitudes)
            raise ValueError(
                f"{found} of {tried} galaxies of the prior have magnitudes from {low:g} to "
                f"{high:g}: widen the range"
            )
    return jax.tree.map(lambda *a: np.concatenate(a)[:n], *kept)


_COMPILED: dict[Any, Any] = {}


def _compiled(look: Callable[[Array, Problem], Any]) -> Any:
    if look not in _COMPILED:

        def one(key: Key, simulator: Simulator) -> tuple[Any, Array]:
            x, problem, counts = simulator.one(key)
            return look(x, problem), counts

        _COMPILED[look] = jax.jit(jax.vmap(one, (0, None)))
    return _COMPILED[look]


def train(
    key: Key,
    simulator: Simulator,
    *,
    text: str = "",
    blocks: int = 10,
    width: int = 128,
    pairs: int = 200_000,
    settings: FitSettings | None = None,
    begin: Amortised | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> tuple[Amortised, History]:
    """Train a flow on galaxies that are simulated afresh for every epoch.

    Args:
        key: random key.
        simulator: of galaxies.
        text: the survey, in words.
        blocks: of the flow.
        width: hidden units of each layer.
        pairs: simulated galaxies per epoch.
        settings: of the training.
        begin: a flow of the same bands and parameters to go on from, instead of `blocks` and
            `width`.
        checkpoint: see `jaxsed.learn.fit`.
        progress: show a progress line.

    Raises ValueError as `simulate` does.
    """
    key_look, key_flow, key_fit = jax.random.split(typed_key(key), 3)
    x, data, redshift = simulate(key_look, simulator, FIRST_LOOK, _look)
    softening = np.nanmedian(
        np.where(data.inverse_sigma > 0, 1 / np.maximum(data.inverse_sigma, 1e-30), np.nan), axis=0
    )
    context = photometric_context(softening, free_redshift=simulator.free_redshift)
    context = context.fitted(jax.tree.map(jnp.asarray, data), jnp.asarray(redshift))
    raw = np.swapaxes(np.asarray(context.raw(jax.tree.map(jnp.asarray, data))), 0, 1)
    within = support(raw, data.inverse_sigma > 0, np.asarray(redshift))
    if begin is not None:
        context, start = begin.context, begin.flow
    else:
        start = flows.create(key_flow, x.shape[1], context.size, blocks=blocks, width=width)
        # Robust: a few galaxies without any information have coordinates as wide as the prior.
        low, middle, high = np.quantile(x, [0.16, 0.5, 0.84], axis=0)
        start = dataclasses.replace(
            start, x_shift=jnp.asarray(middle, float),
            x_scale=jnp.asarray(np.maximum(0.5 * (high - low), NARROWEST), float),
        )  # fmt: skip

    def look(x: Array, problem: Problem) -> dict[str, Array]:
        return {"x": x, "context": context(problem)}

    def data_of(key: Key) -> PyTree:
        return simulate(key, simulator, pairs, look)

    def loss(blocks: PyTree, batch: PyTree, key: Key) -> Array:
        del key
        flow = dataclasses.replace(start, blocks=blocks)
        return jnp.mean(jnp.minimum(-jax.vmap(flow.log_prob)(batch["x"], batch["context"]), FAR))

    weights, history = fit(
        key_fit, start.blocks, loss, data_of, settings=settings, checkpoint=checkpoint,
        progress=progress,
    )  # fmt: skip
    record = Record(
        model=simulator.model, emulator=simulator.emulator, bands=simulator.bands,
        parameters=params.coordinate_names(simulator.prior_at(simulator.redshift[0])),
        redshift=_pair(simulator.redshift), anchor=simulator.bands[simulator.anchor],
        magnitudes=_pair(simulator.magnitudes), error_floor=simulator.error_floor,
        missing=simulator.missing,
        text=f"{text}; {len(history.stage)} epochs of {pairs} galaxies",
    )  # fmt: skip
    return Amortised(
        dataclasses.replace(start, blocks=weights),
        context,
        within,
        simulator.noise,
        record,
        simulator.prior,
    ), history


def _pair(values: Array) -> tuple[float, float]:
    low, high = np.asarray(values, float)
    return float(low), float(high)


def _look(x: Array, problem: Problem) -> tuple[Any, ...]:
    """Coordinates, data, and the redshift that the prior knows."""
    z = problem.prior.redshift
    return x, problem.data, z if params.is_fixed(z) else jnp.zeros(())
