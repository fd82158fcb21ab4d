"""Spectrum emulators: agreement of published networks with numpy, and the time of a spectrum.

    python -m benchmarks.spectra.errors [--json OUT] [--seconds S]

Prints tables and, if asked, writes the same numbers as JSON. The published networks (PROVABGS,
Prospector-alpha) are looked for where the tests look for reference data; without them only the
shipped emulator is timed. The numpy code beside ours is the published forward pass, once with
parameters in double precision, as its authors call it, and once all in single precision. Times
are medians over repeated calls after compilation, each waited for, on the same cores and in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from benchmarks.physics.direct import CONSOLE, REPOSITORY, machine, measure, with_gradient
from benchmarks.timing import matrix_rate

sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from test_speculator import forward, plain_fields  # noqa: E402

from jaxsed.cli import prepare_process  # noqa: E402
from jaxsed.emulators import load_spectrum_emulator, read_speculator  # noqa: E402
from jaxsed.emulators.spectral.emulator import SpectrumEmulator  # noqa: E402
from jaxsed.emulators.spectral.published import BURST_BOX, NMF_BOX  # noqa: E402
from jaxsed.emulators.validation.spectral import joint_jumps  # noqa: E402
from jaxsed.sps.ssp.grid import load_ssp  # noqa: E402
from jaxsed.workflows.published import load_published_provabgs  # noqa: E402
from jaxsed.workflows.train_spectra import rest_frame_provabgs, unseen_galaxies  # noqa: E402

BATCH = 1000
TURNS = 5
SETS = {
    "PROVABGS, NMF": ("provabgs/nmf*.npz", NMF_BOX),
    "PROVABGS, burst": ("provabgs/fsps.burst*.npz", BURST_BOX),
    "Prospector-alpha": ("prospector_alpha/*.npz", None),
}
JOINTS = (5500.0,)
"""Angstrom: where published windows meet on an even grid, so that steps can be compared."""
NUMPY_THREADS = os.environ.get("OPENBLAS_NUM_THREADS", "all")
"""As numpy found it when it was imported."""


def published() -> dict[str, tuple[list[Path], np.ndarray]]:
    """Files of every published set that is at hand, and thetas [BATCH, parameter] in its box."""
    root = os.environ.get("JAXSED_REFERENCE_DATA") or REPOSITORY.parent / "shared" / "data"
    found = {}
    for name, (pattern, box) in SETS.items():
        paths = sorted((Path(root) / "emulators").glob(pattern))
        if not paths:
            continue
        fields = plain_fields(paths[0])
        shift, scale = fields["parameters_shift"], fields["parameters_scale"]
        low, high = box or (shift - 1.7 * scale, shift + 1.7 * scale)
        u = np.random.default_rng(0).random((BATCH, shift.size))
        found[name] = (paths, np.asarray(low) + u * (np.asarray(high) - np.asarray(low)))
    return found


def windows(paths: list[Path]) -> list[dict]:
    """Fields of the networks in order of wavelength."""
    return sorted((plain_fields(p) for p in paths), key=lambda f: f["wavelengths_A"][0])


def agreement(paths: list[Path], thetas: np.ndarray) -> list[dict]:
    """Largest |difference| of ln flux from numpy in double precision."""
    parts = windows(paths)
    truth = np.concatenate([forward(f, thetas) for f in parts], axis=1)
    wave = np.concatenate([f["wavelengths_A"] for f in parts])
    rows = []

    def add(what: str, got: np.ndarray) -> None:
        size = np.abs(got - truth)
        rows.append(
            {
                "what": what,
                "largest": float(size.max()),
                "largest_beyond_3600A": float(size[:, wave > 3600].max()),
                "largest_relative_to_ln_flux": float((size / np.maximum(np.abs(truth), 1)).max()),
                "median": float(np.median(size)),
            }
        )

    for wide in (False, True):
        with jax.enable_x64(wide):
            run = jax.jit(jax.vmap(lambda e, t: e(t), (None, 0)))
            add(
                f"jaxsed, {'64' if wide else '32'} bit",
                np.asarray(run(read_speculator(paths), jnp.asarray(thetas))),
            )
    single = [forward(f, thetas, np.float32) for f in parts]
    add("numpy, 32 bit", np.concatenate(single, axis=1))
    return rows


def numpy_code(parts: list[dict]) -> Callable[[np.ndarray], np.ndarray]:
    """The published forward pass on arrays as they are stored."""

    def run(theta: np.ndarray) -> np.ndarray:
        spectra = []
        for f in parts:
            x = (theta - f["parameters_shift"]) / f["parameters_scale"]
            for w, b, alpha, beta in zip(
                f["W"][:-1], f["b"][:-1], f["alphas"], f["betas"], strict=True
            ):
                a = np.dot(x, w) + b
                x = (beta + (1.0 - beta) * 1.0 / (1.0 + np.exp(-alpha * a))) * a
            x = np.dot(x, f["W"][-1]) + f["b"][-1]
            x = np.dot(x * f["pca_scale"] + f["pca_shift"], f["pca_transform_matrix"])
            spectra.append(x * f["log_spectrum_scale"] + f["log_spectrum_shift"])
        return np.concatenate(spectra, axis=-1)

    return run


def alternate(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median microseconds of every call, taken in turns, so that all meet the same other load."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    with np.errstate(over="ignore"):
        for turn in range(TURNS + 1):
            for name, call in calls.items():
                call()  # into the caches again; the first time it compiles
                begun = start = time.perf_counter()
                while turn and start - begun < seconds / TURNS:
                    call()
                    now = time.perf_counter()
                    times[name].append(1e6 * (now - start))
                    start = now
    return {name: statistics.median(values) for name, values in times.items()}


def flop(emulator: SpectrumEmulator) -> int:
    """Floating-point operations of the matrix products of one spectrum."""
    sizes = [np.size(layer[0]) for window in emulator.windows for layer in window.layers]
    return 2 * (sum(sizes) + sum(np.size(window.basis) for window in emulator.windows))


def time_model(name: str, model: Any, thetas: Any, flops: int, rate: float, seconds: float) -> dict:
    """Microseconds per spectrum of a model: single and in a batch, value and with gradient."""
    one = jax.tree.map(lambda leaf: leaf[0], thetas)
    row: dict[str, Any] = {"what": name, "wavelengths": int(model.wave.size), "flop": flops}
    # the model is an argument: as a constant of the compiled code it would be folded
    for kind, function in (
        ("value", lambda model, theta: model(theta)),
        ("gradient", lambda model, theta: with_gradient(model)(theta)),
    ):
        single = measure(function, model, one, seconds=seconds)[1]
        batch = measure(jax.vmap(function, (None, 0)), model, thetas, seconds=seconds)[1]
        row[f"{kind}_single_us"], row[f"{kind}_batch_us"] = 1e6 * single, 1e6 * batch / BATCH
    row["share_of_matrix_rate"] = flops * BATCH / (row["value_batch_us"] * 1e-6 * BATCH) / rate
    return row


def published_set(paths: list[Path], thetas: np.ndarray, rate: float, seconds: float) -> dict:
    """Agreement and times of one published set."""
    emulator, code = read_speculator(paths), numpy_code(windows(paths))
    report: dict[str, Any] = {"agreement": agreement(paths, thetas), "flop": flop(emulator)}

    def value(model: Any, theta: Any) -> Any:
        return model(theta)

    def gradient(model: Any, theta: Any) -> Any:
        return with_gradient(model)(theta)

    for size, kind, wrap in ((1, "single", jax.jit), (BATCH, "batch", _batched)):
        theta = thetas[0] if size == 1 else thetas
        own, wide, narrow = jnp.asarray(theta, float), theta, theta.astype(np.float32)
        calls: dict[str, Callable[[], Any]] = {
            "jaxsed": partial(_waited, wrap(value), emulator, own),
            "jaxsed, with gradient": partial(_waited, wrap(gradient), emulator, own),
            "numpy, as published": partial(code, wide),
            "numpy, 32 bit": partial(code, narrow),
        }
        report[f"{kind}_us"] = {k: v / size for k, v in alternate(calls, seconds).items()}
    report["share_of_matrix_rate"] = report["flop"] / (1e-6 * report["batch_us"]["jaxsed"]) / rate
    return report


def _waited(run: Callable, *args: Any) -> Any:
    return jax.block_until_ready(run(*args))


def _batched(function: Callable) -> Callable:
    return jax.jit(jax.vmap(function, (None, 0)))


def galaxies(paths: dict[str, tuple[list[Path], np.ndarray]], rate: float, seconds: float) -> dict:
    """Whole PROVABGS galaxies: the published networks, ours, and the physics; and the joints."""
    physics = rest_frame_provabgs(load_ssp())
    thetas, truth = unseen_galaxies(jax.random.key(1), physics, BATCH, redshift_range=(0.0, 0.6))
    own = load_spectrum_emulator("provabgs")
    rows = [
        time_model("our emulator", own, thetas, flop(own.smooth) + flop(own.burst), rate, seconds)
    ]
    stars = physics.stars
    rows.append(
        time_model(
            "direct physics",
            physics,
            thetas,
            2 * (stars.young.size + stars.old.size),
            rate,
            seconds,
        )
    )
    run = jax.jit(jax.vmap(lambda m, t: m(t), (None, 0)))
    joints = own.provenance["training"]["smooth"]["settings"]["joints"]
    residual = np.asarray(run(own, thetas)) - truth
    report: dict[str, Any] = {"joints": {"our emulator": joint_jumps(residual, own.wave, joints)}}
    names = ("PROVABGS, NMF", "PROVABGS, burst")
    if all(name in paths for name in names):
        model = load_published_provabgs(*(paths[name][0] for name in names))
        flops = flop(model.nmf) + flop(model.burst)
        rows.insert(0, time_model("published networks", model, thetas, flops, rate, seconds))
        spectra = np.asarray(run(model, thetas))
        report["joints"]["published networks"] = joint_jumps(
            spectra - spectra.mean(0), model.wave, JOINTS
        )
    return report | {"time": rows}


def show(report: dict) -> None:
    """Print the report as tables."""
    CONSOLE.print(report["machine"])
    CONSOLE.print(f"float32 matrix products: {report['matrix_flop_per_s'] / 1e9:.1f} GFLOP/s")
    for name, part in report["published"].items():
        table = Table("ln flux against numpy, 64 bit", "largest", "> 3600 A", "/ |ln f|", "median")
        for row in part["agreement"]:
            table.add_row(row["what"], *(f"{v:.1e}" for v in list(row.values())[1:]))
        CONSOLE.print(f"\n{name}", table)
        table = Table("us per spectrum", "single", f"batch of {BATCH}", "ratio", "ratio")
        single, batch = part["single_us"], part["batch_us"]
        for what in single:
            ratios = (single[what] / single["jaxsed"], batch[what] / batch["jaxsed"])
            table.add_row(
                what, f"{single[what]:.0f}", f"{batch[what]:.1f}", *(f"{r:.1f}" for r in ratios)
            )
        CONSOLE.print(table)
        CONSOLE.print(
            f"{part['flop'] / 1e6:.2f} MFLOP per spectrum: "
            f"{100 * part['share_of_matrix_rate']:.0f} % of the matrix-product limit"
        )
    table = Table(
        "whole PROVABGS galaxy, us", "wavelengths", "single", f"batch of {BATCH}",
        "gradient, single", "gradient, batch", "% of limit",
    )  # fmt: skip
    for row in report["galaxies"]["time"]:
        times = [row[f"{k}_{b}_us"] for k in ("value", "gradient") for b in ("single", "batch")]
        table.add_row(
            row["what"], str(row["wavelengths"]), *(f"{t:.1f}" for t in times),
            f"{100 * row['share_of_matrix_rate']:.0f}",
        )  # fmt: skip
    CONSOLE.print(table)
    table = Table("joint [A]", "", "rms step of ln flux across", "usual step around it")
    for name, rows in report["galaxies"]["joints"].items():
        what = "error" if name == "our emulator" else "spectrum less the mean"
        for row in rows:
            table.add_row(
                f"{row['joint']:g}", f"{name}: {what}", f"{row['jump']:.1e}", f"{row['usual']:.1e}"
            )
    CONSOLE.print(table)


def main() -> None:
    """Run, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here as well")
    parser.add_argument("--seconds", type=float, default=2.0, help="to spend on each timing")
    options = parser.parse_args()
    prepare_process()
    rate, sets = matrix_rate(), published()
    report: dict[str, Any] = {
        "machine": machine() | {"numpy_threads": NUMPY_THREADS},
        "matrix_flop_per_s": rate,
        "published": {
            name: published_set(*part, rate, options.seconds) for name, part in sets.items()
        },
        "galaxies": galaxies(sets, rate, options.seconds),
    }
    show(report)
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
