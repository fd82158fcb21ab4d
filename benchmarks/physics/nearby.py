"""Four galaxies from the far ultraviolet to the far infrared, fitted with the 18-parameter physics.

    python -m benchmarks.physics.nearby FOLDER --json OUT.json --figures FOLDER

FOLDER holds the photometry as distributed with lightningpy: ngc337_dale17_photometry.fits,
ngc628_dale17_photometry.fits (Dale+ 2017), NGC5728_photometry.fits and
J033226_lightning_input.fits. Stellar masses are compared with those of KINGFISH (Kennicutt+ 2011,
table 1, from Skibba+ 2011) and with two calibrations by near-infrared light alone: 3.6 and 4.5
micron (Eskew+ 2012, eq. 2, divided by 1.5 for the IMF) and K (mass over light 0.6, McGaugh &
Schombert 2014).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from astropy.table import Table as AstropyTable
from rich.console import Console
from rich.table import Table

from jaxsed import cosmology as cosmo
from jaxsed import infer
from jaxsed.bands.filters import load_filter
from jaxsed.cli import prepare_process
from jaxsed.likelihood import photometry
from jaxsed.problem import Problem
from jaxsed.sps.models.registry import family
from jaxsed.sps.ssp.grid import load_ssp

FILTERS = {
    "GALEX_FUV": "galex_FUV", "GALEX_NUV": "galex_NUV", "UVOT_UVW2": "uvot_w2",
    "UVOT_UVM2": "uvot_m2", "UVOT_UVW1": "uvot_w1", "SDSS_u": "sdss_u0", "SDSS_g": "sdss_g0",
    "SDSS_r": "sdss_r0", "SDSS_i": "sdss_i0", "SDSS_z": "sdss_z0", "Pan-STARRS_gp1": "panstarrs_g",
    "Pan-STARRS_rp1": "panstarrs_r", "Pan-STARRS_ip1": "panstarrs_i",
    "Pan-STARRS_zp1": "panstarrs_z", "Pan-STARRS_yp1": "panstarrs_y", "2MASS_J": "twomass_J",
    "2MASS_H": "twomass_H", "2MASS_Ks": "twomass_Ks", "WISE_W1": "wise_w1", "WISE_W2": "wise_w2",
    "WISE_W3": "wise_w3", "WISE_W4": "wise_w4", "IRAC_CH1": "spitzer_irac_ch1",
    "IRAC_CH2": "spitzer_irac_ch2", "IRAC_CH3": "spitzer_irac_ch3", "IRAC_CH4": "spitzer_irac_ch4",
    "MIPS_CH1": "spitzer_mips_24", "MIPS_CH2": "spitzer_mips_70", "MIPS_CH3": "spitzer_mips_160",
    "PACS_blue": "herschel_pacs_70", "PACS_green": "herschel_pacs_100",
    "PACS_red": "herschel_pacs_160", "SPIRE_250": "herschel_spire_250",
    "SPIRE_350": "herschel_spire_350", "SPIRE_500": "herschel_spire_500",
    "ACS_F435W": "acs_wfc_f435w", "ACS_F606W": "acs_wfc_f606w", "ACS_F775W": "acs_wfc_f775w",
    "ACS_F814W": "acs_wfc_f814w", "ACS_F850LP": "acs_wfc_f850lp", "WFC3_F098M": "goodss_wfc3_f098m",
    "WFC3_F105W": "wfc3_ir_f105w", "WFC3_F125W": "wfc3_ir_f125w", "WFC3_F160W": "wfc3_ir_f160w",
    "ISAAC_Ks": "goodss_isaac_ks", "HAWK-I_Ks": "goodss_hawki_ks", "VIMOS_U": "vlt_vimos_U",
}  # fmt: skip
"""Labels of the files and the curves they are; bands without a curve are left out, and named."""


class Galaxy(NamedTuple):
    """What is known of a galaxy beside its photometry."""

    file: str
    name: str
    redshift: float
    distance: float | None
    """Mpc; that of the redshift where it is not given."""
    literature: dict[str, float]
    """log10 of stellar masses in Msun."""
    unit: float = 1.0
    """Jy."""


GALAXIES = (
    Galaxy("ngc337_dale17_photometry.fits", "NGC 337", 0.00549, 19.3, {"KINGFISH": 9.32}),
    Galaxy("ngc628_dale17_photometry.fits", "NGC 628", 0.00219, 7.2, {"KINGFISH": 9.56}),
    Galaxy("NGC5728_photometry.fits", "NGC 5728", 0.00935, None, {}, 1e-3),
    Galaxy("J033226_lightning_input.fits", "J033226.49-274035.5", 1.031, None, {}),
)
MONITORED = ("log_mass_formed", "log_z", "dust2", "log_f_agn", "log_tau_agn", "q_pah", "u_min")


def read(path: Path, unit: float) -> dict[str, tuple[float, float]]:
    """Label -> flux and error in Jy of a file in `unit` Jy, one row or one row per band."""
    table = AstropyTable.read(path)
    if len(table) == 1:
        row = table[0]
        columns = row["FILTER_LABELS"], row["FNU_OBS"], row["FNU_UNC"]
    else:
        columns = table["FILTER_LABELS"], table["FNU"], table["FNU_UNC"]
    labels, flux, error = (
        np.ma.filled(np.ma.asarray(c), np.nan if k else "") for k, c in enumerate(columns)
    )
    words = [x.decode() if isinstance(x, bytes) else str(x) for x in labels]
    return {
        word.strip(): (float(f) * unit, float(e) * unit)
        for word, f, e in zip(words, flux, error, strict=True)
        if np.isfinite(f) and e > 0
    }


def light_masses(fluxes: dict[str, tuple[float, float]], distance: float) -> dict[str, float]:
    """log10 of stellar masses by near-infrared light, for a galaxy at `distance` Mpc nearby."""
    found = {}
    pair = next(
        (p for p in (("IRAC_CH1", "IRAC_CH2"), ("WISE_W1", "WISE_W2")) if p[0] in fluxes), None
    )
    if pair:
        blue, red = (fluxes[label][0] for label in pair)
        found["Eskew+ 2012"] = (
            5.65
            + 2.85 * np.log10(blue)
            - 1.85 * np.log10(red)
            + 2 * np.log10(distance / 0.05)
            - np.log10(1.5)
        )
    if "2MASS_Ks" in fluxes:
        absolute = -2.5 * np.log10(fluxes["2MASS_Ks"][0] / 3631) - 5 * np.log10(distance * 1e5)
        found["K"] = -0.4 * (absolute - 5.08) + np.log10(0.6)
    return {k: float(v) for k, v in found.items()}


def main() -> None:
    """Fit the four, print the table, write figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--method", default="hmc", choices=infer.METHODS)
    parser.add_argument("--error-floor", type=float, default=0.05)
    parser.add_argument("--retries", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    prepare_process()

    seen = [read(options.folder / g.file, g.unit) for g in GALAXIES]
    labels = [label for label in FILTERS if any(label in s for s in seen)]
    bands = [load_filter(FILTERS[label]) for label in labels]
    for galaxy, fluxes in zip(GALAXIES, seen, strict=True):
        print(
            f"{galaxy.name}: left out {', '.join(k for k in fluxes if k not in FILTERS) or 'none'}"
        )
    flux, error = np.zeros((2, len(GALAXIES), len(labels)))
    z = np.array([g.redshift for g in GALAXIES])
    by_redshift = np.array([float(cosmo.luminosity_distance(x)) for x in z])
    distance = np.array([g.distance or d for g, d in zip(GALAXIES, by_redshift, strict=True)])
    # The model puts a galaxy at the distance of its redshift: fluxes are moved there.
    moved = (distance / by_redshift) ** 2 / 3631
    for row, fluxes in enumerate(seen):
        for k, label in enumerate(labels):
            if label in fluxes:
                flux[row, k], error[row, k] = (v * moved[row] for v in fluxes[label])

    galaxies = family("prospector")
    model = galaxies.model(load_ssp(galaxies.ssp), bands, redshift_range=(z.min(), z.max()))
    prior = jax.vmap(galaxies.prior)(jnp.asarray(z, dtype=float))
    data = photometry(flux, error, (error > 0).astype(int), error_floor=options.error_floor)
    began = time.perf_counter()
    samples = infer.sample(
        jax.random.split(jax.random.key(options.seed), len(GALAXIES)),
        Problem(prior, model, data),
        infer.method_of(options.method, retries=options.retries),
        report=lambda phase, done, running: print(f"  {phase} {done} {running}", flush=True),
    )
    seconds = time.perf_counter() - began
    out = _report(samples, model, data, seen, distance, seconds)
    if options.json:
        options.json.write_text(json.dumps(out, indent=1))
    if options.figures:
        options.figures.mkdir(parents=True, exist_ok=True)
        for row, galaxy in enumerate(GALAXIES):
            _figure(
                options.figures / f"{galaxy.file.split('_')[0]}.png",
                galaxy,
                row,
                samples,
                model,
                data,
            )


def _draws(samples, row: int, n: int = 200):
    """`n` thetas of one galaxy."""
    shape = samples.theta.log_mass_formed.shape[1:3]
    flat = np.linspace(0, shape[0] * shape[1] - 1, n).astype(int)

    def pick(values):
        values = np.asarray(values)
        if values.ndim < 3:
            return jnp.full(n, values[row])
        return jnp.asarray(values[row].reshape(-1, *values.shape[3:])[flat])

    return type(samples.theta)(*(pick(v) for v in samples.theta))


def _report(samples, model, data, seen, distance, seconds):
    table = Table(
        "galaxy", "bands", "χ²", "passes", "R-hat", "ESS", "divergences", "log M*", "literature",
        "log SFR 100 Myr", "A_V", "log f_AGN", "log L_abs / L_em - 1",
        title=f"{seconds:.0f} s for {len(GALAXIES)} galaxies, direct physics",
    )  # fmt: skip
    derive = jax.jit(jax.vmap(model.derived))
    balance = jax.jit(jax.vmap(lambda t: _balance(model, t)))
    out, d = {"seconds": seconds, "galaxies": {}}, samples.diagnostics
    for row, galaxy in enumerate(GALAXIES):
        thetas = _draws(samples, row)
        derived = derive(thetas)
        masses = galaxy.literature | (
            light_masses(seen[row], distance[row]) if galaxy.redshift < 0.1 else {}
        )
        scaled = samples.flux[row] * np.asarray(data.inverse_sigma[row]) - np.asarray(
            data.scaled[row]
        )
        entry = {
            "bands": int((np.asarray(data.inverse_sigma[row]) > 0).sum()),
            "chi2": float((scaled**2).sum(-1).min()),
            "passes": bool(d.passes()[row]),
            "rhat": float(d.rhat_max[row]),
            "ess": float(min(d.ess_bulk_min[row], d.ess_tail_min[row])),
            "divergences": int(d.divergences[row]),
            "log_mass_surviving": _percentiles(derived.log_mass_surviving),
            "literature": masses,
            "log_sfr_100myr": _percentiles(derived.log_sfr_100myr),
            "a_v": _percentiles(derived.a_v),
            "log_f_agn": _percentiles(thetas.log_f_agn),
            "energy_balance": float(np.abs(np.asarray(balance(thetas)) - 1).max()),
        }
        entry |= {name: _percentiles(getattr(thetas, name)) for name in MONITORED}
        out["galaxies"][galaxy.name] = entry
        table.add_row(
            galaxy.name, str(entry["bands"]), f"{entry['chi2']:.1f}", str(entry["passes"]),
            f"{entry['rhat']:.4f}", f"{entry['ess']:.0f}", str(entry["divergences"]),
            _words(entry["log_mass_surviving"]),
            ", ".join(f"{k} {v:.2f}" for k, v in masses.items()),
            _words(entry["log_sfr_100myr"]), _words(entry["a_v"]), _words(entry["log_f_agn"]),
            f"{entry['energy_balance']:.1e}",
        )  # fmt: skip
    Console(width=200).print(table)
    return out


def _balance(model, theta):
    """Luminosity that leaves the galaxy over what its stars, gas and torus make."""
    bare = theta._replace(dust2=jnp.zeros_like(theta.dust2))
    return (model.emission.energy @ model.emitted(theta)) / (
        model.emission.energy @ model.emitted(bare)
    )


def _percentiles(values) -> list[float]:
    return [float(v) for v in np.percentile(np.asarray(values), (16, 50, 84))]


def _words(three: list[float]) -> str:
    low, middle, high = three
    return f"{middle:.2f} +{high - middle:.2f} -{middle - low:.2f}"


def _figure(path: Path, galaxy: Galaxy, row: int, samples, model, data) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    thetas = _draws(samples, row, 100)
    spectra = np.asarray(jax.jit(jax.vmap(model.spectrum))(thetas), float)
    z, wave = galaxy.redshift, np.asarray(model.stars.wave, float)
    mass = 10.0 ** (np.asarray(thetas.log_mass_formed, float) - 10)
    far = 10.0 ** (-0.4 * float(cosmo.distance_modulus(z)))
    seen = spectra * (mass * far * (1 + z))[:, None] * 3631
    used = np.asarray(data.inverse_sigma[row]) > 0
    pivot = np.array(
        [load_filter(FILTERS[k]).pivot for k in FILTERS if FILTERS[k] in model.band_names]
    )
    inverse = np.asarray(data.inverse_sigma[row], float)[used]
    flux, error = np.asarray(data.scaled[row], float)[used] / inverse * 3631, 3631 / inverse
    model_flux = np.median(samples.flux[row].reshape(-1, used.size), axis=0)[used] * 3631
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(8, 6), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    x = wave * (1 + z) / 1e4
    low, middle, high = np.percentile(seen, (16, 50, 84), axis=0)
    top.fill_between(x, low, high, color="C0", alpha=0.3, lw=0)
    top.plot(x, middle, color="C0", lw=0.8, label="model, median and 68 %")
    top.errorbar(pivot[used] / 1e4, flux, error, fmt="o", color="k", ms=4, label="data")
    top.set(
        xscale="log", yscale="log", ylabel="flux density (Jy)", title=galaxy.name,
        ylim=(0.3 * flux.min(), 4 * flux.max()), xlim=(0.1 * (1 + z), 1000),
    )  # fmt: skip
    top.legend(frameon=False)
    bottom.axhline(0, color="0.6", lw=0.8)
    bottom.plot(pivot[used] / 1e4, (flux - model_flux) / error, "ko", ms=4)
    bottom.set(xlabel="observed wavelength (micron)", ylabel="residual (σ)", ylim=(-4, 4))
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
