"""Training and prediction of the censored network: ours, and the published one in torch beside it.

    python -m benchmarks.stars.speed --json OUT.json

The same sizes (7514 pixels, 22 labels, 3,499,122 weights), the same random spectra, batches of 64,
dropout 0.3.  The torch network is written here after Leung & Bovy (2018), with dropout between the
convolutions as they have it; ours is timed with and without.  Times are medians of calls after the
first; torch is left out where it is not installed.  On a GPU only ours is timed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from jaxsed import stars as st
from jaxsed.cli import cores, prepare_process
from jaxsed.learn import FitSettings
from jaxsed.stars import apogee, networks

BATCH = 64
NAMES = ("teff", "logg", *(n for n in apogee.windows() if n != "Fe"), "fe")


def random_stars(n: int) -> st.Spectra:
    """Spectra and labels of the right shapes, without meaning."""
    generator = np.random.default_rng(0)
    wave = apogee.grid()
    flux = 1 + 0.05 * generator.normal(size=(n, wave.size))
    return st.spectra(
        wave, flux, np.full_like(flux, 0.05), names=NAMES,
        labels=generator.normal(size=(n, len(NAMES))), windows=dict(apogee.windows()),
    )  # fmt: skip


def timed(call: Any, repeats: int) -> tuple[float, float]:
    """Seconds of the first call, and the median of the others."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return times[0], float(np.median(times[1:]))


def ours(stars: st.Spectra, draws: int, spectra: int, repeats: int, *, masked: bool) -> Any:
    """Seconds per epoch, and of a prediction."""
    sizes = dataclasses.replace(networks.PUBLISHED["censored"], mask_convolution=masked)
    epochs = repeats + 1
    settings = st.StarSettings(
        architecture=sizes,
        fit=FitSettings(
            optimizer="adam", learning_rates=(5e-4,), batch_size=BATCH, epochs=epochs,
            patience=epochs,
        ),
    )  # fmt: skip
    model, (history,) = st.train(
        jax.random.key(0), stars, "censored", settings=settings, progress=False
    )
    epoch = float(np.median(np.diff(history.seconds))) * len(stars) / history.samples[0]
    many = stars.take(np.arange(spectra) % len(stars))
    first, seconds = timed(lambda: model.predict(jax.random.key(1), many, draws=draws), repeats)
    return {"epoch": epoch, "predict": seconds, "predict_first": first}


def torch_network() -> Any:
    """The published network, its outputs (values, log variances)."""
    import torch
    from torch import nn

    windows = apogee.windows()
    elements = [n for n in NAMES if n not in networks.PARAMETERS]

    class Censored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv1d(1, 2, 8, padding="same")
            self.conv2 = nn.Conv1d(2, 4, 8, padding="same")
            self.dense1, self.dense2 = nn.Linear(7512, 192), nn.Linear(192, 64)
            self.value, self.variance = nn.Linear(64, 3), nn.Linear(64, 3)
            self.link = nn.Linear(64, 2)
            self.first, self.second = nn.ModuleList(), nn.ModuleList()
            self.values, self.variances = nn.ModuleList(), nn.ModuleList()
            self.pixels = [torch.tensor(np.flatnonzero(windows[n])) for n in elements]
            for name, pixels in zip(elements, self.pixels, strict=True):
                a, b = (256, 64) if name in ("C", "N") else (32, 16)
                self.first.append(nn.Linear(len(pixels), a))
                self.second.append(nn.Linear(a, b))
                self.values.append(nn.Linear(b + 5, 1))
                self.variances.append(nn.Linear(b + 5, 1))

        def forward(self, x: Any) -> Any:
            def drop(a: Any) -> Any:
                return nn.functional.dropout(a, 0.3, training=True)

            h = drop(torch.relu(self.conv1(x[:, None])))
            h = nn.functional.max_pool1d(torch.relu(self.conv2(h)), 4)
            h = torch.relu(self.dense1(drop(h.flatten(1))))
            h = torch.relu(self.dense2(drop(h)))
            three = self.value(h)
            told = torch.cat([self.link(h), three.detach()], dim=1)
            values, variances = [three], [self.variance(h)]
            for pixels, a, b, value, variance in zip(
                self.pixels, self.first, self.second, self.values, self.variances, strict=True
            ):
                own = drop(torch.relu(a(x[:, pixels])))
                own = torch.cat([drop(torch.relu(b(own))), told], dim=1)
                values.append(value(own))
                variances.append(variance(own))
            return torch.cat(values, dim=1), torch.cat(variances, dim=1)

    return Censored()


def theirs(stars: st.Spectra, draws: int, spectra: int, repeats: int) -> dict[str, float]:
    """The same by torch on as many threads as there are cores."""
    import torch

    torch.set_num_threads(cores())
    net = torch_network()
    x, y = torch.tensor(stars.flux - 1), torch.tensor(np.asarray(stars.labels, np.float32))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-4)

    def epoch() -> None:
        order = torch.randperm(len(x))
        for i in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[i : i + BATCH]
            value, log_variance = net(x[rows])
            each = 0.5 * ((y[rows] - value) ** 2 * torch.exp(-log_variance) + log_variance)
            optimizer.zero_grad()
            each.mean().backward()
            optimizer.step()

    many = x[torch.arange(spectra) % len(x)]

    def predict() -> None:
        with torch.no_grad():
            found = torch.stack([net(many)[0] for _ in range(draws)])
            found.mean(0), found.std(0)

    count = sum(p.numel() for p in net.parameters())
    return {
        "epoch": timed(epoch, repeats)[1],
        "predict": timed(predict, repeats)[1],
        "parameters": count,
    }


def main() -> None:
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=2000, help="spectra of an epoch")
    parser.add_argument("--spectra", type=int, default=500, help="of a prediction")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    prepare_process()
    stars = random_stars(options.train)
    arguments = options.draws, options.spectra, options.repeats
    out: dict[str, Any] = {"device": str(jax.devices()[0]), "cores": cores()}
    out["ours"] = ours(stars, *arguments, masked=False)
    out["ours, masked convolutions"] = ours(stars, *arguments, masked=True)
    try:
        if jnp.zeros(1).devices().pop().platform == "cpu":
            out["torch"] = theirs(stars, *arguments)
    except ImportError:
        Console().print("torch is not installed: only ours is timed")
    table = Table("network", f"epoch of {options.train} [s]",
                  f"{options.spectra} spectra x {options.draws} draws [s]", "ratios")  # fmt: skip
    for name in [n for n in out if isinstance(out[n], dict)]:
        row, ratios = out[name], ""
        if "torch" in out and name != "torch":
            row["ratios"] = [out["torch"][k] / row[k] for k in ("epoch", "predict")]
            ratios = ", ".join(f"{r:.1f}" for r in row["ratios"])
        table.add_row(name, f"{row['epoch']:.2f}", f"{row['predict']:.2f}", ratios)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
