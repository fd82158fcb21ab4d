"""Writes `tests/data/old_files.zip`: one small file of each kind, and what it predicts.

Run at version 0.1.0, commit 17e5b1c, by ``PYTHONPATH=. python tests/make_old_files.py``. The files
stand for those that users have: `test_old_files.py` reads them with the present code, so they are
never written anew. A later version that changes a layout adds an archive of its own.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from halo_data import universe
from star_data import LABELS, PIXELS, SMALL, windows

import jaxsed
from jaxsed.bands.filters import Filter
from jaxsed.emulators import (
    EmulatorRecord,
    ErrorSummary,
    PhotometricEmulator,
    ProvabgsSpectrum,
    SpectrumEmulator,
    StitchedEmulator,
)
from jaxsed.emulators.spectral.emulator import spectral_window
from jaxsed.emulators.spectral.provabgs import (
    BURST_INPUTS,
    SMOOTH_INPUTS,
    provabgs_spectrum,
)
from jaxsed.emulators.validation.spectral import SpectrumErrors
from jaxsed.halos import baselines, forest, networks
from jaxsed.halos.boxes import Features
from jaxsed.halos.formation import Typical
from jaxsed.halos.model import HaloModel
from jaxsed.halos.model import Record as HaloRecord
from jaxsed.halos.support import Support as HaloSupport
from jaxsed.infer.amortised import Amortised, Record, flow
from jaxsed.infer.amortised.context import photometric_context
from jaxsed.infer.amortised.simulator import NoiseModel
from jaxsed.infer.amortised.support import Support
from jaxsed.nets import mlp, resnet3d
from jaxsed.rest_frame.dust_curves import KriekConroyCurve
from jaxsed.sps.models.registry import family
from jaxsed.stars import networks as star_networks
from jaxsed.stars.autoencoder import Autoencoder, AutoencoderSettings, _init
from jaxsed.stars.cannon import Cannon
from jaxsed.stars.model import StarModel
from jaxsed.stars.record import Reach, Scaling
from jaxsed.stars.record import Record as StarRecord

ARCHIVE = Path(__file__).parent / "data" / "old_files.zip"

FEATURES, BANDS = ("log10_age", "dust", "redshift"), ("u", "g", "r")
LOW, HIGH = np.array([-1.0, 0.0, 0.0]), np.array([1.0, 3.0, 4.0])
WAVE = np.geomspace(3000.0, 9000.0, 24)
EDGES = (9.5, 10.0, 10.5, 11.0)
COMPRESSION = zipfile.ZIP_LZMA


class Theta(NamedTuple):
    """Of the toy emulators."""

    log_mass_formed: Any = 10.5
    age: Any = 2.0
    dust: Any = 0.4
    redshift: Any = 2.1


class ProvabgsInputs(NamedTuple):
    """Of the spectrum emulator of a galaxy."""

    beta: Any = np.array([0.1, 0.2, 0.3, 0.4])
    f_burst: Any = 0.2
    t_burst: Any = 3.0
    gamma1: Any = 1e-2
    gamma2: Any = 2e-2
    dust1: Any = 0.5
    dust2: Any = 0.3
    dust_index: Any = -0.4
    redshift: Any = 0.2


# --- components -----------------------------------------------------------------------------------


def photometric(seed: int = 0, window: tuple[float, float] = (0.0, 4.0)) -> PhotometricEmulator:
    rng = np.random.default_rng(seed)
    low, high = LOW.copy(), HIGH.copy()
    low[2], high[2] = window
    curves = tuple(
        Filter(name, centre + np.linspace(-500.0, 500.0, 9), 1.0 - np.linspace(-1.0, 1.0, 9) ** 2)
        for name, centre in zip(BANDS, (3600.0, 4800.0, 6200.0), strict=True)
    )
    record = EmulatorRecord("toy", "none", curves, {"seed": seed}, ("A 2000",), 0.01, "inoue2014")
    made = PhotometricEmulator.create(
        mlp.init(jax.random.key(seed), (3, 6, 3)),
        ((low + high) / 2, high - low, np.full(3, -20.0)), (FEATURES, BANDS),
        box=(low, high), mu_0=-1.5, record=record,
    )  # fmt: skip
    return dataclasses.replace(
        made,
        error=ErrorSummary.of(0.01 * rng.normal(size=(50, 3))),
        error_ab=ErrorSummary.of(0.02 * rng.normal(size=(50, 3))),
        spread=mlp.init(jax.random.key(9 + seed), (3, 4, 3)),
    )


def stitched() -> StitchedEmulator:
    spans = ((0.0, 2.25), (1.75, 4.0))
    return StitchedEmulator.create([photometric(i, span) for i, span in enumerate(spans)], spans)


def spectrum(
    names: tuple[str, ...] = ("log10_age", "dust"),
    activations: tuple[str, ...] = ("gelu_tanh", "speculator"),
    seed: int = 0,
) -> SpectrumEmulator:
    rng, n = np.random.default_rng(seed), len(names)
    parts, size = [], WAVE.size // len(activations)
    for k, activation in enumerate(activations):
        layers = mlp.init(jax.random.key(seed + k), (n, 4, 3), activation)
        parts.append(
            spectral_window(
                layers, parameters=(np.zeros(n), np.ones(n)), scores=(np.zeros(3), np.ones(3)),
                basis=0.1 * rng.normal(size=(3, size)),
                spectrum=(np.full(size, -9.0), np.ones(size)),
                activation=activation,
            )
        )  # fmt: skip
    return SpectrumEmulator.create(parts, WAVE, names, box=(np.full(n, -5.0), np.full(n, 20.0)))


def provabgs() -> ProvabgsSpectrum:
    rng = np.random.default_rng(3)
    screen = KriekConroyCurve(*(jnp.asarray(rng.random(WAVE.size), float) for _ in range(3)),
                    jnp.array([0.85, -1.9]))  # fmt: skip
    return provabgs_spectrum(
        spectrum(SMOOTH_INPUTS, ("gelu_tanh",), 4), spectrum(BURST_INPUTS, ("gelu_tanh",), 5),
        screen, burst_width=0.1,
        errors=SpectrumErrors.of(0.01 * rng.normal(size=(20, WAVE.size)), WAVE),
        record={"epochs": 3},
    )  # fmt: skip


def amortised() -> Amortised:
    """For PROVABGS in name; of two variables, so that it is small."""
    context = photometric_context(np.ones(3))
    net: Any = flow.create(jax.random.key(0), 2, context.size, blocks=2, width=6)
    net = net.replace(x_shift=jnp.array([0.1, -0.2]), x_scale=jnp.array([1.5, 0.5]))
    record = Record(
        model="provabgs", emulator="none", bands=BANDS, parameters=("a", "b"),
        redshift=(0.0, 1.0), anchor="g", magnitudes=(15.0, 30.0), error_floor=0.02, missing=0.1,
        text="a toy",
    )  # fmt: skip
    nodes = jnp.tile(jnp.array([-100.0, 0.0, 100.0]), (3, 1))
    support = Support(
        magnitude=nodes, ln_sigma=0.1 * nodes, spread=1 + 0 * nodes,
        colours=jnp.tile(jnp.array([[-9.0], [9.0]]), (1, 2)), brightness=nodes.T[:2],
        redshift=jnp.array([0.0, 1.0]),
    )  # fmt: skip
    noise = NoiseModel(nodes, nodes, nodes)
    return Amortised(net, context, support, noise, record, family("provabgs").prior)


def star(kind: str, members: int, laplace: bool) -> StarModel:
    rng, n = np.random.default_rng(6), len(LABELS)
    nets = tuple(
        star_networks.init(
            jax.random.key(i), kind, PIXELS, LABELS, architecture=SMALL,
            windows={name: jnp.asarray(window) for name, window in windows().items()},
        )
        for i in range(members)
    )  # fmt: skip
    last = nets[0].rest(nets[0].first(jnp.zeros(PIXELS)), None).last
    f = last[0].size
    return StarModel(
        members=nets,
        scaling=Scaling(
            jnp.asarray(rng.random(PIXELS), jnp.float32), jnp.arange(1.0, n + 1), jnp.full(n, 2.0)
        ),
        reach=Reach(jnp.zeros(f), jnp.eye(f), jnp.asarray(3.0)),
        calibration=jnp.full(n, 1.5), calibration_flux=jnp.full(n, 1.25),
        laplace=tuple(tuple(0.01 * jnp.eye(a.size + 1) for a in last) for _ in nets)
        if laplace else None,
        record=StarRecord(
            kind, LABELS, tuple((15000.0 + 0.3 * np.arange(PIXELS)).tolist()), 10, (0.0,) * n,
            (1.0,) * n, 4, {"teff": [1.0, 2.0]},
        ),
    )  # fmt: skip


def autoencoder() -> Autoencoder:
    sizes = AutoencoderSettings(hidden=(5, 3), filters=(2, 2), taps=4, pool=4)
    return Autoencoder(
        _init(jax.random.key(1), PIXELS, sizes), jnp.linspace(0.9, 1.1, PIXELS), jnp.asarray(0.1),
        sizes, tuple((15000.0 + 0.3 * np.arange(PIXELS)).tolist()),
    )  # fmt: skip


def cannon() -> Cannon:
    rng = np.random.default_rng(8)
    as_32 = lambda a: jnp.asarray(a, jnp.float32)  # noqa: E731
    return Cannon(
        as_32(rng.normal(size=(20, 6))), as_32(rng.random(20)), as_32([4700.0, 2.0]),
        as_32([250.0, 0.5]), ("teff", "logg"), tuple((15000.0 + np.arange(20)).tolist()),
    )  # fmt: skip


def halo_network() -> HaloModel:
    found = universe(6)
    features = Features.of(found)
    sizes = networks.Architecture(
        voxels=9, resnet=resnet3d.Architecture(width=2, dense=(8, 4)), census=(4, 2)
    )
    nets = tuple(
        networks.init(
            jax.random.key(i), len(features.names), 3, typical=60.0, forming=True,
            architecture=sizes,
        )
        for i in range(2)
    )  # fmt: skip
    record = HaloRecord(
        "resnet", EDGES, features, found.box_size, found.hubble, 0.0,
        HaloSupport.of(found, features), 256, 6, 0, {"chi2": 3.0},
    )  # fmt: skip
    typical = Typical(jnp.array([-1.0, 0.0, 1.0]), jnp.array([0.1, 0.2, 0.3]), jnp.asarray(0.2))
    return HaloModel(
        nets, jnp.array([1.0, 0.5, 0.1]), jnp.array([1.1, 1.2, 1.3]), record, typical,
        jnp.array([0.9, 1.1]),
    )  # fmt: skip


def baseline(kind: str) -> baselines.Baseline:
    baselines.TREES = 6
    return baselines.fit_baseline(universe(20), kind, edges=EDGES, v_peak_min=0.0)


def halo_forest() -> forest.HaloForest:
    forest.TREES = 8
    choice = {"min_samples_leaf": [20], "max_depth": [4]}
    return forest.fit_forest(universe(8), grid=choice)[0]


COMPONENTS: dict[str, Any] = {
    "photometric_emulator": photometric,
    "stitched_emulator": stitched,
    "spectrum_emulator": spectrum,
    "provabgs_spectrum": provabgs,
    "flow": amortised,
    "star_network": lambda: star("bcnn", 1, False),
    "star_network_censored": lambda: star("censored", 2, True),
    "star_autoencoder": autoencoder,
    "cannon": cannon,
    "halo_network": halo_network,
    "halo_baseline_mean": lambda: baseline("mean"),
    "halo_baseline_ridge": lambda: baseline("ridge"),
    "halo_baseline_forest": lambda: baseline("forest"),
    "halo_forest": halo_forest,
}


def run(path: Path) -> None:
    """Three galaxies of the demo, with few draws kept; the engine answers at once."""
    from astropy.table import Table
    from fake_engine import FakeEngine

    from jaxsed.examples import __path__ as examples

    demo = Path(examples[0])
    catalog, config = path.with_name("catalog.ecsv"), path.with_name("config.toml")
    Table.read(demo / "goodss.ecsv")[:3].write(catalog)
    text = (demo / "goodss.toml").read_text("utf-8")
    config.write_text(text + "[output]\ndraws = 5\n")
    jaxsed.fit_catalog(config, catalog, path, engine=FakeEngine(), progress=False)


# --- what they predict ----------------------------------------------------------------------------

FLUX = np.random.default_rng(0).uniform(0.8, 1.0, PIXELS)


def of_photometric(emulator: Any) -> list[Any]:
    record = emulator.record
    curves = [float(curve.trans.sum()) for curve in record.curves]
    return [
        emulator(Theta()), emulator.error.covariance, emulator.box_high, curves,
        [record.birth_cloud_age, float(emulator.cosmology.h)],
    ]  # fmt: skip


def of_star(model: Any) -> list[Any]:
    from jaxsed.stars import spectra

    wave = np.array(model.record.wave)
    some = spectra(wave, FLUX[None], np.full((1, PIXELS), 0.01))
    found = model.predict(jax.random.key(0), some, draws=0, flux_errors=True)
    labels = model(jnp.asarray(FLUX, float))
    return [labels, found.value, found.std, found.distance, list(model.record.low)]


def of_halos(model: Any) -> list[Any]:
    found = model.predict(universe(2, seed=3))
    shares = [] if found.formation is None else [found.formation.quiescent, found.formation.log_sfr]
    return [found.count, found.count_std, found.flag, *shares]


def of_results(results: Any) -> list[Any]:
    draws = results.draws(row=1)
    return [
        results.summary("log_mass_surviving"), results.diagnostic("rhat_max"), results.flags,
        draws["log_mass_formed"], draws["beta"], results.predicted_flux,
    ]  # fmt: skip


PREDICTIONS: dict[str, Any] = {
    "photometric_emulator": lambda e: [*of_photometric(e), e.sigma(Theta())],
    "stitched_emulator": lambda e: [*of_photometric(e), e.windows],
    "spectrum_emulator": lambda e: [e(jnp.array([0.3, 0.4])), e.wave, e.resolution.fwhm, e.box_low],
    "provabgs_spectrum": lambda e: [e(ProvabgsInputs()), e.errors.bias, [e.provenance["epochs"]]],
    "flow": lambda a: [
        jax.jit(a.flow.log_prob)(jnp.array([0.2, 0.3]), jnp.linspace(-1.0, 1.0, a.context.size)),
        a.flow.sample(jax.random.key(0), jnp.linspace(-1.0, 1.0, a.context.size), 3)[0],
        a.support.ln_sigma, a.noise.mean, list(a.record.magnitudes),
    ],
    "star_network": of_star,
    "star_network_censored": of_star,
    "star_autoencoder": lambda m: [m(jnp.asarray(FLUX, float)), list(m.wave)],
    "cannon": lambda m: [
        m(m.theta(jnp.array([5000.0, 2.5]))), m.scatter, list(m.wave)
    ],
    "halo_network": of_halos,
    "halo_baseline_mean": of_halos,
    "halo_baseline_ridge": of_halos,
    "halo_baseline_forest": of_halos,
    "halo_forest": lambda m: [m.predict(universe(1, seed=3))[:20], [m.figures["r2"]]],
    "results": of_results,
}  # fmt: skip


def predictions(path: Path) -> list[list[float]]:
    """Some numbers of the component in a file, each array as one list."""
    found = PREDICTIONS[path.stem](jaxsed.load(path))
    return [np.asarray(part, float).ravel().tolist() for part in found]


def main() -> None:
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(ARCHIVE, "x", COMPRESSION) as whole:
        folder, found = Path(name), {}
        for kind, make in COMPONENTS.items():
            make().save(folder / f"{kind}.h5")
        run(folder / "results.h5")
        for kind in PREDICTIONS:
            found[kind] = predictions(folder / f"{kind}.h5")
            whole.write(folder / f"{kind}.h5", f"{kind}.h5")
        whole.writestr("predictions.json", json.dumps(found))


if __name__ == "__main__":
    main()
