"""Have the chains converged: rank-normalised split R-hat, bulk and tail effective sample sizes.

Those of Vehtari+ 2021 (arXiv:1903.08008), as in arviz, for many quantities at once.  In NumPy: on a
CPU its sorting is many times faster than that of compiled JAX, and nothing is compiled for every
new number of draws.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import fft, special

TAIL = 0.05
"""Quantile beyond which the tail begins, at either end."""

BLOCK = 64
"""Quantities that are looked at together; more would not fit in the caches."""


class Convergence(NamedTuple):
    """Rank-normalised split R-hat, bulk and tail effective sample sizes (Vehtari+ 2021).

    Of every coordinate, and of every monitored function of the parameters.
    """

    rhat: np.ndarray
    """[galaxy, quantity]."""
    ess_bulk: np.ndarray
    """[galaxy, quantity]."""
    ess_tail: np.ndarray
    """[galaxy, quantity]."""


def convergence(draws: np.ndarray) -> Convergence:
    """R-hat, bulk ESS and tail ESS of draws [galaxy, chain, draw, quantity], each
    [galaxy, quantity].

    A quantity with a draw that is not a number has none of them (NaN); one that never changes has
    no R-hat and no effective draws.
    """
    series = np.moveaxis(np.asarray(draws), -1, 1)
    shape = series.shape[:2]
    flat = series.reshape(-1, *series.shape[2:])
    blocks = [_of_block(flat[start : start + BLOCK]) for start in range(0, len(flat), BLOCK)]
    return Convergence(*(np.concatenate(x).reshape(shape) for x in zip(*blocks, strict=True)))


def _of_block(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of draws [series, chain, draw]."""
    half = x.shape[2] // 2
    x = np.concatenate([x[..., :half], x[..., half : 2 * half]], axis=1)
    pooled = x.reshape(len(x), -1)
    ordered = np.sort(pooled, axis=1)  # NaN comes last
    unknown = np.isnan(ordered[:, -1])
    normal = _rank_normalised(x)
    with np.errstate(invalid="ignore"):  # infinite draws, which have ranks
        folded = np.abs(x - _quantile(ordered, 0.5)[:, None, None])
    rhat = np.maximum(_split_rhat(normal), _split_rhat(_rank_normalised(folded)))
    low, high = (_quantile(ordered, q)[:, None, None] for q in (TAIL, 1 - TAIL))
    tails = np.minimum(_effective(x <= low), _effective(x <= high))
    return tuple(np.where(unknown, np.nan, found) for found in (rhat, _effective(normal), tails))


def _quantile(ordered: np.ndarray, q: float) -> np.ndarray:
    """[series] by linear interpolation in values [series, draw] that are sorted."""
    place = q * (ordered.shape[1] - 1)
    low, share = int(place), place - int(place)
    lower, upper = ordered[:, low], ordered[:, min(low + 1, ordered.shape[1] - 1)]
    with np.errstate(invalid="ignore"):  # both infinite
        return np.where(lower == upper, lower, lower + share * (upper - lower))


@lru_cache
def _scores(n: int) -> np.ndarray:
    """Normal scores of the ranks 1, 1.5, 2 ... n of n draws (Vehtari+ 2021, eq. 14)."""
    ranks = 0.5 * np.arange(2, 2 * n + 1)
    return special.ndtri((ranks - 0.375) / (n + 0.25))


def _rank_normalised(x: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks among all draws [series, chain, draw] of a series; draws that are
    equal share the mean of their ranks."""
    pooled = x.reshape(len(x), -1)
    n = pooled.shape[1]
    order = np.argsort(pooled, axis=1)
    ordered = np.take_along_axis(pooled, order, axis=1)
    place = np.arange(n)
    new = np.ones(ordered.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    ends = np.ones(ordered.shape, bool)
    ends[:, :-1] = new[:, 1:]
    last = np.minimum.accumulate(np.where(ends, place, n)[:, ::-1], axis=1)[:, ::-1]
    scores = np.empty(ordered.shape)
    np.put_along_axis(scores, order, _scores(n)[first + last], axis=1)
    return scores.reshape(x.shape)


def _split_rhat(x: np.ndarray) -> np.ndarray:
    """[series] root of the variance of all over that within the chains [series, chain, draw]."""
    n = x.shape[2]
    within = x.var(axis=2, ddof=1).mean(axis=1)
    between = x.mean(axis=2).var(axis=1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt((n - 1) / n + between / within)


def _effective(x: np.ndarray) -> np.ndarray:
    """[series] effective number of draws [series, chain, draw], by Geyer's initial monotone
    sequence of the autocorrelations of all chains together (Vehtari+ 2021, eq. 9 to 13)."""
    chains, n = x.shape[1:]
    x = x.astype(float)
    mean = x.mean(axis=2, keepdims=True)
    spectrum = fft.rfft(x - mean, fft.next_fast_len(2 * n, real=True), axis=2)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=1)
    covariance = fft.irfft(power, fft.next_fast_len(2 * n, real=True), axis=1)[:, :n] / n
    within = covariance[:, :1] * n / (n - 1)
    total = covariance[:, :1] + mean[..., 0].var(axis=1, ddof=1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = 1.0 - (within - covariance) / total
    rho[:, 0] = 1.0
    pairs = rho[:, : n - n % 2].reshape(len(x), -1, 2)
    sums = pairs.sum(axis=2)
    positive = np.logical_and.accumulate(sums > 0, axis=1)
    kept = np.where(positive, np.minimum.accumulate(sums, axis=1), 0.0).sum(axis=1)
    # the first lag that is left out counts alone, if it is positive
    count = positive.sum(axis=1)
    next_even = pairs[np.arange(len(x)), np.minimum(count, pairs.shape[1] - 1), 0]
    alone = np.where((count < pairs.shape[1]) & (next_even > 0), next_even, 0.0)
    time = np.maximum(-1.0 + 2.0 * kept + alone, 1.0 / np.log10(chains * n))
    return np.where(within[:, 0] > 0, chains * n / time, 0.0)
