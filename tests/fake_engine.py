"""A catalogue, its configuration and an engine that answers at once, for the catalogue tests."""

from pathlib import Path

import numpy as np

from jaxsed.catalog.chunk import ChunkResult
from jaxsed.core.diagnostics import Diagnostics, Goodness

BANDS = ("u", "g", "r", "i", "z")

CONFIG = """
[catalog]
id = "ID"
redshift = "z"
flux_unit = "nanomaggies"
missing_error_below = -90.0
[sampler]
batch = 4
[output]
draws = 40
""" + "".join(
    f'[[band]]\nflux = "{b}_flux"\nerror = "{b}_err"\nfilter = "curves/{b}.dat"\n' for b in BANDS
)


def write_inputs(folder: Path, n: int = 10) -> tuple[Path, Path]:
    """A catalogue of `n` galaxies (CSV), five curves and a configuration; returns two paths."""
    (folder / "curves").mkdir(parents=True, exist_ok=True)
    for i, band in enumerate(BANDS):
        wave = np.linspace(3000.0 + 1000 * i, 4000.0 + 1000 * i, 21)
        trans = np.clip(1 - np.abs(wave - wave.mean()) / 450, 0, None)
        np.savetxt(folder / "curves" / f"{band}.dat", np.c_[wave, trans])
    rng = np.random.default_rng(1)
    brightness = rng.lognormal(2.0, 1.5, size=(n, 1))
    flux = brightness * np.array([0.3, 0.7, 1.0, 1.2, 1.3])
    columns = {"ID": np.arange(101, 101 + n), "z": rng.uniform(0.05, 0.5, n).round(4)}
    for i, band in enumerate(BANDS):
        columns[f"{band}_flux"] = flux[:, i].round(5)
        columns[f"{band}_err"] = (0.05 * flux[:, i]).round(6)
    lines = [",".join(columns)]
    lines += [",".join(str(values[k]) for values in columns.values()) for k in range(n)]
    catalog = folder / "catalog.csv"
    catalog.write_text("\n".join(lines) + "\n")
    config = folder / "config.toml"
    config.write_text(CONFIG)
    return catalog, config


class FakeEngine:
    """Draws that depend on a galaxy's seed words only; remembers the ids it was given."""

    def __init__(self, *, stop_after=None, broken=(), checksum="abc", chains=2, draws=50):
        self.provenance = {"predictor": "fake", "emulator_checksum": checksum, "width": 7}
        self.stop_after, self.broken = stop_after, set(broken)
        self.chains, self.draws = chains, draws
        self.calls: list[list[str]] = []

    def __call__(self, ids, observations, seeds):
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(list(ids))
        n, shape = len(ids), (self.chains, self.draws)
        rngs = [np.random.default_rng(words) for words in seeds]
        normal = np.stack([rng.normal(size=(*shape, 9)) for rng in rngs])
        for i, name in enumerate(ids):
            if name in self.broken:
                normal[i] = np.nan
        theta = {"log_mass_formed": 10 + normal[..., 0], "beta": np.exp(normal[..., 1:5])}
        derived = {
            "log_mass_surviving": 9.8 + normal[..., 0],
            "log_sfr_100myr": normal[..., 5],
            "log_sfr_1gyr": normal[..., 5],
            "log_z_mw": normal[..., 6],
            "t_age_mw": 5 + 0.1 * normal[..., 7],
            "a_v": np.exp(normal[..., 8]),
            "t50": 3 + 0 * normal[..., 8],
            "sfh": np.exp(normal[..., :3]),
        }
        ones = np.ones(n)
        return ChunkResult(
            theta=theta,
            derived=derived,
            log_density=-0.5 * (normal**2).sum(-1),
            goodness=Goodness(
                chi2=observations.n_bands * ones,
                n_bands=observations.n_bands,
                n_detected=observations.n_bands,
            ),
            diagnostics=Diagnostics(
                rhat_max=1.001 * ones,
                ess_bulk_min=900 * ones,
                ess_tail_min=800 * ones,
                divergences=np.zeros(n, int),
                unique_fraction=ones,
                log_evidence=np.full(n, np.nan),
                log_evidence_error=np.full(n, np.nan),
                khat=np.full(n, np.nan),
                importance_ess=np.full(n, np.nan),
                support=[""] * n,
                method=["fake"] * n,
                run=np.zeros(n, int),
                gradients=np.zeros(n, int),
                evaluations=np.zeros(n, int),
            ),
            flag=np.zeros(n, int),
            predicted_flux=np.repeat(observations.flux[:, None], 3, axis=1),
            per_galaxy={"sfh_age": np.tile([0.1, 1.0, 5.0], (n, 1))},
        )
