"""`jaxsed calibrate`: are a flow's posteriors of galaxies that it never saw right?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed import infer
from jaxsed.core.diagnostics import ESS_MIN
from jaxsed.core.types import Key, PyTree
from jaxsed.emulators import load_emulator, measured_sigma
from jaxsed.infer import amortised as am
from jaxsed.infer.amortised import Amortised
from jaxsed.infer.amortised.importance import KHAT_MAX
from jaxsed.infer.amortised.method import weighted_batch
from jaxsed.infer.amortised.simulator import Simulator
from jaxsed.infer.schedule.devices import place, place_problem
from jaxsed.io import files
from jaxsed.likelihood import Photometry
from jaxsed.problem import Problem, take
from jaxsed.workflows import checks

BLOCK = 64
"""Galaxies per compiled call."""

KEEP = 99
"""Draws that a truth is ranked among: they must be independent, and of weighted ones few are."""


BINS = 20
"""Of the test of the ranks, or fewer where they would hold fewer than `PER_BIN` galaxies."""

PER_BIN = 6

KINDS = ("flow", "flow+is", "hmc")
"""Of draws that are judged."""


def simulator_of(
    flow: Amortised,
    missing: float | None = None,
    prior: Callable[[Any], Any] | None = None,
) -> Simulator:
    """The simulator that a flow was trained with, or with another chance of missing bands, or
    another prior.

    Raises ValueError for an emulator that is not there, or whose error was not measured.
    """
    record = flow.record
    emulator = load_emulator(record.emulator).select(record.bands)
    return Simulator(
        forward=emulator, noise=flow.noise,
        emulator_sigma=jnp.asarray(measured_sigma(emulator), float),
        redshift=jnp.asarray(record.redshift), magnitudes=jnp.asarray(record.magnitudes),
        prior=prior or flow.prior, model=record.model, emulator=record.emulator,
        bands=record.bands, anchor=record.bands.index(record.anchor),
        error_floor=record.error_floor, missing=record.missing if missing is None else missing,
        free_redshift=flow.context.free_redshift,
    )  # fmt: skip


def mocks_of(key: Key, simulator: Simulator, n: int) -> tuple[np.ndarray, Problem]:
    """Coordinates [n, dimension] and problems of simulated galaxies."""
    x, data, prior = am.simulate(key, simulator, n, _whole)
    return x, Problem(prior, simulator.forward, Photometry(*data))


def _whole(x: Array, problem: Problem) -> tuple[Any, ...]:
    data: Any = problem.data
    parts = (data.scaled, data.inverse_sigma, data.limit, data.limit_inverse_sigma)
    return x, parts, problem.prior


def calibrate(
    flow: Amortised,
    *,
    mocks: int = 1000,
    draws: int = 2048,
    seed: int = 1,
    missing: float | None = None,
    prior: Callable[[Any], Any] | None = None,
    mcmc: int = 0,
) -> dict[str, Any]:
    """Ranks, p-p curves and expected coverage of mock galaxies, of the flow's draws as they are and
    by importance weights.

    Args:
        flow: the amortised posterior.
        mocks: number of galaxies.
        draws: of the flow for each.
        seed: of mocks and draws; a training has others.
        missing: chance that a band is missing, if not that of the training.
        prior: ``prior(redshift)`` of the mocks and posteriors, if not that of the training; "flow"
            then is the flow carried to the coordinates of this prior, without its density.
        mcmc: the first so many mocks are sampled by HMC as well.

    Returns:
        For "flow", "flow+is" and, where asked for, "hmc": `sbc_pvalue`, `pp_deviation`,
        `local_pvalue` (whether ranks depend on the data) and `bias` (mean shift of the truth in
        posterior widths) per parameter, `tarp_max_error`, `pp_max_deviation`, and the `ranks`; of
        the weights the `khat`, `effective` numbers, and the share of galaxies `accepted`.
    """
    simulator = simulator_of(flow, missing, prior)
    key_mocks, key_draws, key_chains = jax.random.split(jax.random.key(seed), 3)
    truth, problem = mocks_of(key_mocks, simulator, mocks)
    flow = flow.suited(problem)

    @jax.jit
    def thetas(keys: Key, truth: Array, x: Array, problem: Problem) -> PyTree:
        def one(key: Key, truth: Array, x: Array, problem: Problem) -> PyTree:
            raw, _ = flow.sample(key, problem, KEEP)
            return [jax.vmap(problem.constrain)(x)._asdict() for x in (truth[None], raw, x)]

        return jax.vmap(one, (0, 0, 0, problem.axes))(keys, truth, x, problem)

    parts = []
    for start in range(0, mocks, BLOCK):
        rows = np.minimum(np.arange(start, start + BLOCK), mocks - 1)
        some = place_problem(take(problem, rows))
        keys = jax.random.split(jax.random.fold_in(key_draws, start), (2, BLOCK))
        found = weighted_batch(place(keys[0]), some, flow, n=draws, keep=KEEP)
        theta = thetas(keys[1], jnp.asarray(truth[rows]), found.x, some)
        out = (theta, found.khat, found.effective, found.outside)
        parts.append(jax.tree.map(np.asarray, out))
    (true, raw, exact), khat, effective, outside = jax.tree.map(
        lambda *a: np.concatenate(a)[:mocks], *parts
    )
    accepted = (outside == 0) & (khat < KHAT_MAX) & (effective >= ESS_MIN)
    features = np.asarray(jax.jit(jax.vmap(flow.context, (problem.axes,)))(problem))
    figures = {
        "flow": _figures(true, raw, features),
        "flow+is": _figures(true, exact, features, accepted),
    }
    if mcmc:
        few = np.arange(min(mcmc, mocks))
        samples = infer.sample(jax.random.split(key_chains, few.size), take(problem, few))
        figures["hmc"] = _figures(
            {name: value[few] for name, value in true.items()},
            {name: _thinned(value) for name, value in samples.theta._asdict().items()},
            features[few],
            samples.diagnostics.passes(),
        )
    return {
        **figures,
        "khat": khat, "effective": effective, "outside": outside,
        "accepted": float(accepted.mean()), "draws": draws, "mocks": mocks,
    }  # fmt: skip


def _thinned(draws: np.ndarray) -> np.ndarray:
    """[galaxy, KEEP, ...] of draws [galaxy, chain, draw, ...], far enough apart to be independent;
    of a known number [galaxy] copies."""
    if draws.ndim == 1:
        return np.repeat(draws[:, None], KEEP, axis=1)
    flat = np.reshape(draws, (len(draws), -1, *draws.shape[3:]))
    return flat[:, np.linspace(0, flat.shape[1] - 1, KEEP).round().astype(int)]


def _figures(
    true: Any, draws: PyTree, features: np.ndarray, rows: np.ndarray | None = None
) -> dict[str, Any]:
    """Figures of one set of draws; over some galaxies only, which may bias them."""
    rows = np.ones(len(next(iter(true.values()))), bool) if rows is None else rows
    names, truths, all_draws = [], [], []
    found = dict(_named(draws))
    for name, value in _named(true):
        drawn = found[name]
        if np.ptp(drawn) > 0 and np.ptp(drawn, axis=1).max() > 0:
            names.append(name)
            truths.append(value[rows, 0])
            all_draws.append(drawn[rows])
    out: dict[str, Any] = {"galaxies": int(rows.sum()), "ranks": {}}
    out |= {"sbc_pvalue": {}, "pp_deviation": {}, "bias": {}, "local_pvalue": {}}
    enough = rows.sum() >= 10 * features.shape[1]
    for name, value, drawn in zip(names, truths, all_draws, strict=True):
        ranks = checks.rank_statistics(value, drawn)
        out["ranks"][name] = ranks
        bins = min(BINS, len(ranks) // PER_BIN)
        out["sbc_pvalue"][name] = (
            checks.rank_pvalue(ranks, drawn.shape[1], bins) if bins > 1 else float("nan")
        )
        out["pp_deviation"][name] = checks.pp_deviation(ranks, drawn.shape[1])
        if enough:
            out["local_pvalue"][name] = checks.local_pvalue(ranks, drawn.shape[1], features[rows])
        width = np.maximum(drawn.std(axis=1), 1e-12)
        out["bias"][name] = float(np.median((drawn.mean(axis=1) - value) / width))
    level, coverage = checks.expected_coverage(np.stack(truths, 1), np.stack(all_draws, 2))
    out["tarp_max_error"] = float(np.abs(coverage - level).max())
    out["pp_max_deviation"] = max(out["pp_deviation"].values())
    return out


def _named(theta: dict[str, Any]) -> list[tuple[str, np.ndarray]]:
    """(name, [galaxy, draw]) of every scalar, elements of vectors apart."""
    out = []
    for name, value in theta.items():
        value = np.asarray(value)
        if value.ndim == 2:
            out.append((name, value))
        elif value.ndim == 3:
            out += [(f"{name}_{k + 1}", value[..., k]) for k in range(value.shape[2])]
    return out


def write(found: dict[str, Any], folder: Path) -> None:
    """Write `calibration.json` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {"accepted": found["accepted"], "mocks": found["mocks"]}
    for quantile in (0.05, 0.5, 0.95):
        kept[f"ess_fraction_{quantile:g}"] = float(
            np.quantile(found["effective"] / found["draws"], quantile)
        )
    kept["khat_below_bar"] = float(np.mean(found["khat"] < KHAT_MAX))
    for name in [n for n in KINDS if n in found]:
        figures = found[name]
        kept[name] = {k: v for k, v in figures.items() if k != "ranks"}
    # Those of the posteriors as they are used.
    kept |= {k: kept["flow+is"][k] for k in ("sbc_pvalue", "tarp_max_error", "pp_max_deviation")}
    files.write_text(folder / "calibration.json", json.dumps(kept, indent=1))
