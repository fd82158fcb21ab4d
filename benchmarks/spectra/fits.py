"""Fits of a real DESI coadd and a real SDSS spectrum with the published PROVABGS networks.

    python -m benchmarks.spectra.fits --networks FOLDER --output FOLDER \
        --desi coadd-4-80613-thru20210324.fits --redrock redrock-4-80613-thru20210324.fits \
        --sdss NGC4636_SDSS_DR12.fits --sdss-ebv 0.028

The networks' folder holds nmf*.npz and fsps.burst*.npz.  For each galaxy: a scan of the
likelihood over redshift, the posterior with the redshift free, a table, JSON and a picture.
Draws are kept beside them, and a second run only draws the pictures.
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
import numpyro.distributions as dist

from jaxsed import cosmology as cosmo
from jaxsed import infer, params
from jaxsed.bands.filters import load_filter
from jaxsed.core.constants import C_LIGHT_KM_S
from jaxsed.emulators import read_speculator
from jaxsed.emulators.spectral import published
from jaxsed.likelihood import Joint
from jaxsed.problem import Problem
from jaxsed.sps.dust.milky_way import dereddened
from jaxsed.sps.models.galaxy import galaxy_model
from jaxsed.sps.models.registry import family, provabgs
from jaxsed.sps.spectra.observed import ObservedSpectrum
from jaxsed.sps.spectra.readers import read_desi_coadd, read_redrock, read_sdss_spectrum
from jaxsed.sps.ssp.grid import load_ssp
from jaxsed.workflows.spectra import spectrum_part, spectrum_problem

BANDS = ("bass_g", "bass_r", "mzls_z", "wise_w1", "decam_g", "decam_r", "decam_z")
"""Fitted with the spectrum where there; W2 has dust emission, which the networks lack."""

REST_RANGE = (3610.0, 7390.0)
"""Angstrom where the published networks have the resolution of MILES."""

SCAN_TEMPLATES = 6
PHOTOMETRY_FLOOR = 0.15
"""Relative uncertainty of the bands: the networks have no emission lines, which bands hold."""

REDSHIFT_WINDOW = 0.001
"""Half width of the uniform prior of the redshift around the best of the scan."""


def networks(folder: Path) -> Any:
    """The published networks as one galaxy."""
    nmf = read_speculator(
        sorted(folder.glob("nmf*.npz")), parameter_names=published.NMF_INPUTS, box=published.NMF_BOX
    )
    burst = read_speculator(
        sorted(folder.glob("fsps.burst*.npz")),
        parameter_names=published.BURST_INPUTS, box=published.BURST_BOX,
    )  # fmt: skip
    time_gyr, _, z_basis = provabgs.read_bases()
    return published.published_provabgs(nmf, burst, (time_gyr, z_basis))


def problem(
    rest: Any, observed: ObservedSpectrum, redshift: tuple[float, float], options: dict[str, Any]
) -> Problem:
    """The posterior with the redshift uniform in a range."""
    prior = provabgs.prior(dist.Uniform(*redshift), cosmo.PLANCK13)
    bands = {name: flux for name, flux in observed.photometry.items() if name in BANDS}
    aperture = {"photometry": bands, "ln_aperture": dist.Normal(-0.5, 0.5)} if bands else {}
    if bands:
        aperture["photometry_floor"] = PHOTOMETRY_FLOOR
    # Galaxies broaden what MILES (2.54 Angstrom) resolves less well than the instruments.
    return spectrum_problem(rest, observed, prior, max_blur=2.5, **(aperture | options))


def scan(rest: Any, observed: ObservedSpectrum, options: dict[str, Any]) -> dict[str, Any]:
    """Best redshift of a grid from 0 to 0.55, by the likelihood of a few templates."""
    low, high, step = 0.001, 0.55, 4e-4
    wide = spectrum_problem(
        rest, observed, provabgs.prior(dist.Uniform(low, high), cosmo.PLANCK13),
        velocity_dispersion=150.0, gas_dispersion=100.0, max_blur=np.inf, **options,
    )  # fmt: skip
    x = 0.7 * jax.random.normal(jax.random.key(1), (SCAN_TEMPLATES, wide.dimension))
    thetas = jax.jit(jax.vmap(lambda x: params.constrain(wide.prior, x)[0]))(x)
    redshifts = jnp.exp(jnp.arange(np.log1p(low), np.log1p(high), step)) - 1

    def best(wide: Problem, thetas: Any, redshift: jnp.ndarray) -> jnp.ndarray:
        def one(theta: Any) -> jnp.ndarray:
            prediction = wide.forward(theta._replace(redshift=redshift, log_mass_formed=10.0))
            norm, overlap = wide.data.normal_equation(prediction)
            scale = jnp.maximum(overlap, 1e-6) / jnp.maximum(norm, 1e-6)
            return wide.log_likelihood(wide.data.rescaled(prediction, scale))

        return jnp.max(jax.lax.map(one, thetas))

    found = jax.jit(lambda p, t, z: jax.lax.map(lambda z: best(p, t, z), z))(
        wide, thetas, redshifts
    )
    values = np.asarray(found)
    top = int(np.argmax(values))
    apart = np.abs(np.asarray(redshifts) - float(redshifts[top])) > 0.01
    return {
        "redshift": float(redshifts[top]),
        "log_likelihood_over_next": float(values[top] - values[apart].max()),
        "grid": np.asarray(redshifts), "log_likelihood": values,
    }  # fmt: skip


def within_rest(observed: ObservedSpectrum, redshift: float) -> ObservedSpectrum:
    """Only the pixels where the networks are sharp, whatever redshift the window has."""
    low, high = redshift - REDSHIFT_WINDOW, redshift + REDSHIFT_WINDOW
    return observed.between(REST_RANGE[0] * (1 + high), REST_RANGE[1] * (1 + low))


def quantiles(draws: np.ndarray) -> list[float]:
    return [float(q) for q in np.quantile(draws, [0.16, 0.5, 0.84])]


def speed(target: Problem, x: np.ndarray, batch: int = 8) -> float:
    """Best microseconds per value and gradient in a batch."""
    both = jax.jit(jax.vmap(lambda p, x: jax.value_and_grad(p.logdensity)(x), (None, 0)))
    rows = jnp.asarray(x.reshape(-1, x.shape[-1])[:: x[..., 0].size // batch][:batch])
    times = []
    for _ in range(20):
        start = time.perf_counter()
        jax.block_until_ready(both(target, rows))
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / batch


def describe(target: Problem, samples: infer.Samples) -> dict[str, Any]:
    """The posterior's numbers."""
    theta, shape = samples.theta, samples.log_density.shape
    galaxy = galaxy_model(
        family("provabgs").physics, "provabgs", load_ssp(), [load_filter("sdss_r0")],
        redshift_range=(0.0, 0.6),
    )  # fmt: skip
    full = jax.tree.map(lambda a: np.broadcast_to(a, shape + np.shape(a)[2:]), theta)
    flat = jax.tree.map(lambda a: jnp.asarray(a).reshape(-1, *a.shape[2:])[::4], full)
    derived = jax.jit(lambda t: jax.lax.map(galaxy.derived, t, batch_size=64))(flat)
    numbers = {
        name: quantiles(np.asarray(value))
        for name, value in (theta._asdict() | derived._asdict()).items()
        if np.ndim(value) in (1, 2) and np.size(value) > 1 and name not in ("beta", "sfr")
    }
    best = np.unravel_index(np.argmax(samples.log_density), shape)
    x = jnp.asarray(samples.x[best])
    prediction = jax.jit(lambda p, x: p.evaluate(x).prediction)(target, x)
    chi2 = float(jax.jit(lambda p, q: p.chi2(q))(target, prediction))
    _, data = spectrum_part(target)
    pixels = int(np.sum(np.asarray(data.inverse_sigma) > 0))
    bands = target.data.photometry.scaled.size if isinstance(target.data, Joint) else 0
    free = target.dimension + data.polynomials.shape[0] + data.line_sigma.shape[0]
    found = samples.diagnostics
    return {
        "posterior": numbers, "chi2": chi2, "pixels": pixels, "bands": bands,
        "dof": pixels + bands - free, "chi2_per_dof": chi2 / (pixels + bands - free),
        "rhat_max": float(found.rhat_max), "ess_bulk_min": float(found.ess_bulk_min),
        "ess_tail_min": float(found.ess_tail_min), "divergences": int(found.divergences),
        "passes": bool(found.passes()), "gradients": float(found.gradients),
    }  # fmt: skip


def fit(
    name: str, rest: Any, observed: ObservedSpectrum, options: dict[str, Any], output: Path,
    method: infer.Method,
) -> dict[str, Any]:  # fmt: skip
    """Scan, sample, describe and draw one galaxy; everything goes to `output`."""
    kept = output / f"{name}.npz"
    record: dict[str, Any] = {"name": observed.name, "pipeline_redshift": observed.redshift}
    if kept.exists():
        with np.load(kept, allow_pickle=False) as file:
            stored = dict(file)
        found = {"redshift": float(stored["scan_redshift"])}
    else:
        start = time.perf_counter()
        found = scan(rest, observed, {k: v for k, v in options.items() if k != "error_floor"})
        record["scan"] = {k: v for k, v in found.items() if np.ndim(v) == 0}
        record["scan"]["seconds"] = time.perf_counter() - start
        print(f"{name}: scan", record["scan"], flush=True)
    middle = found["redshift"]
    window = (middle - REDSHIFT_WINDOW, middle + REDSHIFT_WINDOW)
    target = problem(rest, within_rest(observed, middle), window, options)
    if kept.exists():
        samples = read_samples(stored, target)
        record |= json.loads(str(stored["record"]))
    else:
        start = time.perf_counter()
        samples = infer.sample(
            jax.random.key(0), target, method,
            report=lambda *step: print(name, *step, flush=True),
        )  # fmt: skip
        record["seconds"] = time.perf_counter() - start
        record["microseconds_per_gradient"] = speed(target, samples.x)
        parts = {f"theta_{k}": v for k, v in samples.theta._asdict().items()}
        parts |= {f"convergence_{k}": v for k, v in samples.convergence._asdict().items()}
        found_by = dataclasses.asdict(samples.diagnostics)
        parts |= {f"diagnostics_{k}": v for k, v in found_by.items()}
        np.savez(
            kept, x=samples.x, log_density=samples.log_density, **parts,
            record=json.dumps(record), scan_redshift=middle, scan_grid=found["grid"],
            scan_log_likelihood=found["log_likelihood"],
        )  # fmt: skip
    record |= describe(target, samples)
    if observed.redshift is not None:
        gap = np.asarray(samples.theta.redshift) - observed.redshift
        to_km_s = C_LIGHT_KM_S / (1 + observed.redshift)
        record["velocity_from_pipeline_km_s"] = quantiles(gap * to_km_s)
    (output / f"{name}.json").write_text(json.dumps(record, indent=1))
    draw(name, target, samples, observed, output)
    return record


def read_samples(stored: dict[str, Any], target: Problem) -> infer.Samples:
    """Samples that `fit` has kept."""
    theta = type(target.prior)(**{f: stored[f"theta_{f}"] for f in target.prior._fields})
    fields = [field.name for field in dataclasses.fields(infer.Diagnostics)]
    return infer.Samples(
        theta=theta, x=stored["x"], log_density=stored["log_density"], flux=None, derived={},
        convergence=infer.Convergence(
            *(stored[f"convergence_{f}"] for f in infer.Convergence._fields)
        ),
        diagnostics=infer.Diagnostics(**{f: stored[f"diagnostics_{f}"] for f in fields}),
        slot_efficiency=float("nan"),
    )  # fmt: skip


def draw(
    name: str, target: Problem, samples: infer.Samples, observed: ObservedSpectrum, output: Path
) -> None:
    """The picture of a fit, whole and in parts."""
    from jaxsed.plots import spectrum_fit

    x = samples.x.reshape(-1, samples.x.shape[-1])
    best = x[np.argmax(samples.log_density)]
    rows = x[np.linspace(0, len(x) - 1, 24).astype(int)]
    figure = spectrum_fit(target, best, draws=rows, title=observed.name)
    figure.savefig(output / f"{name}.png")


def table(records: list[dict[str, Any]]) -> str:
    lines = []
    for record in records:
        lines.append(f"\n{record['name']}: chi2/dof {record['chi2']:.0f}/{record['dof']} = "
                     f"{record['chi2_per_dof']:.2f}; R-hat {record['rhat_max']:.4f}, ESS "
                     f"{record['ess_bulk_min']:.0f}/{record['ess_tail_min']:.0f}, divergences "
                     f"{record['divergences']}, passes {record['passes']}; "
                     f"{record['seconds']:.0f} s, {record['gradients']:.3g} gradients, "
                     f"{record['microseconds_per_gradient']:.0f} us each")  # fmt: skip
        for key, (low, middle, high) in record["posterior"].items():
            lines.append(f"  {key:22s} {middle:12.6g}  +{high - middle:.3g} -{middle - low:.3g}")
        if "velocity_from_pipeline_km_s" in record:
            low, middle, high = record["velocity_from_pipeline_km_s"]
            lines.append(
                f"  redshift against the pipeline's: {middle:+.2f} km/s "
                f"(+{high - middle:.2f} -{middle - low:.2f})"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--desi", type=Path)
    parser.add_argument("--redrock", type=Path)
    parser.add_argument("--sdss", type=Path)
    parser.add_argument("--sdss-ebv", type=float, default=0.0)
    parser.add_argument("--method", default="hmc", choices=infer.METHODS)
    parser.add_argument("--warmup-chains", type=int, default=32)
    parser.add_argument("--warmup", type=int, default=300)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--proposals", type=int, default=128)
    parser.add_argument("--retries", type=int, default=3)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    # Many chains and many global proposals: the age and the metallicity of a young burst have
    # several modes, that of one step of the isochrones each, and no trajectory crosses between.
    method = infer.method_of(
        options.method, warmup_chains=options.warmup_chains, warmup=options.warmup,
        draws=options.draws, retries=options.retries, proposals=options.proposals,
    )  # fmt: skip
    rest, records = networks(options.networks), []
    if options.desi:
        redshifts = read_redrock(options.redrock) if options.redrock else {}
        for observed in read_desi_coadd(options.desi):
            target_id = int(observed.name.split()[-1])
            known = redshifts.get(target_id)
            observed = dereddened(observed.with_redshift(known)).masked([(9300.0, 1e5)])
            records.append(
                fit(f"desi_{target_id}", rest, observed,
                    {"calibration_order": 2, "error_floor": 0.02}, options.output, method)
            )  # fmt: skip
    if options.sdss:
        observed = dereddened(read_sdss_spectrum(options.sdss), options.sdss_ebv)
        observed = observed.masked([(5570.0, 5590.0)])
        records.append(
            fit("sdss", rest, observed, {"calibration_order": 8, "error_floor": 0.01},
                options.output, method)
        )  # fmt: skip
    print(table(records))


if __name__ == "__main__":
    main()
