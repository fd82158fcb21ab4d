"""Composite spectra of jaxsed beside those of FSPS and DSPS, on the same simple populations.

Used by the tests and by ``benchmarks/physics/direct.py``. Everything here wants 64-bit arrays: call
it inside ``jax.enable_x64(True)``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed.sps.dust.attenuation import BIRTH_CLOUD_AGE_GYR, CharlotFall
from jaxsed.sps.populations import composite as populations
from jaxsed.sps.populations import sfh
from jaxsed.sps.ssp.grid import SSPGrid, load_ssp

FSPS_FILE = "fsps_reference/fsps_basel_padova2007_z0.0020_chabrier_ref.npz"
FSPS_LINES = "nebular/ZAU_ND_mist.lines.npz"
FINE_BINS = 4000


class Comparison(NamedTuple):
    """Two spectra on one wavelength axis."""

    wave: np.ndarray
    """[wave] Å."""
    ours: np.ndarray
    theirs: np.ndarray

    def worst(self, low: float, high: float, keep: np.ndarray | None = None) -> float:
        """Largest relative difference between two wavelengths in Å."""
        inside = (self.wave >= low) & (self.wave <= high)
        if keep is not None:
            inside &= keep
        return float(np.abs(self.ours / self.theirs - 1)[inside].max())

    def median(self, low: float, high: float) -> float:
        """Median relative difference between two wavelengths in Å."""
        inside = (self.wave >= low) & (self.wave <= high)
        return float(np.median((self.ours / self.theirs - 1)[inside]))


def history(formed: Callable, t_obs: float, axis: sfh.AgeAxis) -> sfh.IntervalMass:
    """Interval masses of a history, given the mass formed before a time (up to a factor)."""
    edges = np.concatenate([[0.0], np.geomspace(1e-5, 1.0, FINE_BINS)]) * t_obs
    mass = formed(t_obs - edges[:-1]) - formed(np.maximum(t_obs - edges[1:], 0.0))
    rate = mass / mass.sum() / np.diff(edges)
    return sfh.piecewise_constant(jnp.asarray(rate), jnp.asarray(edges), axis)


class FspsComparison(NamedTuple):
    """An exponentially declining history of FSPS, with dust, and ours."""

    spectrum: Comparison
    away_from_lines: np.ndarray
    """[wave] whether FSPS puts no emission line here: its composite has lines, the SSPs do not."""
    surviving: Comparison
    """Surviving mass against age (in place of wavelength), Gyr."""


def fsps(folder: Path) -> FspsComparison:
    """Our composite of the SSPs of FSPS beside the composite of FSPS itself, at its last age.

    tau = 2 Gyr, dust1 = 1, dust2 = 0.3, power laws of index -1 (birth clouds, 10 Myr) and -0.7.
    """
    file = np.load(folder / FSPS_FILE, allow_pickle=False)
    wave, log_age = file["wave_A"], file["log_age_yr"] - 9.0
    grid = SSPGrid(  # one metallicity, repeated
        log_z=np.array([-3.0, -2.0]),
        log_age=log_age,
        wave=wave,
        lnu=np.stack([file["ssp_lnu_lsun_hz"]] * 2),
        mass_surviving=np.stack([file["ssp_mass_alive"]] * 2),
    )
    stars = populations.populations(grid, birth_cloud_age=BIRTH_CLOUD_AGE_GYR)
    dust = CharlotFall.build(wave, diffuse="power_law")

    def part(t_obs):
        return history(lambda t: 1 - np.exp(-t / 2.0), t_obs, stars.axis)

    last = part(10.0 ** log_age[-1])
    young, old = stars.light(populations.Formation(last), jnp.full(stars.axis.age.shape, -2.5))
    young_seen, old_seen = dust(1.0, 0.3, -0.7)
    ours = np.asarray(young_seen * young + old_seen * old) * file["csp_mformed"][-1]
    lines = np.load(folder / FSPS_LINES, allow_pickle=False)["wave_A"]
    strong = file["csp_emlines_lsun"][-1] > 0.01 * file["csp_emlines_lsun"][-1].max()
    gap = np.abs(wave[:, None] / lines[strong] - 1).min(1)
    some = np.arange(40, log_age.size, 8)
    surviving = [
        float(sfh.node_mass(part(10.0 ** log_age[k])) @ stars.mass_surviving[0]) for k in some
    ]
    return FspsComparison(
        Comparison(wave, ours, file["csp_lnu_lsun_hz"][-1]),
        gap > 0.01,
        Comparison(
            10.0 ** log_age[some],
            np.array(surviving),
            file["csp_mass"][some] / file["csp_mformed"][some],
        ),
    )


class DspsCase(NamedTuple):
    """A galaxy for DSPS: delayed-tau history, one metallicity, and the populations."""

    stars: populations.Populations
    light: np.ndarray
    """[met, age, wave] Lsun/Hz per Msun formed."""
    log_age: np.ndarray
    """[age] log10 Gyr."""


T_OBS, TAU, LOG_Z = 13.0, 2.0, -2.05


def dsps_case() -> DspsCase:
    """The shipped populations, 1000 Å to 5 micron."""
    grid = load_ssp()
    wave = np.asarray(grid.wave)
    keep = np.flatnonzero((wave > 1000.0) & (wave < 5e4))
    lit = grid.replace(wave=wave[keep], lnu=np.asarray(grid.lnu)[..., keep])
    stars = populations.populations(lit)
    n_met, n_age, node = stars.log_z.size, stars.axis.age.size, stars.birth_cloud_node
    young = np.asarray(stars.young).reshape(n_met, node + 1, -1)
    old = np.asarray(stars.old).reshape(n_met, n_age - node, -1)
    light = np.concatenate([young[:, :node], old], 1)
    return DspsCase(stars, light, np.log10(np.asarray(stars.axis.age)))


def _tables():
    """Times (Gyr) and rates for DSPS: finely sampled at birth and just before observation."""
    recent = T_OBS - np.geomspace(1e-6, 1.0, 3000)
    time = np.append(np.sort(np.concatenate([np.linspace(0.01, 12.0, 3000), recent])), T_OBS)
    time = np.append(time, T_OBS + 0.01)
    return time, time * np.exp(-time / TAU)


def _ours(case: DspsCase, scatter: float, triweight: bool) -> np.ndarray:
    part = history(lambda t: -(1 + t / TAU) * np.exp(-t / TAU), T_OBS, case.stars.axis)
    if not triweight:
        stars = case.stars.replace(scatter=scatter)
        young, old = stars.light(populations.Formation(part), jnp.full(case.log_age.shape, LOG_Z))
        return np.asarray(young + old)
    # The metallicities of DSPS: (1 - (x / 3)^2)^3 in units of the scatter.
    x = np.linspace(-3.0, 3.0, 6001)
    share = (1 - (x / 3) ** 2) ** 3
    nodes = np.asarray(case.stars.log_z)
    hats = [np.interp(LOG_Z + scatter * x, nodes, row) for row in np.eye(nodes.size)]
    share = jnp.asarray(np.array(hats) @ share / share.sum())[:, None]
    young, old = sfh.split_at(part, case.stars.birth_cloud_node)
    spectrum = (share * young).ravel() @ case.stars.young + (share * old).ravel() @ case.stars.old
    return np.asarray(spectrum)


def _refined(nodes: np.ndarray, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes with others inserted between, and the matrix [fine, node] of linear interpolation."""
    fine = np.interp(np.arange((nodes.size - 1) * times + 1) / times, np.arange(nodes.size), nodes)
    return fine, np.stack([np.interp(fine, nodes, row) for row in np.eye(nodes.size)], 1)


def dsps_history(
    calc_weights: Callable,
    case: DspsCase,
    scatter: float,
    refine: int,
    triweight: bool = False,
) -> Comparison:
    """The same history and metallicity by both codes, DSPS's on a grid `refine` times finer.

    DSPS gives the mass of a bin around each node to that node, where jaxsed interpolates between
    nodes; inserting nodes by interpolation leaves our spectrum as it is and takes DSPS to the
    same limit. Its grid begins with a copy of the first population at 10 yr, since DSPS leaves
    out the stars below its first bin. The metallicities of DSPS scatter as a triweight, ours as
    a Gaussian of the same standard deviation; `triweight` gives ours the shape of DSPS.
    """
    log_age, to_age = _refined(np.concatenate([[-8.0], case.log_age]), refine)
    log_z, to_z = _refined(np.asarray(case.stars.log_z), refine)
    weights = calc_weights(*_tables(), LOG_Z, scatter, log_z, log_age, T_OBS).weights
    at_nodes = to_z.T @ np.asarray(weights) @ to_age
    at_nodes[:, 1] += at_nodes[:, 0]
    theirs = np.tensordot(at_nodes[:, 1:], case.light, 2)
    ours = _ours(case, scatter, triweight)
    return Comparison(np.asarray(case.stars.wave), ours, theirs)


def dsps_same_weights(calc_sed: Callable, case: DspsCase) -> Comparison:
    """The spectrum of DSPS and ours from the very weights that DSPS used."""
    time, rate = _tables()
    result = calc_sed(
        time, rate, LOG_Z, 0.2, np.asarray(case.stars.log_z), case.log_age, case.light, T_OBS
    )
    weights, node = np.asarray(result.weights), case.stars.birth_cloud_node
    # The node itself goes with the old stars.
    young = jnp.pad(jnp.asarray(weights[:, :node]), ((0, 0), (0, 1))).ravel()
    old = jnp.asarray(weights[:, node:]).ravel()
    spectrum = young @ case.stars.young + old @ case.stars.old
    seen = time <= T_OBS
    # DSPS starts the history from nothing 1 Myr after the beginning.
    time, rate = np.append(1e-3, time[seen]), np.append(0.0, rate[seen])
    mass = np.trapezoid(rate, time) * 1e9
    return Comparison(
        np.asarray(case.stars.wave), np.asarray(spectrum) * mass, np.asarray(result.rest_sed)
    )


def central_differences(function: Callable, points: np.ndarray) -> np.ndarray:
    """Jacobians [point, parameter, output] at `points` [point, parameter], to fourth order.

    Two step sizes and Richardson's extrapolation; `function` maps [parameter] to [output].
    """
    points = np.asarray(points)
    h = 1e-4 * np.maximum(np.abs(points), 0.05)
    unit = np.eye(points.shape[1])
    moved = np.concatenate([points[:, None] + s * h[:, None] * unit for s in (1, -1, 2, -2)], 1)
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(function)))(moved))
    up, down, far_up, far_down = np.split(values, 4, 1)
    return (8 * (up - down) - (far_up - far_down)) / (12 * h[:, :, None])
