"""Small spectra of stars with known labels, for the tests of networks and the Cannon."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsed import stars as st
from jaxsed.learn import FitSettings
from jaxsed.stars import cannon, networks

LABELS = ("teff", "logg", "fe", "Mg", "Al")
PIXELS = 60
SMALL = networks.Architecture(
    filters=(2, 3), taps=4, pool=2, dense=(12, 8), dropout=0.2, scale=None, branch=(6, 4),
    wide_branch=(8, 5), wide=15,
)  # fmt: skip


def windows():
    """Of magnesium (narrow) and aluminium (wide)."""
    mg, al = np.zeros(PIXELS), np.zeros(PIXELS)
    mg[[4, 5, 6, 30]] = 1
    al[40:58] = 1
    return {"Mg": mg, "Al": al}


def synthetic(n, seed=0, noise=0.01, missing=0.0):
    """Spectra linear in the labels; abundances act in their windows alone."""
    generator = np.random.default_rng(seed)
    scaled = generator.normal(size=(n, 5))
    slope = np.random.default_rng(99).normal(scale=0.03, size=(5, PIXELS))
    for row, window in ((3, windows()["Mg"]), (4, windows()["Al"])):
        slope[row] *= window
    flux = 1 - 0.2 * np.abs(np.sin(np.arange(PIXELS))) + scaled @ slope
    error = np.full_like(flux, noise)
    labels = np.array([4800.0, 2.5, -0.2, 0.1, 0.0]) + scaled * [300, 0.6, 0.3, 0.2, 0.2]
    labels[generator.random(labels.shape) < missing] = -9999.0
    wave = 15000 + 0.3 * np.arange(PIXELS)
    return st.spectra(
        wave, flux + noise * generator.normal(size=flux.shape), error, names=LABELS,
        labels=labels, label_error=np.full_like(labels, 1e-3), windows=windows(),
    )  # fmt: skip


def settings(**changes):
    """A quick training of a small network."""
    schedule = FitSettings(
        optimizer="adam", learning_rates=(5e-3, 1e-3), batch_size=32, epochs=30, patience=30
    )
    return st.StarSettings(architecture=SMALL, fit=schedule, **changes)


@functools.cache
def trained_network():
    """A censored network, trained once for all tests."""
    found, _ = st.train(
        jax.random.key(0), synthetic(700, missing=0.1), "censored", settings=settings(),
        progress=False,
    )  # fmt: skip
    return found


def quadratic(n, seed=0, noise=0.005, scatter=0.0):
    """Spectra quadratic in two labels, as a Cannon has them."""
    generator = np.random.default_rng(seed)
    scaled = generator.normal(size=(n, 2))
    c = np.random.default_rng(7).normal(scale=0.05, size=(PIXELS, 6))
    c[:, 0] = 1
    flux = np.asarray(jax.vmap(cannon.features)(jnp.asarray(scaled))) @ c.T
    flux += np.hypot(noise, scatter) * generator.normal(size=flux.shape)
    labels = scaled * [250, 0.5] + [4700, 2.0]
    return st.spectra(
        15000.0 + np.arange(PIXELS), flux, np.full_like(flux, noise), names=("teff", "logg"),
        labels=labels,
    )  # fmt: skip
