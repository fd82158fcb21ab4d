"""Stars as a network is trained on them: standardised, with a mark where a label is missing."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxsed.core.types import Numbers
from jaxsed.stars.data import Spectra
from jaxsed.stars.record import Scaling


class Batch(NamedTuple):
    """Standardised stars [star, ..]."""

    x: Numbers
    """[star, pixel]."""
    y: Numbers
    """[star, label]; zero where missing."""
    variance: Numbers
    """[star, label] known variance of the label."""
    present: Any
    """[star, label] one, or zero where the label is missing."""


def scaling_of(stars: Spectra) -> Scaling:
    """Means and standard deviations of a training; a pixel that no star has gets a mean of one.

    Raises ValueError for a label with the same value in all stars.
    """
    assert stars.labels is not None
    seen = np.isfinite(stars.flux)
    count = seen.sum(axis=0)
    total = np.where(seen, stars.flux, 0.0).sum(axis=0, dtype=float)
    mean, std = np.nanmean(stars.labels, axis=0), np.nanstd(stars.labels, axis=0)
    flat = [n for n, s in zip(stars.names, std, strict=True) if not s > 0]
    if flat:
        raise ValueError(f"all stars have the same {', '.join(flat)}: leave the label out")
    spectrum = np.where(count > 0, total / np.maximum(count, 1), 1.0)
    return Scaling(*(jnp.asarray(a, jnp.float32) for a in (spectrum, mean, std)))


def batch_of(stars: Spectra, scaling: Scaling) -> Batch:
    """Standardised stars; one star whose labels are all missing has no part in the loss."""
    spectrum, mean, std = (np.asarray(a) for a in (scaling.spectrum, scaling.mean, scaling.std))
    assert stars.labels is not None and stars.label_error is not None
    present = np.isfinite(stars.labels)
    return Batch(
        x=np.nan_to_num(stars.flux - spectrum),
        y=np.where(present, (stars.labels - mean) / std, 0.0).astype(np.float32),
        variance=((stars.label_error / std) ** 2).astype(np.float32),
        present=present.astype(np.float32),
    )
