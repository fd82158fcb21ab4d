"""What evaluates a configured model, and an emulator that `fit --train` makes for new bands."""

from __future__ import annotations

import dataclasses
from importlib import resources
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxsed.bands.filters import load_filter, make_filter
from jaxsed.catalog.config import load_config, parse_config
from jaxsed.catalog.engine import Engine
from jaxsed.catalog.plan import resolve
from jaxsed.catalog.predictors import _content, find_emulator, load_grid, make_predictor
from jaxsed.catalog.run import fit_catalog
from jaxsed.catalog.tables import read_catalog
from jaxsed.core.errors import JaxsedError
from jaxsed.cosmology import PLANCK15, WMAP9
from jaxsed.emulators import (
    EmulatorRecord,
    PhotometricEmulator,
    StitchedEmulator,
    load_emulator,
    measured_sigma,
)
from jaxsed.emulators.summary import summary
from jaxsed.nets import mlp
from jaxsed.sps.models.registry import IGM, family
from jaxsed.workflows import train_photometric as train
from jaxsed.workflows.validate import Request, validate_emulator

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


def loaded(path):
    """The plan of a configuration file."""
    return resolve(load_config(path))


def test_no_emulator_says_how_to_get_one(inputs):
    catalog, config, folder = inputs
    with pytest.raises(JaxsedError, match="no emulator covers these bands.*--train makes one"):
        fit_catalog(config, catalog, folder / "run.h5", progress=False)


def emulator_of(filters, *, sigma=0.01, width=4, redshift=(0.0, 1.0), cosmology=PLANCK15, **record):
    """An untrained emulator of PROVABGS in these bands that claims an error in all of them."""
    known = {"birth_cloud_age": 0.01, "igm": "inoue2014"} | record
    n = len(filters)
    emulator = PhotometricEmulator.create(
        mlp.init(jax.random.key(0), (1, width, n)),
        (np.zeros(1), np.ones(1), np.full(n, -20.0)),
        (("redshift",), tuple(f.name for f in filters)),
        box=(np.array([redshift[0]]), np.array([redshift[1]])),
        mu_0=-6.0,
        cosmology=cosmology,
        record=EmulatorRecord(
            "provabgs", "pegase2", tuple(filters), **known
        ),
    )
    error = dataclasses.replace(emulator.error_ab, sigma=np.full(n, sigma))
    return dataclasses.replace(emulator, error_ab=error)


def cache_of(folder):
    cache = folder / "cache" / "jaxsed" / "emulators"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"sigma": 0.004}, {"sigma": 0.02}),  # the smaller error, though both are in the budget
        ({"sigma": 0.004, "width": 64}, {"sigma": 0.005, "width": 4}),  # at any cost
        ({"width": 4}, {"width": 8}),  # the cheaper of equals
        ({"sigma": 0.5}, {"sigma": np.nan}),  # an error out of the budget is better than none
    ],
)
def test_the_best_emulator_is_chosen_whatever_its_name(inputs, better, worse, order):
    _, path, folder = inputs
    plan, cache = loaded(path), cache_of(folder)
    filters = plan.filters
    for name, kind in zip(("a", "b")[::order], (better, worse), strict=True):
        emulator_of(filters, **kind).save(cache / f"{name}.h5")
    grid = load_grid(plan.model)
    chosen, emulator = find_emulator(plan.model, filters, np.array([0.1, 0.2]), grid)
    assert chosen.stem == ("a", "b")[::order][0]
    assert emulator.multiplications == better.get("width", 4) * (1 + len(filters))


CURVE = make_filter("a", np.linspace(4000.0, 5000.0, 5), np.array([0.0, 1.0, 1.0, 1.0, 0.0]))


def test_an_emulator_is_read_once_until_its_file_changes(tmp_path):
    path = tmp_path / "mine.h5"
    emulator_of([CURVE], sigma=0.01).save(path)
    first = load_emulator(path)
    assert load_emulator(path) is first
    emulator_of([CURVE], sigma=0.02).save(path)
    assert load_emulator(path).error_ab.sigma[0] == np.float32(0.02)


def test_an_emulator_read_in_a_traced_function_has_values_of_its_own(tmp_path):
    path = tmp_path / "mine.h5"
    emulator_of([CURVE]).save(path)
    traced = jax.jit(lambda: load_emulator(path).box_high * 1.0)()
    np.testing.assert_array_equal(load_emulator(path).box_high, traced)
    with jax.enable_x64(True):
        assert load_emulator(path).box_high.dtype == np.float64
    assert load_emulator(path).box_high.dtype == np.float32


def test_sdss_has_its_own_emulator():
    """Not that of more bands and higher redshifts, whose name comes first."""
    names = [f"sdss_{b}0" for b in "ugriz"]
    bands = "".join(f'[[band]]\nflux = "{n}"\nerror = "e{n}"\nfilter = "{n}"\n' for n in names)
    parsed = parse_config(
        f'[catalog]\nid = "id"\nredshift = "z"\nflux_unit = "uJy"\n{bands}{MODEL}'
    )
    plan, filters = resolve(parsed), [load_filter(n) for n in names]
    grid = load_grid(plan.model)
    path, emulator = find_emulator(plan.model, filters, np.array([0.01, 0.3]), grid)
    assert path.stem == "emulator_provabgs_sdss"
    assert np.max(emulator.error_ab.sigma) < 0.015


@pytest.mark.parametrize(
    "other",
    [
        {"birth_cloud_age": 0.1},
        {"birth_cloud_age": None},
        {"igm": "madau1995"},
        {"igm": None},
        {"cosmology": WMAP9},
        {"redshift": (0.0, 0.15)},
    ],
)
def test_an_emulator_of_other_physics_is_not_taken(inputs, other):
    _, path, folder = inputs
    plan = loaded(path)
    grid = load_grid(plan.model)
    filters, redshift = plan.filters, np.array([0.1, 0.2])
    emulator_of(filters, **other).save(cache_of(folder) / "a.h5")
    assert find_emulator(plan.model, filters, redshift, grid) is None


def test_an_emulator_follows_the_configuration(inputs):
    """One of other clouds is taken by the run that asks for such clouds."""
    _, path, folder = inputs
    path.write_text(path.read_text().replace(MODEL, MODEL + 'birth_cloud_age = "paper"\n'))
    plan = loaded(path)
    filters = plan.filters
    emulator_of(filters, birth_cloud_age=0.1).save(cache_of(folder) / "a.h5")
    found = find_emulator(plan.model, filters, np.array([0.1, 0.2]), load_grid(plan.model))
    assert found is not None and found[0].stem == "a"


def partly_measured(filters):
    """An emulator whose error in the second band was not measured."""
    emulator = emulator_of(filters)
    sigma = np.asarray(emulator.error_ab.sigma).copy()
    sigma[1] = np.nan
    error = dataclasses.replace(emulator.error_ab, sigma=sigma)
    return dataclasses.replace(emulator, error_ab=error)


def test_an_error_that_was_not_measured_does_not_count_as_none(inputs):
    """Asked for, such an emulator is refused before any galaxy; else the physics is taken."""
    _, path, folder = inputs
    plan = loaded(path)
    filters, redshift = plan.filters, np.array([0.1, 0.2])
    emulator = partly_measured(filters)
    emulator.save(cache_of(folder) / "a.h5")
    with pytest.raises(JaxsedError, match="error was not measured in green: leave"):
        make_predictor(plan.model, filters, redshift)
    path.write_text(path.read_text().replace(MODEL, MODEL.replace('"emulator"', '"auto"')))
    assert make_predictor(loaded(path).model, filters, redshift).kind == "physics"
    with pytest.raises(ValueError, match="not measured in green"):
        measured_sigma(emulator)
    np.testing.assert_allclose(measured_sigma(emulator_of(filters)), 0.01, rtol=1e-6)
    with pytest.raises(JaxsedError, match="not measured in green"):
        validate_emulator(emulator, Request(posteriors=2))


def test_a_correlation_that_was_not_measured_counts_as_none(inputs):
    """Two bands that no test galaxy had light in at once."""
    _, path, folder = inputs
    plan = loaded(path)
    filters = plan.filters
    emulator = emulator_of(filters)
    covariance = 1e-4 * np.full((4, 4), 0.5) + 1e-4 * np.diag(np.full(4, 0.5))
    covariance[0, 3] = covariance[3, 0] = np.nan
    error = dataclasses.replace(emulator.error_ab, covariance=covariance)
    dataclasses.replace(emulator, error_ab=error).save(cache_of(folder) / "a.h5")
    found = make_predictor(plan.model, filters, np.array([0.1, 0.2])).correlation
    expected = np.full((4, 4), 0.5) + np.diag(np.full(4, 0.5))
    expected[0, 3] = expected[3, 0] = 0.0
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_summary_tells_bands_that_were_not_measured(inputs):
    _, path, folder = inputs
    filters = loaded(path).filters
    for emulator, worst in (
        (partly_measured(filters), "0.01 mag; 1 of 4 bands not measured"),
        (emulator_of(filters), "0.01 mag"),
        (emulator_of(filters, sigma=np.nan), "not measured"),
    ):
        emulator.save(folder / "a.h5")
        assert summary(folder / "a.h5").largest_error == worst


def test_a_named_emulator_of_other_physics_is_refused(inputs):
    _, path, folder = inputs
    filters = loaded(path).filters
    emulator_of(filters, birth_cloud_age=0.1).save(folder / "old.h5")
    path.write_text(path.read_text().replace(MODEL, MODEL + 'emulator = "old.h5"\n'))
    plan = loaded(path)
    with pytest.raises(JaxsedError, match="old.h5' has birth_cloud_age 0.1, not 0.01"):
        find_emulator(plan.model, filters, np.array([0.1, 0.2]), load_grid(plan.model))


def test_a_damaged_file_of_the_cache_is_passed_over(inputs):
    _, path, folder = inputs
    plan = loaded(path)
    filters, cache = plan.filters, cache_of(folder)
    (cache / "a.h5").write_bytes(b"not HDF5")
    emulator_of(filters).save(cache / "b.h5")
    said = []
    found = find_emulator(
        plan.model, filters, np.array([0.1, 0.2]), load_grid(plan.model), report=said.append
    )
    assert found is not None and found[0].stem == "b"
    (line,) = said
    assert "passed over" in line and "a.h5" in line


def test_the_cache_is_keyed_by_curves(inputs):
    """Two bands of one name are two emulators; and so are two ranges and two cosmologies."""
    filters = loaded(inputs[1]).filters
    shifted = [make_filter(f.name, f.wave + 300.0, f.trans) for f in filters]
    names = {
        _content(emulator_of(bands, **other))
        for bands, other in (
            (filters, {}), (shifted, {}), (filters, {"redshift": (0.0, 2.0)}),
            (filters, {"cosmology": WMAP9}), (filters, {"birth_cloud_age": 0.1}),
        )
    }  # fmt: skip
    assert len(names) == 5
    assert _content(emulator_of(filters)) in names


def test_shipped_emulators_are_of_the_default_physics():
    for path in sorted(Path(str(resources.files("jaxsed.weights"))).glob("emulator_*.h5")):
        record = load_emulator(path).record
        assert record.birth_cloud_age == family(record.physics).clouds(), path.name
        assert record.igm == IGM, path.name


def test_a_stitched_emulator_comes_with_the_members_that_count(inputs):
    _, path, folder = inputs
    plan = loaded(path)
    filters = plan.filters
    windows = ((0.0, 1.0), (0.8, 2.0), (1.8, 3.0))
    record = EmulatorRecord(
        "provabgs", "pegase2", tuple(reversed(filters)),
        birth_cloud_age=0.01, igm="inoue2014",
    )  # fmt: skip
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
    cache = cache_of(folder)
    StitchedEmulator.create(members, windows).save(cache / "stitched.h5")
    grid = load_grid(plan.model)
    found = {}
    for low, high in ((0.2, 0.7), (0.5, 1.5), (0.5, 2.5)):
        source, emulator = find_emulator(plan.model, filters, np.array([low, high]), grid)
        assert source.name == "stitched.h5"
        assert emulator.band_names == tuple(BANDS)  # in the order of the catalogue
        found[high] = len(getattr(emulator, "members", (emulator,)))
    assert found == {0.7: 1, 1.5: 2, 2.5: 3}
    assert find_emulator(plan.model, filters, np.array([2.0, 4.0]), grid) is None


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
    observations = read_catalog(catalog, resolve(config).reader)
    lines = []
    engine = Engine(resolve(config), report=lines.append)
    engine.prepare(observations.redshift)
    assert engine.modelled(observations)[0].tolist() == used
    assert any("dust emission is not modelled" in line for line in lines) == (not all(used))
