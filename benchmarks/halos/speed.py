"""Training and prediction of residual networks over cubes: ours, and the published one in torch.

    python -m benchmarks.halos.speed --json OUT.json

The same sizes (25^3 voxels of one channel, 14 bins, batches of 32), chi-square, Adam.  The torch
network is written here after Nadler & To (2018), with its batch norms; ours has the same sizes and
a norm without a state.  Both get fields that are painted already.  Beside them, ours as it is
trained by default: it paints boxes of halos, turned and moved at every step, and counts them.
Times are medians of calls after the first three, one network after the other in every round; torch
is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import halos as ha
from jaxsed.cli import cores, prepare_process
from jaxsed.halos import boxes, networks, training
from jaxsed.learn.settings import make_optimizer
from jaxsed.nets import resnet3d

BATCH, VOXELS, BINS = 32, 25, 14

WARM = 3
"""Calls before those that are timed: the second compiles again, for what the first returned."""

Calls = dict[str, Callable[[], Any]]
"""What is timed: "step" of a training, "predict" of a batch."""


def random_fields() -> tuple[np.ndarray, np.ndarray]:
    """[box, voxel, voxel, voxel, channel] and [box, bin], without meaning."""
    generator = np.random.default_rng(0)
    field = generator.normal(size=(BATCH, *(VOXELS,) * 3, 1)).astype(np.float32)
    return field, generator.poisson(5.0, (BATCH, BINS)).astype(np.float32)


def random_boxes(halos: int) -> training.Batch:
    """Boxes with so many halos and four features each, without meaning."""
    generator = np.random.default_rng(0)
    box = np.repeat(np.arange(BATCH), halos)
    features = {"v_peak": 10 ** generator.normal(2.0, 0.2, box.size)}
    features |= {f"feature{i}": generator.normal(size=box.size) for i in range(3)}
    found = ha.halos(
        box, 25.0 * generator.random((box.size, 3)), features, box_size=25.0, hubble=0.7
    )
    packed = boxes.pack(found, boxes.Features.of(found), boxes.slots_of(found))
    counts = generator.poisson(5.0, (BATCH, BINS)).astype(np.float32)
    return training.Batch(jax.tree.map(jnp.asarray, packed), jnp.asarray(counts))


def trained(network: Any, loss: Any, predict: Any, batch: Any) -> Calls:
    """Steps and predictions of a network of ours."""
    optimizer = make_optimizer("adam", None)
    state = [network, optimizer.init(network)]

    @jax.jit
    def step(network: Any, memory: Any, batch: Any, key: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(network, batch, key)
        direction, memory = optimizer.update(gradient, memory, network)
        return jax.tree.map(lambda p, d: p - 1e-3 * d, network, direction), memory, value

    compiled = jax.jit(predict)

    def one_step() -> None:
        state[0], state[1], value = step(*state, batch, jax.random.key(0))
        jax.block_until_ready((state, value))

    return {
        "step": one_step,
        "predict": lambda: jax.block_until_ready(compiled(state[0], batch)),
    }


def ours(width: int) -> Calls:
    """The published sizes, from painted fields."""
    architecture = resnet3d.Architecture(width=width, norm=True, pool="max", wrap=False)
    network = resnet3d.init(jax.random.key(0), VOXELS, 1, BINS, architecture=architecture)
    batch = tuple(jnp.asarray(a) for a in random_fields())

    def loss(network: Any, batch: Any, key: Any) -> Any:
        field, counts = batch
        found = jax.vmap(lambda x, k: network(x, None, k))(field, jax.random.split(key, BATCH))
        return training.chi2(found, counts).mean()

    return trained(network, loss, lambda n, batch: jax.vmap(n)(batch[0]), batch)


def ours_whole(width: int, halos: int) -> Calls:
    """The default network, from boxes of halos."""
    sizes = networks.Architecture(resnet=resnet3d.Architecture(width=width))
    network = networks.init(jax.random.key(0), 4, BINS, typical=halos, architecture=sizes)
    settings = ha.HaloSettings(architecture=sizes)
    loss = training.loss_of(settings, jnp.full(BINS, jnp.log(5.0)), (25.0 / 0.7) ** 3)
    predict = lambda n, batch: jax.vmap(n)(batch.boxes)  # noqa: E731
    return trained(network, loss, predict, random_boxes(halos))


def theirs(width: int) -> tuple[Calls, int]:
    """The published network in torch, and the number of its weights."""
    import torch
    from torch import nn

    def convolution(a: int, b: int, size: int, stride: int) -> Any:
        return nn.Sequential(
            nn.Conv3d(a, b, size, stride, padding=size // 2, bias=False), nn.BatchNorm3d(b)
        )

    class Block(nn.Module):
        def __init__(self, a: int, b: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = convolution(a, b, 3, stride), convolution(b, b, 3, 1)
            self.shortcut = convolution(a, b, 1, stride) if stride > 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            return torch.relu(self.shortcut(x) + self.second(torch.relu(self.first(x))))

    layers: list[Any] = [
        nn.Conv3d(1, width, 3, 2, padding=3, bias=False), nn.BatchNorm3d(width), nn.ReLU(),
        nn.MaxPool3d(3, 2, padding=1),
    ]  # fmt: skip
    into = width
    for factor in resnet3d.STAGES:
        layers += [Block(into, factor * width, 2), Block(factor * width, factor * width, 1)]
        into = factor * width
    layers.append(nn.Flatten())
    for a, b in ((into, 320), (320, 80)):
        layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(0.1)]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = nn.Sequential(*layers, nn.Linear(80, BINS), nn.BatchNorm1d(BINS)).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    field, counts = (torch.tensor(a).to(device) for a in random_fields())
    field = field.movedim(-1, 1).contiguous()

    def done() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def step() -> None:
        net.train()
        optimizer.zero_grad()
        (((net(field) - counts) ** 2 / (counts + 1)).sum(1)).mean().backward()
        optimizer.step()
        done()

    def predict() -> None:
        net.eval()
        with torch.no_grad():
            net(field)
        done()

    return {"step": step, "predict": predict}, sum(p.numel() for p in net.parameters())


def measured(calls: dict[str, Calls], repeats: int) -> dict[str, dict[str, float]]:
    """Seconds of the first call and the median of later ones, by network and by what it does."""
    out: dict[str, dict[str, float]] = {name: {} for name in calls}
    for what in ("step", "predict"):
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(repeats + WARM):
            for name, call in calls.items():
                begun = time.perf_counter()
                call[what]()
                times[name].append(time.perf_counter() - begun)
        for name, row in out.items():
            row[what] = float(np.median(times[name][WARM:]))
            row[f"{what}_first"] = times[name][0]
    return out


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", nargs="+", type=int, default=[20, 100, 200])
    parser.add_argument("--halos", type=int, default=1300, help="in a box of the default network")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    prepare_process()
    try:
        import torch

        torch.set_num_threads(cores())
    except ImportError:
        torch = None  # type: ignore[assignment]
        Console().print("torch is not installed: only ours is timed")
    out: dict[str, Any] = {"device": str(jax.devices()[0]), "cores": cores(), "batch": BATCH}
    table = Table("channels", "network", "step [s]", "box predicted [ms]", "torch over ours")
    for width in options.channels:
        calls = {"ours": ours(width), "ours, whole": ours_whole(width, options.halos)}
        weights = None
        if torch is not None:
            calls["torch"], weights = theirs(width)
        rows = measured(calls, options.repeats)
        for name, row in rows.items():
            ratios = ""
            if "torch" in rows and name != "torch":
                row["ratios"] = [rows["torch"][k] / row[k] for k in ("step", "predict")]
                ratios = ", ".join(f"{r:.2f}" for r in row["ratios"])
            table.add_row(
                str(width), name, f"{row['step']:.4f}", f"{1e3 * row['predict'] / BATCH:.3f}",
                ratios,
            )  # fmt: skip
        out[str(width)] = rows | {"torch_weights": weights}
        Console().print(table)
        if options.json:
            options.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
