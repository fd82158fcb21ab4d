"""The Cannon (Ness et al. 2015): a spectrum as a quadratic function of labels, pixel by pixel."""

from __future__ import annotations

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from jaxsed import params
from jaxsed.core.compiled import compiled
from jaxsed.core.types import Numbers, Prior, Theta
from jaxsed.io.components import AS_ARRAY, Component
from jaxsed.io.files import check_shapes
from jaxsed.likelihood import photometry
from jaxsed.problem import Problem
from jaxsed.stars.data import Spectra, check_grid

ROUNDS = 20
"""Of fitting coefficients and scatter in turn; pixels settle in a few."""

PIXELS = 256
"""Fitted together."""


@struct.dataclass
class Cannon(Component, kind="cannon model"):
    """``model(theta) -> flux`` [pixel] of one star; theta has one field per label.

    flux_p = sum_i c_pi f_i(l), where f are 1, the labels and their products, each label less its
    mean and over its standard deviation (Ness et al. 2015, eqs. 2-4).
    """

    coefficients: Annotated[Array, "pixel feature"]
    scatter: Annotated[Array, "pixel"]
    """What the model does not describe, a standard deviation."""
    mean: Annotated[Array, "label"]
    std: Annotated[Array, "label"]
    names: Annotated[tuple[str, ...], "label"] = struct.field(pytree_node=False)
    wave: Annotated[tuple[float, ...], AS_ARRAY, "pixel"] = struct.field(pytree_node=False)

    @compiled
    def __call__(self, theta: Theta) -> Array:
        """[pixel] continuum-normalised flux."""
        scaled = (jnp.stack(tuple(theta)) - self.mean) / self.std
        return self.coefficients @ features(scaled)

    def theta(self, labels: Numbers) -> Theta:
        """A named tuple of labels [.., label]."""
        return params.theta_type("Labels", self.names)(*jnp.moveaxis(jnp.asarray(labels), -1, 0))

    def prior(self, width: float = 1.0) -> Prior:
        """Normal distributions of the labels of the training, or `width` times as wide: that the
        stars are like those of the training helps where few pixels know a label."""
        leaves = (
            params.distribution("normal", float(m), width * float(s))
            for m, s in zip(self.mean, self.std, strict=True)
        )
        return params.theta_type("Labels", self.names)(*leaves)

    def problem(self, stars: Spectra, prior: Prior = None) -> Problem:
        """The posteriors of the stars' labels: a batch for `jaxsed.sample`.

        A pixel's variance is that of the data and of the model's scatter; unusable pixels are left
        out.  `prior` is a theta of distributions, by default that of `Cannon.prior`.

        Raises ValueError for another wavelength grid.
        """
        check_grid(stars.wave, np.array(self.wave))
        n = len(stars)
        good = np.isfinite(stars.flux)
        data = photometry(
            np.nan_to_num(stars.flux),
            np.hypot(np.nan_to_num(stars.error, nan=1.0), np.asarray(self.scatter)),
            good.astype(int),
            error_floor=0.0,
        )
        many = jax.tree.map(
            lambda a: jnp.broadcast_to(jnp.asarray(a, float), (n, *jnp.shape(a))),
            self.prior() if prior is None else prior,
        )
        return Problem(many, self, data)

    def _after_loading(self) -> Cannon:
        k = len(self.names)
        check_shapes(vars(self), {"coefficients": (len(self.wave), 1 + k + k * (k + 1) // 2)})
        return self


def features(scaled: Array) -> Array:
    """[feature] 1, the labels [label], and their products of two."""
    i, j = np.triu_indices(scaled.shape[-1])
    return jnp.concatenate([jnp.ones_like(scaled[:1]), scaled, scaled[i] * scaled[j]])


def fit_cannon(stars: Spectra) -> Cannon:
    """Coefficients and scatter of every pixel from labelled stars, by weighted least squares.

    Only stars with all labels count.  The scatter is that which makes the squared residuals of a
    pixel what its variances say, found in turn with the coefficients.

    Raises ValueError for fewer than twice as many stars as features.
    """
    if stars.labels is None:
        raise ValueError("the stars have no labels to learn from")
    stars = stars.take(np.flatnonzero(np.isfinite(stars.labels).all(axis=1)))
    assert stars.labels is not None
    k = len(stars.names)
    count = 1 + k + k * (k + 1) // 2
    if len(stars) < 2 * count:
        raise ValueError(
            f"{k} labels make {count} coefficients per pixel, which {len(stars)} stars with all "
            f"labels cannot tell: expected at least {2 * count}, or fewer labels"
        )
    mean, std = stars.labels.mean(axis=0), stars.labels.std(axis=0)
    design = np.asarray(jax.vmap(features)(jnp.asarray((stars.labels - mean) / std)), float)
    good = np.isfinite(stars.flux)
    flux = np.where(good, stars.flux, 0.0).astype(float)
    variance = np.where(good, stars.error, 1.0).astype(float) ** 2
    coefficients, scatter = [], []
    for start in range(0, stars.wave.size, PIXELS):
        part = slice(start, start + PIXELS)
        c, s = _fit_pixels(design, flux[:, part].T, variance[:, part].T, good[:, part].T)
        coefficients.append(c)
        scatter.append(s)
    as_32 = lambda a: jnp.asarray(a, jnp.float32)  # noqa: E731
    return Cannon(
        as_32(np.concatenate(coefficients)), as_32(np.concatenate(scatter)), as_32(mean),
        as_32(std), stars.names, tuple(stars.wave.tolist()),
    )  # fmt: skip


def _fit_pixels(
    design: np.ndarray, flux: np.ndarray, variance: np.ndarray, good: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [pixel, feature] and scatter [pixel] from [pixel, star] arrays."""
    scatter2 = np.zeros(len(flux))
    ridge = 1e-9 * np.eye(design.shape[1])
    for _ in range(ROUNDS):
        weight = good / (variance + scatter2[:, None])
        weighted = weight[:, :, None] * design
        normal = np.einsum("pni,nj->pij", weighted, design)
        normal += ridge * np.trace(normal, axis1=1, axis2=2)[:, None, None]
        right = np.einsum("pni,pn->pi", weighted, flux)
        c = np.linalg.solve(normal, right[..., None])[..., 0]
        residual2 = (flux - c @ design.T) ** 2
        excess = np.sum(weight**2 * (residual2 - variance), axis=1)
        scatter2 = np.maximum(excess / np.maximum(np.sum(weight**2, axis=1), 1e-30), 0.0)
    return c, np.sqrt(scatter2)
