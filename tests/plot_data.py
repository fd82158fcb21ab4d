"""A run with every kind of photometry, and an emulator with known errors, for the picture tests."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from fake_engine import FakeEngine, write_inputs

from jaxsed.catalog.results import Results
from jaxsed.catalog.run import fit_catalog

AGES = np.array([0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 8.0, 12.0])


class HistoryEngine(FakeEngine):
    """Draws of a PROVABGS-like posterior with a history; predictions near the observations."""

    def __call__(self, ids, observations, seeds):
        result = super().__call__(ids, observations, seeds)
        rngs = [np.random.default_rng([*words, 1]) for words in seeds]
        shape = (self.chains, self.draws)
        noise = np.stack([rng.normal(size=(*shape, 8)) for rng in rngs])
        mass = np.stack([rng.normal(10, 0.5) + 0.1 * rng.normal(size=shape) for rng in rngs])
        beta = np.exp(noise[..., :4])
        rate = 10.0 ** (mass[..., None] - 9.5) * np.exp(
            0.5 * noise[..., 4:5] - 0.5 * (np.log(AGES) - 0.5 * noise[..., 5:6]) ** 2 / 4
        )
        rate[..., -1] = 0.0  # before the beginning
        theta = {
            "log_mass_formed": mass,
            "beta": beta / beta.sum(-1, keepdims=True),
            "f_burst": 1 / (1 + np.exp(noise[..., 4])),
            "dust2": np.exp(0.4 * noise[..., 5] - 1),
        }
        derived = {
            **{k: v for k, v in result.derived.items() if k != "sfh"},
            "log_mass_surviving": mass - 0.2 + 0.02 * noise[..., 6],
            "log_sfr_100myr": mass - 9.8 + 0.3 * noise[..., 4],
            "a_v": 1.086 * theta["dust2"],
            "sfr": rate,
        }
        spread = np.array([0.95, 1.0, 1.06])[:, None]
        wobble = np.stack([rng.normal(1, 0.06, observations.flux.shape[1]) for rng in rngs])
        level = np.nanmedian(np.where(observations.flux > 0, observations.flux, np.nan), axis=1)
        usual = level[:, None] * np.array([0.3, 0.7, 1.0, 1.2, 1.3])
        good = (observations.kind == 1) & (observations.flux > 0)
        flux = np.where(good, observations.flux, usual)
        n = len(ids)
        rng = np.random.default_rng(3)
        return result._replace(
            theta=theta,
            derived=derived,
            goodness=dataclasses.replace(result.goodness, chi2=rng.chisquare(4, n)),
            diagnostics=dataclasses.replace(
                result.diagnostics,
                rhat_max=1 + 0.006 * rng.exponential(size=n),
                ess_bulk_min=rng.lognormal(6.8, 0.4, n),
                ess_tail_min=rng.lognormal(6.6, 0.4, n),
            ),
            predicted_flux=(flux * wobble)[:, None] * spread,
            per_galaxy={"sfh_age": np.tile(AGES, (n, 1))},
        )


def make_results(folder: Path, n: int = 12, *, draws: int = 400) -> Results:
    """A run of `n` galaxies: row 0 (id 101) has a limit, a negative flux and a missing band;
    row 2 (id 103) has no redshift, so was not fitted."""
    catalog, config = write_inputs(folder, n)
    text = config.read_text().replace("draws = 40", f"draws = {draws}")
    config.write_text(text + '[likelihood]\nupper_limits = "negative_error"\n')
    lines = [line.split(",") for line in catalog.read_text().splitlines()]
    first = lines[1]
    first[2], first[3] = str(-0.2 * float(first[2])), str(0.5 * float(first[2]))  # u: below zero
    first[5] = str(-float(first[4]))  # g: an upper limit
    first[10] = "nan"  # z: missing
    if n >= 3:
        lines[3][1] = "-1"
    catalog.write_text("\n".join(",".join(cells) for cells in lines) + "\n")
    return fit_catalog(
        config, catalog, folder / "run.h5", engine=HistoryEngine(draws=draws), progress=False
    )


def make_emulator(n_bands: int = 5, *, measured: bool = True):
    """An untrained emulator whose error summary comes from made-up errors."""
    from jaxsed.bands.filters import Filter
    from jaxsed.emulators import PhotometricEmulator
    from jaxsed.emulators.photometric.emulator import EmulatorRecord
    from jaxsed.emulators.validation.errors import ErrorSummary
    from jaxsed.nets import mlp

    centres = np.geomspace(45000.0, 3500.0, n_bands)  # reddest first: pictures sort
    curves = tuple(
        Filter("band", c * np.linspace(0.9, 1.1, 21), 1 - np.linspace(-1, 1, 21) ** 2)
        for c in centres
    )
    emulator = PhotometricEmulator.create(
        mlp.init(jax.random.key(0), (2, 8, n_bands)),
        (np.zeros(2), np.ones(2), np.zeros(n_bands)),
        (("dust2", "redshift"), tuple(f"band_{i}" for i in range(n_bands))),
        box=(np.zeros(2), np.ones(2)),
        mu_0=-6.0,
        record=EmulatorRecord(physics="provabgs", ssp="pegase2", curves=curves),
    )
    if not measured:
        return emulator
    rng = np.random.default_rng(0)
    common = rng.standard_t(4, size=(20000, 1))
    own = rng.standard_t(4, size=(20000, n_bands))
    mix = np.linspace(0.2, 0.9, n_bands)
    error = 0.004 * np.linspace(1, 4, n_bands) * (mix * common + np.sqrt(1 - mix**2) * own)
    return dataclasses.replace(emulator, error_ab=ErrorSummary.of(error))
