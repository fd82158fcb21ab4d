"""Our normalising flow and that of sbi, of the same size, on the same cores, in one run.

    python -m benchmarks.posteriors.flow --json OUT.json

SEDflow's configuration by default (Hahn & Melchior 2022, section 3.3): 15 blocks of two hidden
layers of 500 units, for 12 parameters given 11 numbers.  Both are untrained: what a pass costs does
not depend on the weights.  The accuracies are of ours with its weights made larger, so that it is
far from the identity.  Without sbi (0.27 or later, with torch) only ours is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from benchmarks.posteriors.exact import active
from jaxsed.cli import cores, prepare_process
from jaxsed.emulators.validation.speed import median_seconds
from jaxsed.infer.amortised import flow as flows
from jaxsed.infer.amortised.flow import Flow
from jaxsed.nets import made

GALAXIES, DRAWS_EACH = 64, 1000
MANY = 10_000
BATCHES = (50, 1000)


def accuracy(net: Flow) -> dict[str, float]:
    """Largest errors of ours, far from the identity."""
    loud = net.replace(blocks=net.blocks._replace(output=30 * net.blocks.output))
    context = jax.random.normal(jax.random.key(1), (net.context_shift.size,))
    z = jax.random.normal(jax.random.key(2), (256, net.dimension))
    x, log_det = jax.jit(jax.vmap(loud.forward, (0, None)))(z, context)
    back, log_det_back = jax.jit(jax.vmap(loud.inverse, (0, None)))(x, context)
    jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda z: loud.forward(z, context)[0])))(z[:32])
    exact = np.linalg.slogdet(np.asarray(jacobian, float))[1]

    def one_pass_per_variable(weights: made.Made, z: jax.Array) -> jax.Array:
        x = jnp.zeros_like(z)
        for _ in range(z.size):
            mean, log_scale = made.conditional(weights, x, context)
            x = mean + jnp.exp(log_scale) * z
        return x

    block = jax.tree.map(lambda a: a[0], loud.blocks)
    naive = jax.jit(jax.vmap(lambda z: one_pass_per_variable(block, z)))(z)
    cached = jax.jit(jax.vmap(lambda z: made.ancestral(block, z, context)[0]))(z)
    return {
        "distance_from_identity": float(jnp.abs(x - z).max()),
        "round_trip": float(jnp.abs(back - z).max()),
        "log_det_there_and_back": float(jnp.abs(log_det + log_det_back).max()),
        "log_det_against_jacobian": float(np.abs(np.asarray(log_det[:32]) - exact).max()),
        "cached_against_naive": float(jnp.abs(cached - naive).max()),
    }


def ours(net: Flow, repeats: int) -> dict[str, float]:
    """Seconds of each task."""
    size, dimension = net.context_shift.size, net.dimension
    contexts = jax.random.normal(jax.random.key(3), (MANY, size))
    x = jax.random.normal(jax.random.key(4), (MANY, dimension))
    draw = jax.jit(lambda net, k, c: net.sample(k, c, MANY))
    each = jax.jit(
        lambda net, k, c: jax.vmap(lambda k, c: net.sample(k, c, DRAWS_EACH))(
            jax.random.split(k, GALAXIES), c
        )
    )
    density = jax.jit(lambda net, x, c: jax.vmap(net.log_prob)(x, c))
    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(blocks: Any, state: Any, x: jax.Array, c: jax.Array) -> Any:
        def loss(blocks: Any) -> jax.Array:
            return -jnp.mean(jax.vmap(net.replace(blocks=blocks).log_prob)(x, c))

        value, gradient = jax.value_and_grad(loss)(blocks)
        update, state = optimizer.update(gradient, state)
        return optax.apply_updates(blocks, update), state, value

    state = optimizer.init(net.blocks)
    key = jax.random.key(5)
    out = {
        "draws_of_one": median_seconds(lambda: draw(net, key, contexts[0]), repeats),
        "draws_of_64": median_seconds(
            lambda: each(net, key, contexts[:GALAXIES]), max(repeats // 2, 1)
        ),
        "log_prob": median_seconds(lambda: density(net, x, contexts), repeats),
    }
    for n in BATCHES:
        out[f"step_{n}"] = median_seconds(
            lambda n=n: step(net.blocks, state, x[:n], contexts[:n]), repeats
        )
    return out


def theirs(
    options: argparse.Namespace, repeats: int
) -> tuple[dict[str, float], int]:  # pragma: no cover - a peer that few have
    """The same by sbi, and how many weights it has."""
    import torch
    from sbi.neural_nets.net_builders import build_maf

    torch.set_num_threads(cores())
    torch.manual_seed(0)
    x, contexts = torch.randn(MANY, options.dimension), torch.randn(MANY, options.features)
    net = build_maf(
        x[:1000], contexts[:1000], hidden_features=options.width, num_transforms=options.blocks,
        num_blocks=2,
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

    def step(n: int) -> None:
        optimizer.zero_grad()
        net.loss(x[:n], contexts[:n]).mean().backward()
        optimizer.step()

    def without_gradient(work: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                work()

        return run

    few = max(repeats // 5, 1)
    out = {
        "draws_of_one": median_seconds(
            without_gradient(lambda: net.sample((MANY,), contexts[:1])), few
        ),
        "draws_of_64": median_seconds(
            without_gradient(lambda: net.sample((DRAWS_EACH,), contexts[:GALAXIES])),
            1,
            warm=False,
        ),
        "log_prob": median_seconds(without_gradient(lambda: net.log_prob(x[None], contexts)), few),
    }
    for n in BATCHES:
        out[f"step_{n}"] = median_seconds(lambda n=n: step(n), few)
    return out, sum(p.numel() for p in net.parameters())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--dimension", type=int, default=12)
    parser.add_argument("--features", type=int, default=11)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", default=None)
    options = parser.parse_args()
    prepare_process()
    net = flows.create(
        jax.random.key(0), options.dimension, options.features,
        blocks=options.blocks, width=options.width,
    )  # fmt: skip
    out: dict[str, Any] = {
        "device": str(jax.devices()[0]), "cores": cores(), "machine_cores": os.cpu_count(),
        "parameters": sum(a.size for a in jax.tree.leaves(net.blocks)), "active": active(net),
        "accuracy": accuracy(net), "jaxsed": ours(net, options.repeats),
    }  # fmt: skip
    print(f"{out['parameters']:,} weights, {out['active']:,} beside the masks; {out['accuracy']}")
    if importlib.util.find_spec("sbi"):
        out["sbi"], out["sbi_parameters"] = theirs(options, options.repeats)
    words = {
        "draws_of_one": f"{MANY:,} draws of one galaxy",
        "draws_of_64": f"{DRAWS_EACH:,} draws of each of {GALAXIES}",
        "log_prob": f"densities of {MANY:,} pairs",
    } | {f"step_{n}": f"training step of {n} pairs" for n in BATCHES}
    table = Table("seconds", "jaxsed", "sbi", "ratio")
    for name, text in words.items():
        own, other = out["jaxsed"][name], out.get("sbi", {}).get(name, np.nan)
        table.add_row(text, f"{own:.3g}", f"{other:.3g}", f"{other / own:.1f}")
    Console().print(table)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(out, file, indent=1)


if __name__ == "__main__":
    main()
