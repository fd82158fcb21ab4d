"""`jaxsed stars`: files of spectra in, models and tables out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from astropy.table import Table

from jaxsed import infer
from jaxsed import stars as st
from jaxsed.core.errors import user_errors
from jaxsed.core.keys import typed_key
from jaxsed.io.components import class_of
from jaxsed.io.outputs import check_table_path, check_writable, save_table
from jaxsed.learn import History
from jaxsed.stars import apogee, cannon
from jaxsed.stars.data import TEXT, Spectra, StarFlag, flag_text
from jaxsed.stars.model import StarModel
from jaxsed.stars.record import Labels
from jaxsed.workflows.progress import (
    checkpoint_of,
    counter,
    save_trained,
    summary_of_flags,
    summary_of_training,
)

STARTS = 4
"""Descents of a Cannon's fit."""

TOGETHER = 32
"""Stars whose labels a Cannon finds at once: their Jacobians by every pixel take the memory."""


def train_file(
    data: Path,
    output: Path,
    network: str,
    *,
    epochs: int = 100,
    members: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> list[str]:
    """Train on a file of labelled spectra and write the model; returns what to tell.

    A killed training goes on from its checkpoints beside the output.

    Raises JaxsedError for files that are not as expected.
    """
    check_writable(output)
    with user_errors():
        stars = st.read_spectra(data)
        if network == "cannon":
            st.fit_cannon(stars).save(output)
            return [f"fitted to {len(stars)} stars: {output}"]
        if network == "censored" and not stars.windows:
            stars = dataclasses.replace(stars, windows=_apogee_windows(stars))
        settings = st.StarSettings(members=members)
        settings = dataclasses.replace(
            settings, fit=dataclasses.replace(settings.fit, epochs=epochs)
        )
        found, histories = st.train(
            jax.random.key(seed), stars, network, settings=settings,
            checkpoint=checkpoint_of(output), progress=progress,
        )  # fmt: skip
    save_trained(found, output)
    return [*_report(found, histories), str(output)]


def _apogee_windows(stars: Spectra) -> dict[str, np.ndarray]:
    """Windows of the labels that are APOGEE's elements, if the grid is APOGEE's."""
    for release in (17, 12):
        wave = apogee.grid(release)
        if wave.shape == stars.wave.shape and np.allclose(wave, stars.wave, atol=0.02):
            known = apogee.windows(release)
            return {name: known[name] for name in stars.names if name in known}
    raise ValueError(
        "a censored network needs the windows of its elements: the file has no dataset windows "
        "(label, pixel), and its wavelengths are not APOGEE's, whose windows are shipped"
    )


def _report(found: StarModel, histories: Sequence[History]) -> list[str]:
    lines = summary_of_training(histories)
    for (name, figures), factor in zip(
        found.record.validation.items(), np.asarray(found.calibration), strict=True
    ):
        if figures:
            bias, scatter = figures
            lines.append(
                f"{name}: bias {bias:+.4g}, scatter {scatter:.4g} on stars kept apart; "
                f"uncertainties times {factor:.2f}"
            )
    return lines


def predict_file(
    path: Path,
    data: Path,
    table: Path,
    *,
    draws: int = 100,
    flux_errors: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> list[str]:
    """Predict the labels of a file of spectra and write a table; returns what to tell.

    The table has a row per spectrum: ``star`` (its row in the file), for each label ``<label>``,
    ``<label>_std_model``, ``<label>_std_predictive`` and ``<label>_std``, then ``distance``,
    ``flag`` and ``flag_text``.

    Raises JaxsedError for files that are not as expected.
    """
    check_table_path(table)
    with user_errors():
        stars = st.read_spectra(data)
        key = jax.random.key(seed)
        if class_of(path) is cannon.Cannon:
            fitted = cannon.Cannon.load(path)
            names, found = fitted.names, cannon_labels(key, fitted, stars)
        else:
            network = StarModel.load(path)
            names = network.record.labels
            found = network.predict(
                key, stars, draws=draws, flux_errors=flux_errors,
                progress=counter(progress, "spectra"),
            )  # fmt: skip
    save_table(labels_table(names, found), table)
    return summary_of_flags(found.flag, TEXT, "spectra", table)


def labels_table(names: Sequence[str], found: Labels) -> Table:
    """One row per spectrum; see `predict_file`."""
    table = Table({"star": np.arange(len(found.flag))})
    for j, name in enumerate(names):
        table[name] = found.value[:, j]
        for kind in ("std_model", "std_predictive", "std"):
            table[f"{name}_{kind}"] = getattr(found, kind)[:, j]
    table["distance"], table["flag"] = found.distance, found.flag
    table["flag_text"] = [flag_text(f) for f in found.flag]
    return table


def cannon_labels(key: jax.Array, fitted: cannon.Cannon, stars: Spectra) -> Labels:
    """The best labels of a Cannon and their Gaussian uncertainties: a quick look, no posterior.

    ``distance`` is the reduced chi-square; `Cannon.problem` and `jaxsed.sample` give posteriors.
    """
    problem = fitted.problem(stars)

    def one(key: jax.Array, problem: Any) -> tuple[Any, ...]:
        fit = infer.laplace(key, problem, starts=STARTS)
        at = problem.evaluate(fit.mean)
        slope = jax.jacfwd(lambda x: jnp.stack(tuple(problem.constrain(x))))(fit.mean)
        return jnp.stack(tuple(at.theta)), slope @ fit.scale, problem.chi2(at.prediction)

    @jax.jit
    def many(keys: jax.Array, problem: Any) -> tuple[Any, ...]:
        def star(row: Any) -> tuple[Any, ...]:
            key, prior, data = row
            return one(key, dataclasses.replace(problem, prior=prior, data=data))

        return jax.lax.map(star, (keys, problem.prior, problem.data), batch_size=TOGETHER)

    keys = jax.random.split(typed_key(key), len(stars))
    value, spread, chi2 = map(np.asarray, many(keys, problem))
    std = np.sqrt((spread**2).sum(axis=-1))
    used = np.isfinite(stars.flux).sum(axis=1)
    lost = (stars.flag & int(StarFlag.NO_PIXELS)) != 0
    broken = ~np.isfinite(value + std).all(axis=1)
    flag = stars.flag | np.where(broken, int(StarFlag.NUMERICAL_FAILURE), 0)
    blank = (lost | broken)[:, None]
    value, std = np.where(blank, np.nan, value), np.where(blank, np.nan, std)
    none = np.zeros_like(std)
    return Labels(value, std, none, none, std, chi2 / np.maximum(used - len(fitted.names), 1), flag)


def read_files(
    paths: Sequence[Path], output: Path, *, release: int = 17, visits: bool = False
) -> str:
    """Put the spectra of APOGEE files into one HDF5 file; returns what to tell.

    Raises JaxsedError for a file that is not as expected; the message names it.
    """
    with user_errors():
        found = [apogee.read_apogee(path, release=release, visits=visits) for path in paths]
    names = [str(p) for p, s in zip(paths, found, strict=True) for _ in range(len(s))]
    joined = dataclasses.replace(
        found[0],
        flux=np.concatenate([s.flux for s in found]),
        error=np.concatenate([s.error for s in found]),
        flag=np.concatenate([s.flag for s in found]),
    )
    st.write_spectra(output, joined, names)
    return f"{len(joined)} spectra of {len(paths)} files: {output}"
