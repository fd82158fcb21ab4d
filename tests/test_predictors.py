"""What evaluates a configured model, and an emulator that `fit --train` makes for new bands."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxsed.catalog import train
from jaxsed.catalog.config import load_config, parse_config
from jaxsed.catalog.engine import make_engine
from jaxsed.catalog.errors import JaxsedError
from jaxsed.catalog.predictors import find_emulator, load_grid
from jaxsed.catalog.run import fit_catalog, load_filters
from jaxsed.catalog.tables import read_catalog
from jaxsed.emulators import EmulatorRecord, FilterCurve, PhotometricEmulator, StitchedEmulator
from jaxsed.nets import mlp
from jaxsed.sps.photometry import load_filter

BANDS = {"blue": (4000, 5200), "green": (5000, 6400), "red": (6300, 7800), "far": (7700, 9500)}

MODEL = '[model]\nphysics = "provabgs"\npredictor = "emulator"\n'
SAMPLER = '[sampler]\nmethod = "hmc"\nwarmup = 100\ndraws = 100\nretries = 0\n'


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A catalogue in bands that no shipped emulator has, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = '[catalog]\nid = "id"\nredshift = "z"\nflux_unit = "uJy"\n'
    for name, (low, high) in BANDS.items():
        wave = np.linspace(low, high, 200)
        trans = np.sin(np.pi * (wave - low) / (high - low))
        np.savetxt(tmp_path / f"{name}.dat", np.column_stack([wave, trans]))
        text += f'[[band]]\nflux = "{name}"\nerror = "e{name}"\nfilter = "{name}.dat"\n'
    header = "id,z," + ",".join(f"{b},e{b}" for b in BANDS)
    rows = ["1,0.30,3,0.2,6,0.3,11,0.5,15,0.8", "2,0.35,5,0.3,6,0.3,7,0.4,8,0.4"]
    catalog = tmp_path / "catalog.csv"
    catalog.write_text("\n".join([header, *rows]) + "\n")
    config = tmp_path / "config.toml"
    config.write_text(text + MODEL + SAMPLER)
    return catalog, config, tmp_path


def test_no_emulator_says_how_to_get_one(inputs):
    catalog, config, folder = inputs
    with pytest.raises(JaxsedError, match="no emulator covers these bands.*--train makes one"):
        fit_catalog(config, catalog, folder / "run.h5", progress=False)


def test_training_with_other_dust_or_cosmology_is_refused(inputs):
    catalog, config, folder = inputs
    config.write_text(config.read_text().replace(MODEL, MODEL + "birth_cloud_age = 0.01\n"))
    with pytest.raises(JaxsedError, match="default of birth_cloud_age only"):
        fit_catalog(config, catalog, folder / "run.h5", train=True, progress=False)


def test_a_stitched_emulator_comes_with_the_members_that_count(inputs):
    _, path, folder = inputs
    config = load_config(path)
    filters = load_filters(config)
    windows = ((0.0, 1.0), (0.8, 2.0), (1.8, 3.0))
    record = EmulatorRecord(
        "provabgs", "pegase2", tuple(FilterCurve(f.wave, f.trans) for f in reversed(filters))
    )
    members = [
        PhotometricEmulator.create(
            mlp.init(jax.random.key(i), (1, 4, 4)),
            (np.zeros(1), np.ones(1), np.full(4, -20.0)),
            (("redshift",), tuple(reversed(BANDS))),
            box=(np.array([low]), np.array([high])),
            mu_0=-6.0,
            record=record,
        )
        for i, (low, high) in enumerate(windows)
    ]
    cache = folder / "cache" / "jaxsed" / "emulators"
    cache.mkdir(parents=True)
    StitchedEmulator.create(members, windows).save(cache / "stitched.h5")
    grid = load_grid(config)
    found = {}
    for low, high in ((0.2, 0.7), (0.5, 1.5), (0.5, 2.5)):
        source, emulator = find_emulator(config, filters, np.array([low, high]), grid)
        assert source.name == "stitched.h5"
        assert emulator.band_names == tuple(BANDS)  # in the order of the catalogue
        found[high] = len(getattr(emulator, "members", (emulator,)))
    assert found == {0.7: 1, 1.5: 2, 2.5: 3}
    assert find_emulator(config, filters, np.array([2.0, 4.0]), grid) is None


@pytest.mark.slow
def test_train_makes_an_emulator_once(inputs, monkeypatch):
    catalog, config, folder = inputs
    settings = train.CACHE_SETTINGS
    small = dataclasses.replace(
        settings, n_train=20_000, n_test=5_000, width=32,
        fit=dataclasses.replace(settings.fit, max_seconds=10.0),
    )  # fmt: skip
    monkeypatch.setattr(train, "CACHE_SETTINGS", small)
    first = fit_catalog(config, catalog, folder / "a.h5", train=True, progress=False)
    assert first.provenance["predictor"] == "emulator"
    (made,) = (folder / "cache" / "jaxsed" / "emulators").glob("*.h5")
    monkeypatch.setattr(train, "train_emulator", None)  # a second training would fail
    second = fit_catalog(config, catalog, folder / "b.h5", train=True, progress=False)
    assert second.provenance["emulator"] == made.name
    np.testing.assert_array_equal(
        first.summary("log_mass_surviving"), second.summary("log_mass_surviving")
    )
    assert np.all(np.isfinite(first.summary("log_mass_surviving")))


@pytest.mark.parametrize(
    ("physics", "used"), [("provabgs", [True, True, False]), ("prospector", [True, True, True])]
)
def test_dust_emission_is_left_out_of_models_that_lack_it(tmp_path, physics, used):
    """A band at 12 micron at rest: dropped, and said so, unless the model's dust shines."""
    names = ("sdss_r0", "twomass_Ks", "wise_w3")
    bands = "".join(f'[[band]]\nflux = "{n}"\nerror = "e{n}"\nfilter = "{n}"\n' for n in names)
    config = parse_config(
        '[catalog]\nid = "id"\nredshift = "z"\nflux_unit = "uJy"\n'
        f'{bands}[model]\nphysics = "{physics}"\npredictor = "physics"\n'
    )
    columns = ["id", "z", *(k for n in names for k in (n, f"e{n}"))]
    catalog = tmp_path / "catalog.csv"
    catalog.write_text(",".join(columns) + "\n1,0.05,5,1,5,1,5,1\n")
    observations = read_catalog(catalog, config)
    lines = []
    engine = make_engine(config, [load_filter(n) for n in names], report=lines.append)
    engine.prepare(observations.redshift)
    assert engine.modelled(observations)[0].tolist() == used
    assert any("dust emission is not modelled" in line for line in lines) == (not all(used))
