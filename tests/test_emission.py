"""Gas, dust and torus: their tables, their physics, and the energy in balance."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed import params
from jaxsed.bands.filters import load_filter
from jaxsed.core.constants import C_LIGHT, LSUN, MAGGIES_10PC_PER_LSUN_HZ
from jaxsed.sps import templates
from jaxsed.sps.agn import torus
from jaxsed.sps.dust.emission import dust_emission
from jaxsed.sps.energy_balance import EmissionTables
from jaxsed.sps.gas.nebular import PHOTON_UNIT, ionising_photons, nebular
from jaxsed.sps.models import galaxy as sed
from jaxsed.sps.models.prospector import ProspectorTheta
from jaxsed.sps.models.registry import family
from jaxsed.sps.ssp.grid import load_ssp, resample, with_red_tail
from jaxsed.sps.ssp.wavelengths import energy_weights, log_wave_grid
from jaxsed.sps.templates import DustTable, NebularTable, TorusTable, load_templates

BANDS = ("galex_FUV", "sdss_r0", "twomass_Ks", "spitzer_mips_24", "1d3mm")
WAVE = log_wave_grid(912.0, 2e7, 0.005)
H_BETA = 4862.7
THETA = ProspectorTheta(
    10.0, -0.3, jnp.zeros(6), 0.5, -0.2, 1.0, -2.0, 1.3, -0.3, 0.1, 2.5, 1.0, -2.0
)


EMITTED = jax.jit(lambda model, theta: model.emitted(theta))


@pytest.fixture(scope="module")
def galaxies():
    return family("prospector")


@pytest.fixture(scope="module")
def model(galaxies):
    bands = [load_filter(name) for name in BANDS]
    return galaxies.model(load_ssp(galaxies.ssp), bands, redshift_range=(0.0, 3.0))


@pytest.fixture(scope="module")
def thetas(galaxies):
    keys = jax.random.split(jax.random.key(0), 256)
    return jax.jit(jax.vmap(galaxies.training_draw))(keys, jnp.linspace(0.0, 3.0, 256))


def test_energy_is_conserved_to_a_per_cent_over_the_whole_box(model, thetas):
    """All that stars, gas and nucleus emit leaves the galaxy, as light or as heat of the dust."""

    def luminosities(theta):
        no_dust = theta._replace(dust2=0.0 * theta.dust2)
        return model.emission.energy @ model.emitted(theta), model.emission.energy @ model.emitted(
            no_dust
        )

    dusty, bare = jax.jit(jax.vmap(luminosities))(thetas)
    np.testing.assert_allclose(dusty, bare, rtol=2e-3)


@pytest.mark.parametrize("q_pah", [0.0, 2.2, 7.0])
@pytest.mark.parametrize("u_min", [0.1, 1.7, 25.0])
@pytest.mark.parametrize("gamma", [1e-4, 0.3, 1.0])
def test_dust_spectra_have_unit_luminosity(q_pah, u_min, gamma):
    dust = dust_emission(load_templates(DustTable), WAVE)
    total = energy_weights(WAVE) @ np.asarray(dust(q_pah, u_min, gamma), float)
    assert total == pytest.approx(1.0, rel=3e-3)


def test_dust_is_warmer_in_stronger_light_and_pahs_shine_at_eight_micron():
    dust = dust_emission(load_templates(DustTable), WAVE)
    peaks = [WAVE[np.argmax(dust(2.5, u, 1e-4) / WAVE)] for u in (0.1, 1.0, 25.0)]
    assert peaks[0] > peaks[1] > peaks[2]
    # Modified blackbodies of 12 to 30 K (Draine & Li 2007, section 9).
    assert 6e5 < peaks[2] and peaks[0] < 2.5e6
    at_8 = np.argmin(np.abs(WAVE - 7.7e4))
    few, many = (float(dust(q, 1.0, 0.01)[at_8]) for q in (0.47, 4.58))
    assert 4 < many / few < 12


def test_tables_are_met_at_their_nodes_within_the_smoothing():
    table = load_templates(DustTable)
    dust = dust_emission(table, table.wave)
    expected = np.exp(table.ln_emissivity[3, 12, 0])
    expected /= energy_weights(table.wave) @ expected
    found = np.asarray(dust(table.q_pah[3], table.u_min[12], 0.0), float)
    bright = expected > 1e-4 * expected.max()
    np.testing.assert_allclose(found[bright], expected[bright], rtol=0.08)


def test_dust_spectrum_of_fsps(shared_data):
    """The far infrared of an FSPS galaxy (q_PAH 3.5, U_min 1, gamma 0.01) in shape."""
    path = shared_data / "fsps_reference" / "fsps_basel_padova2007_z0.0020_chabrier_ref.npz"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {shared_data}")
    with np.load(path, allow_pickle=False) as table:
        wave, lnu = table["wave_A"], table["csp_lnu_lsun_hz"][-1]
    ours = np.asarray(dust_emission(load_templates(DustTable), WAVE)(3.5, 1.0, 0.01), float)
    far = (wave > 2e5) & (wave < 9e6)
    ratio = lnu[far] / np.interp(wave[far], WAVE, ours)
    # FSPS adds far-infrared lines in single pixels, which only raise the ratio.
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.01
    assert ratio.min() > 0.97 * np.median(ratio)


def test_case_b_recombination():
    """Hbeta per ionising photon, and Halpha over it, at 10^4 K (Osterbrock & Ferland 2006)."""
    table = load_templates(NebularTable)
    gas = nebular(table, WAVE, np.array([0.002, 0.01]), log_u=-2.0, unit=1.0)
    dark = gas(jnp.zeros(2), 0.0)
    light = np.asarray(gas(jnp.array([1.0, 0.0]), 0.0) - dark, float)

    def line(wave):
        near = np.abs(WAVE / wave - 1) < 0.012
        level = np.median(light[near])
        return ((light - level) * energy_weights(WAVE))[near].sum()

    assert line(H_BETA) / PHOTON_UNIT * LSUN == pytest.approx(4.76e-13, rel=0.06)
    # [N II] is blended with Halpha at this sampling: metal-poor gas has none of it.
    light = np.asarray(gas(jnp.array([1.0, 0.0]), -1.98), float)
    assert line(6564.6) / line(H_BETA) == pytest.approx(2.86, rel=0.08)


def test_gas_follows_the_stars_of_the_model(model):
    """No young stars, no lines; all of it in the last 30 Myr, strong ones."""
    old = THETA._replace(log_sfr_ratios=jnp.full(6, -3.0), dust2=0.0)
    young = THETA._replace(log_sfr_ratios=jnp.full(6, 2.0), dust2=0.0)

    def width(theta):
        spectrum = np.asarray(EMITTED(model, theta), float)
        near = np.abs(model.stars.wave / 6564.6 - 1) < 0.02
        level = np.median(spectrum[near])
        return ((spectrum / level - 1)[near]).sum() * sed.LN_STEP * 6564.6

    assert width(old) < 3.0
    assert 300.0 < width(young) < 3000.0


def test_stars_and_gas_together_resemble_the_grid_with_gas(galaxies):
    """Our gas on the stellar PEGASE.2 grid against PEGASE.2's own nebular continuum."""
    stars, both = load_ssp("pegase2_stellar"), load_ssp("pegase2")
    wave = log_wave_grid(1300.0, 2.4e4, 0.005)
    k, age = int(np.argmin(np.abs(stars.log_age + 2.5))), 10.0 ** np.asarray(stars.log_age)
    met = int(np.argmin(np.abs(np.asarray(stars.log_z) - np.log10(0.02))))
    gas = nebular(load_templates(NebularTable), wave, age[k : k + 1], log_u=-2.5, unit=1.0)
    rate = 10.0 ** ionising_photons(stars)[met, k] / PHOTON_UNIT
    ours = resample(stars, wave).lnu[met, k] + np.asarray(gas(jnp.array([rate]), 0.0))
    theirs = resample(both, wave).lnu[met, k]
    assert abs(np.median(ours / theirs) - 1) < 0.08  # temperatures differ; lines fall out


def test_torus_spectra_have_unit_luminosity():
    nucleus = torus(load_templates(TorusTable), WAVE)
    for tau in (5.0, 33.0, 150.0):
        total = energy_weights(WAVE) @ np.asarray(nucleus(tau), float)
        assert total == pytest.approx(1.0, rel=0.03)  # a little is below the Lyman limit


def test_torus_luminosity_is_a_share_of_that_of_the_stars(model):
    def luminosity(theta):
        return float(model.emission.energy @ EMITTED(model, theta))

    bare = THETA._replace(dust2=0.0)
    none, some = (luminosity(bare._replace(log_f_agn=x)) for x in (-30.0, 0.0))
    gas = THETA._replace(dust2=0.0, log_f_agn=-30.0, log_sfr_ratios=jnp.full(6, -3.0))
    assert 1.7 < some / none < 2.02
    old = luminosity(gas)
    assert luminosity(gas._replace(log_f_agn=0.0)) == pytest.approx(2 * old, rel=0.03)


def test_rayleigh_jeans_tail():
    grid = with_red_tail(load_ssp("pegase2_stellar"), 1e7)
    assert grid.wave[-1] >= 1e7
    tail = grid.wave > 4e5
    slope = np.gradient(np.log(grid.lnu[3, 50, tail]), np.log(grid.wave[tail]))
    np.testing.assert_allclose(slope, -2.0, atol=1e-3)
    assert with_red_tail(grid, 1e6) is grid


def test_gas_twice_and_gas_without_photons_are_refused(galaxies):
    bands = [load_filter("sdss_r0")]
    with pytest.raises(ValueError, match="nebular emission of its own"):
        galaxies.model(load_ssp("pegase2"), bands, redshift_range=(0.0, 1.0))
    dark = dataclasses.replace(load_ssp("pegase2_stellar"), log_nlyc=None)
    with pytest.raises(ValueError, match="neither ionising photon rates nor light"):
        galaxies.model(dark, bands, redshift_range=(0.0, 1.0))
    with pytest.raises(ValueError, match="log_u"):
        galaxies.model(
            load_ssp("pegase2_stellar"), bands, redshift_range=(0.0, 1.0),
            emission_tables=EmissionTables.shipped(log_u=1.0),
        )  # fmt: skip


def test_photons_from_the_spectra_where_none_are_listed():
    """A blackbody's photons, against the integral of the Planck law over frequency."""
    wave = np.linspace(50.0, 3000.0, 3000)
    x = 1.4387769e8 / wave / 5e4
    lnu = 1e-15 / wave**3 / np.expm1(x)
    grid = dataclasses.replace(
        load_ssp("pegase2_stellar"), wave=wave, lnu=np.broadcast_to(lnu, (8, 68, 3000)),
        log_nlyc=None,
    )  # fmt: skip
    nu = np.linspace(C_LIGHT / 911.8, C_LIGHT / 50.0, 400_000)
    planck = 1e-15 * (nu / C_LIGHT) ** 3 / np.expm1(4.799243e-11 * nu / 5e4)
    photons = np.trapezoid(planck / (6.62607015e-27 * nu), nu) * LSUN
    assert 10 ** ionising_photons(grid)[0, 0] == pytest.approx(photons, rel=2e-3)


def test_prior_and_training_distribution_are_two_things(galaxies):
    """Mathews+ (2023), table 1: the mock galaxies of the paper lie in both."""
    from jaxsed.sps.models import prospector

    narrow, thick = prospector.prior(1.0), prospector.training_distribution(1.0)
    for name in ("dust2", "dust1_fraction", "q_pah", "u_min", "log_gamma_e"):
        a, b = (getattr(p, name).base_dist.scale for p in (narrow, thick))
        assert b > a, name
    u = jnp.full(params.dimension(narrow), 2.0)
    ratios = jax.jit(
        lambda u: [params.constrain(p, u)[0].log_sfr_ratios[0] for p in (narrow, thick)]
    )(u)
    assert ratios[1] > 2 * ratios[0]


def test_paper_parameters_are_inside_the_prior(shared_data):
    path = shared_data / "priors" / "mathews2023_test_parameters.npy"
    if not path.is_file():
        pytest.skip(f"no {path.name} in {shared_data}")
    values = np.load(path, allow_pickle=False)
    rows = iter(values)
    columns = {
        name: np.stack([next(rows) for _ in range(6)], axis=1)
        if name == "log_sfr_ratios"
        else next(rows)
        for name in ProspectorTheta._fields
    }
    prior = family("prospector").prior(1.75)
    thetas = ProspectorTheta(**{k: jnp.asarray(v, dtype=float) for k, v in columns.items()})
    u = jax.jit(jax.vmap(lambda t: params.unconstrain(prior, t)))(
        thetas._replace(redshift=1.75 + 0 * columns["redshift"])
    )
    assert np.isfinite(np.asarray(u)).all()


def test_packing_keeps_logarithms_and_darkness(tmp_path):
    table = load_templates(TorusTable)
    dark = table.ln_lnu.copy()
    dark[2, 5] = -np.inf
    path = templates.write_templates(tmp_path / "t.h5", table._replace(ln_lnu=dark), {"title": "t"})
    again = templates.read_templates(path, TorusTable)
    assert again.ln_lnu[2, 5] == -np.inf
    lit = np.isfinite(dark)
    np.testing.assert_allclose(again.ln_lnu[lit], dark[lit], atol=2e-3)
    with pytest.raises(ValueError, match="holds a TorusTable, expected a DustTable"):
        templates.read_templates(path, DustTable)


def test_tables_of_a_users_fsps(tmp_path):
    """Files in the layout of FSPS give the arrays they were written from."""
    rng = np.random.default_rng(1)
    wave, emissivity = np.linspace(1.0, 1e4, 30), rng.uniform(1, 2, (7, 22, 2, 30))
    for k in range(7):
        columns = np.concatenate([wave[None], emissivity[k].reshape(44, 30)]).T
        rows = "\n".join(" ".join(f"{x:.7e}" for x in row) for row in columns)
        (tmp_path / f"DL07_MW3.1_{k}0.dat").write_text("# dust\n# umin umax\n" + rows + "\n")
    dust = templates.read_fsps_dust(tmp_path)
    np.testing.assert_allclose(np.exp(dust.ln_emissivity), emissivity, rtol=1e-6)
    np.testing.assert_allclose(dust.wave, wave * 1e4)

    def grid(path, n_met, values, waves):
        lines = ["# made up", " ".join(map(str, waves))]
        for i, z in enumerate(np.linspace(-2, 0, n_met)):
            for j, age in enumerate((1e6, 5e6)):
                for k, u in enumerate((-4.0, -1.0)):
                    lines += [f"{z} {age} {u}", " ".join(f"{x:.7e}" for x in values[i, j, k])]
        path.write_text("\n".join(lines) + "\n")
        return path

    line, light = rng.uniform(1, 2, (4, 2, 2, 3)), rng.uniform(1, 2, (3, 2, 2, 5))
    lines = grid(tmp_path / "a.lines", 4, line, [4862.7, 5008.2, 6564.6])
    continuum = grid(tmp_path / "a.cont", 3, light, [500.0, 1000.0, 2000.0, 5000.0, 9000.0])
    gas = templates.read_fsps_nebular(lines, continuum)
    np.testing.assert_allclose(np.exp(gas.ln_line), line, rtol=1e-6)
    np.testing.assert_allclose(np.exp(gas.ln_continuum), light[..., 1:], rtol=1e-6)
    np.testing.assert_allclose(gas.log_age, [-3.0, np.log10(5e-3)])

    with pytest.raises(ValueError, match="DL07_MW3.1_00.dat"):
        templates.read_fsps_dust(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no rows of 10 numbers"):
        templates.read_fsps_torus(lines)
    with pytest.raises(ValueError, match="not a nebular grid"):
        templates.read_fsps_nebular(tmp_path / "DL07_MW3.1_00.dat", continuum)


def test_units_of_the_spectrum(model):
    """A dust-free old galaxy of 1e10 Msun: within the mass-to-light ratios of old stars."""
    spectrum = np.asarray(EMITTED(model, THETA._replace(dust2=0.0)), float)
    r = np.interp(6200.0, model.stars.wave, spectrum) / MAGGIES_10PC_PER_LSUN_HZ
    solar_r = 3.0e-15 / 2.6  # Lsun/Hz of the Sun in r, to tens of per cent
    assert 0.3 < 1e10 / (r / solar_r) < 6
