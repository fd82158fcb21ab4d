"""Batches of galaxies over devices: sharding and placement."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsed.core.types import PyTree
from jaxsed.problem import Problem


def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), ("galaxy",))


def split_over_devices(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays with a galaxy axis, each device with its own galaxies."""
    split = PartitionSpec("galaxy")
    return jax.shard_map(function, mesh=_mesh(), in_specs=split, out_specs=split, check_vma=False)


def over_galaxies(
    function: Callable[..., Any],
    problem: Problem,
    *,
    n_batched: int = 1,
    n_shared: int = 0,
    at_once: int | None = None,
) -> Callable[..., Any]:
    """Map a one-galaxy function over a batch, split over all devices.

    Devices do not wait for each other inside a call.

    Args:
        function: takes `n_batched` arguments with a galaxy axis, the problem, and `n_shared`
            arguments without one.
        problem: a batch, for the layout of its leaves.
        n_batched: see `function`.
        n_shared: see `function`.
        at_once: galaxies that a device takes after another; default: all of its own together.
    """
    axes = (*(0,) * n_batched, problem.axes, *(None,) * n_shared)
    together = jax.vmap(function, in_axes=axes)

    def in_turn(*arguments: Any) -> PyTree:
        batched, (problem, *shared) = arguments[:n_batched], arguments[n_batched:]

        def one(item: PyTree) -> PyTree:
            *own, prior, data = item
            return function(*own, dataclasses.replace(problem, prior=prior, data=data), *shared)

        return jax.lax.map(one, (*batched, problem.prior, problem.data), batch_size=at_once)

    mapped = together if at_once is None else in_turn
    return over_devices(mapped, problem, n_batched=n_batched, n_shared=n_shared)


def over_devices(
    function: Callable[..., Any], problem: Problem, *, n_batched: int = 1, n_shared: int = 0
) -> Callable[..., Any]:
    """A function of a batch of galaxies, each device with its own galaxies.

    Args:
        function: takes `n_batched` arguments with a galaxy axis, a batch as a problem, and
            `n_shared` arguments without one; all that it returns has a galaxy axis.
        problem: a batch, for the layout of its leaves.
        n_batched: see `function`.
        n_shared: see `function`.
    """
    split, whole = PartitionSpec("galaxy"), PartitionSpec()
    specs: Any = {"prior": split, "forward": whole, "data": split}
    return jax.shard_map(
        function,
        mesh=_mesh(),
        in_specs=(
            *(split,) * n_batched, dataclasses.replace(problem, **specs), *(whole,) * n_shared,
        ),
        out_specs=split,
        check_vma=False,
    )  # fmt: skip


def place(tree: PyTree) -> PyTree:
    """Arrays with a galaxy axis laid out over the devices as the batch functions leave them, so
    that every call finds the layout that is compiled."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec("galaxy")))


def place_problem(problem: Problem) -> Problem:
    """A batch of galaxies laid out in the same way, the forward model on every device."""
    split, whole = (NamedSharding(_mesh(), PartitionSpec(*axis)) for axis in (("galaxy",), ()))
    layout = dataclasses.replace(
        problem,
        prior=jax.tree.map(lambda _: split, problem.prior),
        forward=jax.tree.map(lambda _: whole, problem.forward),
        data=jax.tree.map(lambda _: split, problem.data),
    )
    return jax.device_put(problem, layout)


def device_count() -> int:
    """Number of devices that galaxies are split over."""
    return len(jax.devices())
