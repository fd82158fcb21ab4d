"""Galaxy spectra: agreement with FSPS and DSPS, and the time an SED takes.

    python -m benchmarks.physics.direct [--json OUT] [--only accuracy|timing] [--seconds S]

Prints tables and, if asked, writes the same numbers as JSON. Comparisons that need reference
data are left out where it is absent (see `shared_data` in tests/conftest.py for where it is
looked for). Times are medians over repeated calls after compilation, each waited for; batches
are run whole and in blocks of 256 that stay in the processor's caches, and the faster counts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

import reference_spectra  # noqa: E402

from benchmarks.timing import matrix_rate  # noqa: E402
from jaxsed import params  # noqa: E402
from jaxsed.bands.filters import load_filter  # noqa: E402
from jaxsed.cli import prepare_process  # noqa: E402
from jaxsed.emulators import PhotometricEmulator  # noqa: E402
from jaxsed.sps.models import galaxy as sed  # noqa: E402
from jaxsed.sps.models.registry import FAMILIES, family  # noqa: E402
from jaxsed.sps.ssp.grid import load_ssp, resample  # noqa: E402
from jaxsed.weights.make_emulators import GOODSS  # noqa: E402

BATCHES = (1, 64, 256, 1024, 4096)
BLOCK = 256
Z_RANGE = (0.0, 4.0)
CONSOLE = Console(width=110)


def dsps_module(name: str) -> Any:
    """A module of DSPS, or None where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# --- agreement ---------------------------------------------------------------------------------


def accuracy() -> list[dict]:
    """Rows of (comparison, largest relative difference, bound)."""
    rows = []

    def add(what: str, value: float, bound: float | None = None) -> None:
        rows.append({"comparison": what, "value": value, "bound": bound})

    folder = os.environ.get("JAXSED_REFERENCE_DATA") or REPOSITORY.parent / "shared" / "data"
    with jax.enable_x64(True):
        if (Path(folder) / reference_spectra.FSPS_FILE).is_file():
            fsps = reference_spectra.fsps(Path(folder))
            spectrum = fsps.spectrum
            off_lines = spectrum.worst(2500, 9e3, fsps.away_from_lines)
            add("FSPS composite, 2500-9000 A, off its lines", off_lines, 3e-3)
            add("  the same with its emission lines", spectrum.worst(2500, 9e3))
            add("  the same, median", abs(spectrum.median(2500, 9e3)))
            gap = np.abs(fsps.surviving.ours / fsps.surviving.theirs - 1).max()
            add("FSPS surviving mass", float(gap))
        stellar_sed = dsps_module("dsps.sed.stellar_sed")
        if stellar_sed is not None:
            calc_weights = dsps_module(
                "dsps.sed.ssp_weights"
            ).calc_ssp_weights_sfh_table_lognormal_mdf
            case = reference_spectra.dsps_case()
            same = reference_spectra.dsps_same_weights(
                stellar_sed.calc_rest_sed_sfh_table_lognormal_mdf, case
            )
            add("DSPS, its own weights, 1000 A-5 um", same.worst(1e3, 5e4), 1e-5)
            for shape, scatter, refine in (
                *(("Gaussian", 0.2, n) for n in (1, 2, 4, 16)),
                *(("triweight", 0.2, n) for n in (1, 4, 16)),
                ("Gaussian", 0.02, 16),
            ):
                compared = reference_spectra.dsps_history(
                    calc_weights, case, scatter, refine, shape == "triweight"
                )
                what = f"DSPS, same history, {shape} scatter {scatter} dex, nodes x{refine}"
                add(what, compared.worst(1e3, 5e4), 1e-3)
        for name in FAMILIES:
            add(f"gradients of {name} against differences", gradient_error(name), 1e-5)
    median, largest = sampling_error()
    add("photometry at the default wavelength step, median", median)
    add("photometry at the default wavelength step, 99 %", largest)
    return rows


def draws(name: str, n: int, redshift=(0.05, 2.5)) -> Any:
    """Thetas from near the middle of a family's prior."""
    prior = family(name).prior(dist.Uniform(*redshift))
    x = 0.8 * jax.random.normal(jax.random.key(7), (n, params.dimension(prior)))
    return jax.vmap(lambda x: params.constrain(prior, x)[0])(x)


def galaxy(name: str, bands: str, **options) -> sed.GalaxyModel:
    """A model with the shipped populations."""
    filters = [load_filter(band) for band in bands.split()]
    return sed.galaxy_model(
        family(name).physics, name, load_ssp(), filters, redshift_range=Z_RANGE, **options
    )


def gradient_error(name: str) -> float:
    """Largest difference between reverse-mode and numerical gradients of ln flux, relative to
    the largest gradient of the parameter among the bands."""
    model = galaxy(name, "sdss_u0 sdss_r0 twomass_H spitzer_irac_ch1")
    thetas = draws(name, 3)
    flat = jax.vmap(lambda t: ravel_pytree(t)[0])(thetas)
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], thetas))[1]

    def log_flux(v: jax.Array) -> jax.Array:
        return jnp.log(model(unravel(v)))

    finite = reference_spectra.central_differences(log_flux, flat)
    reverse = np.asarray(jax.jit(jax.vmap(jax.jacrev(log_flux)))(flat)).swapaxes(1, 2)
    return float((np.abs(reverse - finite) / np.abs(finite).max(2, keepdims=True)).max())


def sampling_error() -> tuple[float, float]:
    """Median and 99 % of the difference between the default wavelength step and a tenth of it."""
    red = " ".join(GOODSS.split()[3:])
    thetas = draws("provabgs", 64, (0.05, 2.0))
    coarse, fine = galaxy("provabgs", red), galaxy("provabgs", red, ln_step=sed.LN_STEP / 10)
    values = [jax.jit(lambda t, m=m: jax.lax.map(m.shape, t))(thetas) for m in (coarse, fine)]
    gap = np.abs(np.asarray(values[0]) / np.asarray(values[1]) - 1)
    return float(np.median(gap)), float(np.quantile(gap, 0.99))


# --- time --------------------------------------------------------------------------------------


def measure(function: Callable, *args: Any, seconds: float) -> tuple[float, float]:
    """Seconds to compile, and the median of repeated calls."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    compile_time = time.perf_counter() - start
    jax.block_until_ready(compiled(*args))
    times, begun = [], time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - begun < seconds and len(times) < 1000):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - start)
    return compile_time, statistics.median(times)


def with_gradient(model: Callable) -> Callable:
    """Fluxes, and the gradient of a weighted sum of squares of them (a likelihood's work)."""

    def both(theta: Any) -> Any:
        flux, pull = jax.vjp(model, theta)
        return flux, pull(flux)

    return both


def time_batches(name: str, model: Callable, thetas: Any, seconds: float) -> list[dict]:
    """Rows of microseconds per SED at every batch size, value and value with gradient."""
    rows = []
    for kind, function in (("value", model), ("value+gradient", with_gradient(model))):
        for batch in BATCHES:
            part = jax.tree.map(lambda leaf, n=batch: leaf[:n], thetas)
            ways = {}
            if batch <= 1024:
                ways["whole"] = jax.vmap(function)
            if batch > BLOCK:
                ways["blocks"] = lambda t, f=function: jax.lax.map(f, t, batch_size=BLOCK)
            results = {way: measure(f, part, seconds=seconds) for way, f in ways.items()}
            way = min(results, key=lambda key: results[key][1])
            compile_time, run_time = results[way]
            rows.append(
                {
                    "what": name, "kind": kind, "batch": batch, "way": way,
                    "us_per_sed": 1e6 * run_time / batch, "compile_s": compile_time,
                }
            )  # fmt: skip
    return rows


def dsps_model(bands: list) -> tuple[Callable, Any] | None:
    """DSPS on the same grid: ``model(theta) -> magnitudes`` and a batch of thetas.

    A history of 100 times and its metallicity history, dust of one slope on the whole spectrum,
    and magnitudes through the same curves at the galaxy's redshift.
    """
    stellar_sed = dsps_module("dsps.sed.stellar_sed")
    if stellar_sed is None:
        return None
    kernels = dsps_module("dsps.photometry.photometry_kernels")
    dust = dsps_module("dsps.dust.att_curves")
    planck = dsps_module("dsps.cosmology").DEFAULT_COSMOLOGY
    reference = galaxy("provabgs", GOODSS)
    wave = np.asarray(reference.stars.wave)
    ssp = resample(load_ssp(), wave)
    keep = np.isin(np.asarray(ssp.log_z), np.asarray(reference.stars.log_z))
    log_z, log_age, light = (jnp.asarray(x) for x in (ssp.log_z[keep], ssp.log_age, ssp.lnu[keep]))
    longest = max(b.wave.size for b in bands)
    curve_wave = np.stack(
        [np.append(b.wave, b.wave[-1] + np.arange(1, longest - b.wave.size + 1)) for b in bands]
    )
    curve = np.stack([np.pad(b.trans, (0, longest - b.wave.size)) for b in bands])
    table = jnp.linspace(0.05, 13.8, 100)

    def model(theta: dict) -> jax.Array:
        t_obs = 13.8 / (1 + theta["redshift"]) ** 1.3
        sfr = theta["mass"] * jnp.exp(-table / theta["tau"]) * table
        metallicity = theta["log_z"] + 0.1 * jnp.log10(table)
        spectrum = stellar_sed.calc_rest_sed_sfh_table_met_table(
            table, sfr, metallicity, 0.2, log_z, log_age, light, t_obs
        ).rest_sed
        k = dust.sbl18_k_lambda(wave / 1e4, 1.0, theta["slope"])
        spectrum = spectrum * 10 ** (-0.4 * theta["av"] * k / dust.RV_C00)
        magnitude = jax.vmap(
            lambda w, t: kernels.calc_obs_mag(wave, spectrum, w, t, theta["redshift"], *planck)
        )
        return magnitude(jnp.asarray(curve_wave), jnp.asarray(curve))

    u = jax.random.uniform(jax.random.key(1), (5, max(BATCHES)))
    thetas = {
        "redshift": 0.1 + 1.9 * u[0], "tau": 0.5 + 3 * u[1], "log_z": -2.5 + u[2],
        "slope": -0.5 * u[3], "av": u[4], "mass": jnp.ones(max(BATCHES)),
    }  # fmt: skip
    return model, thetas


def timing(seconds: float) -> dict:
    """All timings, side by side in one run."""
    rate = matrix_rate()
    n = max(BATCHES)
    rows = []
    for name in FAMILIES:
        title = f"direct physics, {name}, 17 bands"
        rows += time_batches(title, galaxy(name, GOODSS), draws(name, n), seconds)
    emulators = []
    for path in sorted((REPOSITORY / "jaxsed" / "weights").glob("emulator_*.h5")):
        emulator = PhotometricEmulator.load(path)
        flops = 2 * sum(np.asarray(layer[0]).size for layer in emulator.layers)
        title = f"emulator {path.stem.removeprefix('emulator_')}, {len(emulator.band_names)} bands"
        thetas = draws(emulator.record.physics or "provabgs", n)
        own = time_batches(title, emulator, thetas, seconds)
        rows += own
        last = next(r for r in own if r["batch"] == n and r["kind"] == "value")
        share = flops / (1e-6 * last["us_per_sed"]) / rate
        emulators.append({"what": title, "flop_per_sed": flops, "share_of_matrix_rate": share})
    other = dsps_model([load_filter(band) for band in GOODSS.split()])
    if other is not None:
        model, thetas = other
        rows += time_batches("DSPS, same grid, 17 bands", model, thetas, seconds)
    return {"matrix_flop_per_s": rate, "rows": rows, "emulators": emulators}


def machine() -> dict:
    """What the numbers depend on."""
    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        models = [li for li in cpu.read_text().splitlines() if li.startswith("model name")]
        name = models[0].split(":", 1)[1].strip() if models else name
    return {
        "device": str(jax.devices()[0]), "processor": name, "cores": os.cpu_count(),
        "load": os.getloadavg()[0], "jax": jax.__version__, "python": platform.python_version(),
    }  # fmt: skip


def show(report: dict) -> None:
    """Print the report as tables."""
    CONSOLE.print(report["machine"])
    if "accuracy" in report:
        table = Table("comparison", "relative difference", "bound", "")
        for row in report["accuracy"]:
            bound = row["bound"]
            verdict = "" if bound is None else "ok" if row["value"] <= bound else "ABOVE"
            table.add_row(row["comparison"], f"{row['value']:.2e}", f"{bound or ''}", verdict)
        CONSOLE.print(table)
    if "timing" in report:
        timings = report["timing"]
        table = Table("us per SED", "", *(f"{b}" for b in BATCHES), "compile s")
        rows = timings["rows"]
        for what, kind in dict.fromkeys((r["what"], r["kind"]) for r in rows):
            own = [r for r in rows if (r["what"], r["kind"]) == (what, kind)]
            times = [f"{r['us_per_sed']:.4g}" for r in own]
            table.add_row(what, kind, *times, f"{max(r['compile_s'] for r in own):.1f}")
        CONSOLE.print(table)
        CONSOLE.print(f"float32 matrix products: {timings['matrix_flop_per_s'] / 1e9:.1f} GFLOP/s")
        for row in timings["emulators"]:
            share = 100 * row["share_of_matrix_rate"]
            CONSOLE.print(f"{row['what']}: {row['flop_per_sed']} FLOP per SED, {share:.0f} % of it")


def main() -> None:
    """Run, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here as well")
    parser.add_argument("--only", choices=("accuracy", "timing"), default=None)
    parser.add_argument("--seconds", type=float, default=0.5, help="to spend on each timing")
    options = parser.parse_args()
    prepare_process()
    report: dict = {"machine": machine()}
    # Importing DSPS switches 64-bit on; inside this block that has no effect.
    with jax.enable_x64(False):
        if options.only != "timing":
            report["accuracy"] = accuracy()
        if options.only != "accuracy":
            report["timing"] = timing(options.seconds)
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
