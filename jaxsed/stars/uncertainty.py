"""Uncertainties of a trained network: a posterior of its last layer, and calibration."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxsed.core.types import Key
from jaxsed.learn.calibration import quantile_factor, robust_scatter
from jaxsed.stars import networks
from jaxsed.stars.batches import batch_of
from jaxsed.stars.data import Spectra, check_grid
from jaxsed.stars.model import DRAWS, StarModel
from jaxsed.stars.prediction import BATCH, with_bias


def with_laplace(
    model: StarModel, stars: Spectra, held: Spectra, *, prior: float = 1.0
) -> StarModel:
    """With Gaussian posteriors of the last layer's weights, all others being held.

    The precision of a label's weights is the sum over the stars that have it of a a^T / v, with a
    the layer's inputs and v the variance of the label, and the prior's (MacKay 1992; Kristiadi et
    al. 2020).  The predictions of the model returned draw no dropout masks.

    Args:
        model: a trained network or ensemble.
        stars: the labelled stars of its training.
        held: labelled stars held out of its training, which set its calibration anew.
        prior: standard deviation of the weights, in standardised units.

    Raises ValueError for stars on another grid or with other labels than the model's.
    """
    for some in (stars, held):
        _check_labels(model, some)
    run = jax.jit(jax.vmap(lambda member, x: networks.run(member, x), (None, 0)))
    found = []
    for member in model.members:
        precision: list[Any] = [0.0] * len(model.record.labels)
        for start in range(0, len(stars), BATCH):
            data = batch_of(stars.take(slice(start, start + BATCH)), model.scaling)
            outputs = run(member, jnp.asarray(data.x))
            weight = np.asarray(
                data.present / (jnp.exp(outputs.log_variance) + data.variance), float
            )
            for j, a in enumerate(outputs.last):
                b = np.asarray(with_bias(a), float)
                precision[j] = precision[j] + (b * weight[:, j, None]).T @ b
        covariances = [np.linalg.inv(p + np.eye(len(p)) / prior**2) for p in precision]
        found.append(tuple(jnp.asarray(c, jnp.float32) for c in covariances))
    return calibrated(dataclasses.replace(model, laplace=tuple(found)), jax.random.key(0), held)


def _check_labels(model: StarModel, stars: Spectra) -> None:
    check_grid(stars.wave, np.array(model.record.wave))
    if stars.labels is None or stars.names != model.record.labels:
        raise ValueError(
            f"expected stars with the model's labels {', '.join(model.record.labels)}, got "
            f"{', '.join(stars.names) or 'none'}"
        )


def calibrated(
    model: StarModel, key: Key, held: Spectra, *, draws: int = DRAWS
) -> StarModel:
    """With uncertainties that are right on average for stars held out of the training.

    The factor of a label is `jaxsed.learn.calibration.quantile_factor`.  The known part of what
    differs is the uncertainty of the labels, and for a factor of its own that of the flux, so that
    a prediction that propagates it does not count the noise twice, and one that does not leaves
    nothing out.  Fewer than 30 stars with a label leave the factor at 1.

    Args:
        model: a trained network or ensemble.
        key: random key of the dropout masks.
        held: labelled stars.
        draws: as the model will be asked to predict.

    Raises ValueError for stars on another grid or with other labels than the model's.
    """
    _check_labels(model, held)
    assert held.labels is not None and held.label_error is not None
    found = model.predict(key, held, draws=draws, flux_errors=True)
    difference = found.value - held.labels
    said = np.hypot(found.std_model, found.std_predictive)
    figures = {}
    for j, name in enumerate(model.record.labels):
        finite = difference[np.isfinite(difference[:, j]), j]
        figures[name] = [float(np.median(finite)), robust_scatter(finite)] if finite.size else []
    return dataclasses.replace(
        model,
        calibration=_factors(difference, said, held.label_error),
        calibration_flux=_factors(difference, said, np.hypot(held.label_error, found.std_flux)),
        record=dataclasses.replace(model.record, validation=figures),
    )


def _factors(difference: np.ndarray, said: np.ndarray, known: np.ndarray) -> Array:
    """[label] see `calibrated`; all [star, label]."""
    columns = zip(difference.T, said.T, known.T, strict=True)
    return jnp.asarray([quantile_factor(*column) for column in columns], jnp.float32)
