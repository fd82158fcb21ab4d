"""Boxes of halos whose galaxies follow from them."""

import dataclasses

import numpy as np

from jaxsed import halos as ha
from jaxsed.halos import networks
from jaxsed.learn import FitSettings, History, ensemble
from jaxsed.nets import resnet3d

SIZE = 25.0
EDGES = (9.5, 10.0, 10.5, 11.0)


def universe(n, seed=0, per_box=60, forming=False):
    """Boxes of halos whose galaxies follow their peak velocities and a second property; their star
    formation follows that too, and the more halos a box has, the more of them are quiescent."""
    generator = np.random.default_rng(seed)
    count = generator.poisson(per_box * generator.uniform(0.4, 1.6, n))
    box = np.repeat(np.arange(n), count)
    total = box.size
    log_v = 2.0 + generator.exponential(0.18, total)
    spin = generator.normal(size=total)
    log_mass = 9.5 + 2.5 * (log_v - 2.0) + 0.3 * spin + 0.05 * generator.normal(size=total)
    sfr = None
    if forming:
        sfr = 10 ** (log_mass - 10.0 + 0.3 * spin + 0.2 * generator.normal(size=total))
        sfr *= generator.random(total) > np.clip(count[box] / (2 * per_box), 0.0, 0.9)
    return ha.halos(
        box, SIZE * generator.random((total, 3)), {"v_peak": 10**log_v, "spin": spin},
        box_size=SIZE, hubble=0.7, stellar_mass=10**log_mass, boxes=np.arange(n), sfr=sfr,
    )  # fmt: skip


def settings(**changes):
    """A quick training of a small network."""
    sizes = networks.Architecture(
        voxels=9, resnet=resnet3d.Architecture(width=4, dense=(32, 16)), census=(16, 8)
    )
    fit = FitSettings(
        optimizer="nadam", schedule="cosine", learning_rates=(5e-3, 1e-4), batch_size=16,
        epochs=12, patience=12, warmup=0.1, clip_norm=1.0,
    )  # fmt: skip
    return ha.HaloSettings(architecture=sizes, edges=EDGES, fit=fit, **changes)


def small_settings(**changes):
    """Those of a network that compiles fast."""
    given = settings(**changes)
    resnet = dataclasses.replace(given.architecture.resnet, width=2, dense=(8, 4))
    sizes = dataclasses.replace(given.architecture, voxels=5, resnet=resnet, census=(4, 4))
    return dataclasses.replace(given, architecture=sizes)


def with_fit(monkeypatch, change=lambda network: network):
    """Trainings end at once; what they are given is kept."""
    kept = []

    def fit(key, network, loss, data, *, validation, **rest):
        kept.append((data, validation))
        return change(network), History.of([(0, 1.0, 1.0, 0.1, 1, 1.0)], 1, 1.0, "stopped")

    monkeypatch.setattr(ensemble, "fit", fit)
    return kept
