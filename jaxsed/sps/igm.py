"""Mean absorption by the intergalactic medium: Inoue+ 2014 (the default) and Madau 1995.

Wavelengths are in the rest frame of the galaxy, because that is the grid of the models; an
absorber at redshift z' on the way acts at the observed wavelength ``wave (1 + z)``.  Both papers
give a mean over sightlines.  Three points on which they say nothing, or nothing smooth:

- Lyman lines.  Just redwards of a line's own wavelength in the observed frame the absorber is in
  the local Universe; there the published depth starts with a jump (0.017 in Lyman alpha).  It is
  raised over the first 2 % in observed wavelength instead, so that the transmission is smooth in
  redshift and goes to 1 as z -> 0.
- Lyman continuum at observed wavelengths below 912 Angstrom.  The published formulae integrate
  over absorbers from ``wave_obs / 912 - 1`` on; here from z' = 0 on, if that is more.
- The mean depth of Inoue+ has kinks in redshift where the counts of absorbers change slope (1.2,
  2.0 and 4.7).  ``IGMTable`` smooths them over one node.

``transmission`` is the formula itself (39 lines per wavelength).  ``IGMTable`` is the same
tabulated on the grid of a model: a hundred times cheaper, continuously differentiable in redshift,
and within 3e-4 of the formula in transmission at the default spacing (rms 5e-6, z <= 12).
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.typing import ArrayLike

from jaxsed.core.compiled import compiled
from jaxsed.core.constants import LYMAN_ALPHA, LYMAN_LIMIT
from jaxsed.core.types import Numbers

# Inoue, Shimizu, Iwata & Tanaka 2014 (MNRAS 442, 1805), table 2: wavelength of the line
# [Angstrom]; A of the Lyman alpha forest in its three redshift ranges; A of the damped systems in
# their two.  From Lyman alpha up the series.
_INOUE_LINES = (
    (1215.67, 1.68976e-02, 2.35379e-03, 1.02611e-04, 1.61698e-04, 5.38995e-05),
    (1025.72, 4.69229e-03, 6.53625e-04, 2.84940e-05, 1.54539e-04, 5.15129e-05),
    (972.537, 2.23898e-03, 3.11884e-04, 1.35962e-05, 1.49767e-04, 4.99222e-05),
    (949.743, 1.31901e-03, 1.83735e-04, 8.00974e-06, 1.46031e-04, 4.86769e-05),
    (937.803, 8.70656e-04, 1.21280e-04, 5.28707e-06, 1.42893e-04, 4.76312e-05),
    (930.748, 6.17843e-04, 8.60640e-05, 3.75186e-06, 1.40159e-04, 4.67196e-05),
    (926.226, 4.60924e-04, 6.42055e-05, 2.79897e-06, 1.37714e-04, 4.59048e-05),
    (923.15, 3.56887e-04, 4.97135e-05, 2.16720e-06, 1.35495e-04, 4.51650e-05),
    (920.963, 2.84278e-04, 3.95992e-05, 1.72628e-06, 1.33452e-04, 4.44841e-05),
    (919.352, 2.31771e-04, 3.22851e-05, 1.40743e-06, 1.31561e-04, 4.38536e-05),
    (918.129, 1.92348e-04, 2.67936e-05, 1.16804e-06, 1.29785e-04, 4.32617e-05),
    (917.181, 1.62155e-04, 2.25878e-05, 9.84689e-07, 1.28117e-04, 4.27056e-05),
    (916.429, 1.38498e-04, 1.92925e-05, 8.41033e-07, 1.26540e-04, 4.21799e-05),
    (915.824, 1.19611e-04, 1.66615e-05, 7.26340e-07, 1.25041e-04, 4.16804e-05),
    (915.329, 1.04314e-04, 1.45306e-05, 6.33446e-07, 1.23614e-04, 4.12046e-05),
    (914.919, 9.17397e-05, 1.27791e-05, 5.57091e-07, 1.22248e-04, 4.07494e-05),
    (914.576, 8.12784e-05, 1.13219e-05, 4.93564e-07, 1.20938e-04, 4.03127e-05),
    (914.286, 7.25069e-05, 1.01000e-05, 4.40299e-07, 1.19681e-04, 3.98938e-05),
    (914.039, 6.50549e-05, 9.06198e-06, 3.95047e-07, 1.18469e-04, 3.94896e-05),
    (913.826, 5.86816e-05, 8.17421e-06, 3.56345e-07, 1.17298e-04, 3.90995e-05),
    (913.641, 5.31918e-05, 7.40949e-06, 3.23008e-07, 1.16167e-04, 3.87225e-05),
    (913.48, 4.84261e-05, 6.74563e-06, 2.94068e-07, 1.15071e-04, 3.83572e-05),
    (913.339, 4.42740e-05, 6.16726e-06, 2.68854e-07, 1.14011e-04, 3.80037e-05),
    (913.215, 4.06311e-05, 5.65981e-06, 2.46733e-07, 1.12983e-04, 3.76609e-05),
    (913.104, 3.73821e-05, 5.20723e-06, 2.27003e-07, 1.11972e-04, 3.73241e-05),
    (913.006, 3.45377e-05, 4.81102e-06, 2.09731e-07, 1.11002e-04, 3.70005e-05),
    (912.918, 3.19891e-05, 4.45601e-06, 1.94255e-07, 1.10051e-04, 3.66836e-05),
    (912.839, 2.97110e-05, 4.13867e-06, 1.80421e-07, 1.09125e-04, 3.63749e-05),
    (912.768, 2.76635e-05, 3.85346e-06, 1.67987e-07, 1.08220e-04, 3.60734e-05),
    (912.703, 2.58178e-05, 3.59636e-06, 1.56779e-07, 1.07337e-04, 3.57789e-05),
    (912.645, 2.41479e-05, 3.36374e-06, 1.46638e-07, 1.06473e-04, 3.54909e-05),
    (912.592, 2.26347e-05, 3.15296e-06, 1.37450e-07, 1.05629e-04, 3.52096e-05),
    (912.543, 2.12567e-05, 2.96100e-06, 1.29081e-07, 1.04802e-04, 3.49340e-05),
    (912.499, 1.99967e-05, 2.78549e-06, 1.21430e-07, 1.03991e-04, 3.46636e-05),
    (912.458, 1.88476e-05, 2.62543e-06, 1.14452e-07, 1.03198e-04, 3.43994e-05),
    (912.42, 1.77928e-05, 2.47850e-06, 1.08047e-07, 1.02420e-04, 3.41402e-05),
    (912.385, 1.68222e-05, 2.34330e-06, 1.02153e-07, 1.01657e-04, 3.38856e-05),
    (912.353, 1.59286e-05, 2.21882e-06, 9.67268e-08, 1.00908e-04, 3.36359e-05),
    (912.324, 1.50996e-05, 2.10334e-06, 9.16925e-08, 1.00168e-04, 3.33895e-05),
)
# Exponents that go with the columns of A (eq. 21 and 22).
_LAF_SLOPES = (1.2, 3.7, 5.5)
_DLA_SLOPES = (2.0, 3.0)

# Madau 1995 (ApJ 441, 18): A of Lyman alpha to delta (eq. 12 and 15); from the fifth line on the
# numbers are those of FSPS (igm_absorb.f90, Conroy+ 2009), which carries the series to the 17th.
_MADAU_LINES = (
    0.0036, 0.0017, 0.0011846, 0.0009410, 0.0007960, 0.0006967, 0.0006236, 0.0005665, 0.0005200,
    0.0004817, 0.0004487, 0.0004200, 0.0003947, 0.000372, 0.000352, 0.0003334, 0.00031644,
)  # fmt: skip

# ln(wave_obs / line) over which the depth of a line sets in.
_ONSET = 0.02


def _onset(ln_x: Numbers, xp: ModuleType) -> Numbers:
    """0 for ln_x <= 0, 1 for ln_x >= _ONSET, smooth between."""
    t = xp.clip(ln_x / _ONSET, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _inoue2014(wave: Numbers, stretch: Numbers, xp: ModuleType) -> Numbers:
    """Optical depth [wave] of Inoue+ 2014; ``stretch`` is 1 + z."""
    table = np.asarray(_INOUE_LINES).T[:, :, None]  # [column, line, 1]
    ln_x = xp.log(wave / table[0]) + xp.log(stretch)  # [line, wave]

    # The published depths are continuous where one power law takes over from the next, and each
    # next one is steeper: the piecewise law is the largest of its pieces.
    def broken_power_law(ln_a: np.ndarray, slopes: tuple[float, ...]) -> Numbers:
        pieces = [a + slope * ln_x for a, slope in zip(ln_a, slopes, strict=True)]
        largest = pieces[0]
        for piece in pieces[1:]:
            largest = xp.maximum(largest, piece)
        return xp.exp(largest)

    ln_a = np.log(table[1:])
    lines = broken_power_law(ln_a[:3], _LAF_SLOPES) + broken_power_law(ln_a[3:], _DLA_SLOPES)
    series = xp.sum(xp.where(wave < table[0], _onset(ln_x, xp) * lines, 0.0), axis=0)

    # Lyman continuum: every published case (eq. 25 to 29) is one antiderivative taken between
    # the first absorber that can act on this wavelength and the galaxy.  The paper prints the
    # coefficients to three digits; these four are of the authors' code, as in eazy-py.
    x = wave / LYMAN_LIMIT * stretch
    first = xp.clip(x, 1.0, stretch)

    def forest(s: Numbers) -> Numbers:
        low = -0.3248 * s**-0.9
        middle = 2.545e-2 * s**1.6 - 0.2496
        high = 5.221e-4 * s**3.4 - 3.140e-2
        return xp.where(s < 2.2, low, xp.where(s < 5.7, middle, high))

    def damped(s: Numbers) -> Numbers:
        low = 0.2113 * s**2 - 0.07661 * s**2.3 * x**-0.3
        high = 0.6340 + 0.04696 * s**3 - (0.2905 + 0.01779 * s**3.3) * x**-0.3
        return xp.where(s < 3.0, low, high)

    continuum = xp.maximum(x**2.1 * (forest(stretch) - forest(first)), 0.0)
    continuum = continuum + xp.maximum(damped(stretch) - damped(first), 0.0)
    return series + _between(first, stretch, continuum, xp)


def _madau1995(wave: Numbers, stretch: Numbers, xp: ModuleType) -> Numbers:
    """Optical depth [wave] of Madau 1995; ``stretch`` is 1 + z."""
    line = np.asarray([row[0] for row in _INOUE_LINES[: len(_MADAU_LINES)]])[:, None]
    a = np.asarray(_MADAU_LINES)[:, None]
    x_line = wave / line * stretch
    onset = xp.where(wave < line, _onset(xp.log(x_line), xp), 0.0)
    series = xp.sum(onset * a * x_line**3.46, axis=0)
    metals = onset[0] * 0.0017 * x_line[0] ** 1.68

    # Footnote 3 of the paper, the fit to eq. 16.
    x = wave / LYMAN_LIMIT * stretch
    first = xp.clip(x, 1.0, stretch)
    continuum = (
        0.25 * x**3 * (stretch**0.46 - first**0.46)
        + 9.4 * x**1.5 * (stretch**0.18 - first**0.18)
        - 0.7 * x**3 * (first**-1.32 - stretch**-1.32)
        - 0.023 * (stretch**1.68 - first**1.68)
    )
    return series + metals + _between(first, stretch, xp.maximum(continuum, 0.0), xp)


def _between(first: Numbers, stretch: Numbers, depth: Numbers, xp: ModuleType) -> Numbers:
    """The depth, and exactly none where no absorber is between the first and the galaxy: compiled
    code may round the two ends of an antiderivative differently."""
    return xp.where(first < stretch, depth, 0.0)


MODELS = {"inoue2014": _inoue2014, "madau1995": _madau1995}
"""Mean optical depths by name."""


def _model(name: str) -> Callable[[Any, Any, ModuleType], Any]:
    if name not in MODELS:
        raise ValueError(f"model must be one of {sorted(MODELS)}, got {name!r}: name one of those")
    return MODELS[name]


@partial(compiled, static_argnames="model")
def optical_depth(wave: ArrayLike, redshift: Array | float, *, model: str = "inoue2014") -> Array:
    """Mean optical depth [wave] towards a source at ``redshift`` (a scalar).

    ``wave`` [wave] is the rest-frame wavelength of the source in Angstrom.  The depth is zero
    redwards of Lyman alpha and everywhere for z <= 0.  ``model``: "inoue2014" or "madau1995".
    """
    wave = jnp.asarray(wave, dtype=float)
    stretch = 1.0 + jnp.maximum(jnp.asarray(redshift, dtype=float), 0.0)
    return _model(model)(wave, stretch, jnp)


def transmission(wave: ArrayLike, redshift: Array | float, *, model: str = "inoue2014") -> Array:
    """Mean transmission exp(-tau) [wave], in [0, 1]; arguments as for ``optical_depth``."""
    return jnp.exp(-optical_depth(wave, redshift, model=model))


@struct.dataclass
class IGMTable:
    """Transmission of a fixed rest-frame grid, tabulated in redshift.

    ``table(redshift) -> [blue]`` for the first ``table.size`` wavelengths of the grid, those that
    Lyman alpha reaches; the rest transmit everything.  Between nodes, uniform in ln(1+z), the
    optical depth follows a Catmull-Rom cubic, so value and slope are continuous in z.  Redshifts
    outside [0, z_max] count as the nearest end.
    """

    depth: Array  # [node + 2, blue]: one more node beyond either end
    step: float = struct.field(pytree_node=False)  # of ln(1 + z) between nodes
    z_max: float = struct.field(pytree_node=False)
    model: str = struct.field(pytree_node=False)

    @property
    def size(self) -> int:
        """How many wavelengths of the grid, from the first, are absorbed at all."""
        return self.depth.shape[-1]

    @compiled
    def __call__(self, redshift: Array | float) -> Array:
        """Transmission [blue] towards ``redshift`` (a scalar)."""
        z = jnp.clip(jnp.asarray(redshift, dtype=float), 0.0, self.z_max)
        position = jnp.log1p(z) / self.step
        node = jnp.clip(jnp.floor(position).astype(int), 0, self.depth.shape[-2] - 4)
        t = position - node
        # One contiguous block of four nodes is the whole gather.
        block = jax.lax.dynamic_slice_in_dim(self.depth, node, 4, axis=0)
        weights = (
            0.5 * t * (-1.0 + t * (2.0 - t)),
            1.0 + 0.5 * t * t * (3.0 * t - 5.0),
            0.5 * t * (1.0 + t * (4.0 - 3.0 * t)),
            0.5 * t * t * (t - 1.0),
        )
        depth = sum(weight * row for weight, row in zip(weights, block, strict=True))
        return jnp.exp(-jnp.maximum(depth, 0.0))


def igm_table(
    wave: ArrayLike,
    *,
    z_max: float = 20.0,
    model: str = "inoue2014",
    step: float = 0.004,
    samples: int = 32,
) -> IGMTable:
    """Tabulate ``model`` for the rest-frame grid ``wave`` [wave] (Angstrom, increasing).

    A grid point stands for its bin, halfway in ln(wave) to its neighbours.  Where a line or the
    Lyman limit falls inside a bin, the transmission is averaged over ``samples`` wavelengths of
    the bin, so that a coarse grid keeps the right mean flux about the sharp edges;
    ``samples=1`` takes the grid points themselves.  ``step`` is the spacing of the nodes in
    ln(1+z).

    Raises ValueError if the grid is not positive and increasing, or an option out of range.
    """
    grid = np.asarray(wave, dtype=float)
    if grid.ndim != 1 or grid.size < 2 or grid[0] <= 0 or not np.all(np.diff(grid) > 0):
        raise ValueError(
            f"wave must be a 1-d array of at least two positive, increasing wavelengths in "
            f"Angstrom, got shape {grid.shape}: pass the rest-frame grid of the model"
        )
    if not 0 <= z_max <= 100 or not step > 0 or samples < 1:
        raise ValueError(
            f"0 <= z_max <= 100, step > 0 and samples >= 1 are needed, got z_max={z_max}, "
            f"step={step}, samples={samples}"
        )
    formula = _model(model)
    ln_wave = np.log(grid)
    middles = 0.5 * (ln_wave[1:] + ln_wave[:-1])
    low = np.concatenate([[1.5 * ln_wave[0] - 0.5 * ln_wave[1]], middles])
    high = np.concatenate([middles, [1.5 * ln_wave[-1] - 0.5 * ln_wave[-2]]])
    edges = np.log([row[0] for row in _INOUE_LINES] + [LYMAN_LIMIT])
    mixed = np.any((low[:, None] < edges) & (edges < high[:, None]), axis=1) & (samples > 1)
    blue = (grid < LYMAN_ALPHA) | mixed
    fraction = (np.arange(samples) + 0.5) / samples
    fine = np.exp(low[mixed, None] + (high - low)[mixed, None] * fraction)  # [mixed, sample]
    mixed, grid = mixed[blue], grid[blue]

    n_node = max(int(np.ceil(np.log1p(z_max) / step)) + 1, 2)
    depth = np.empty((n_node + 2, grid.size))
    for node in range(n_node):
        stretch = np.exp(step * node)
        row = formula(grid, stretch, np)
        tau = formula(fine.ravel(), stretch, np).reshape(fine.shape)
        # The mean of exp(-tau) in a form that does not underflow where tau is large.
        least = tau.min(axis=1, keepdims=True)
        row[mixed] = least[:, 0] - np.log(np.mean(np.exp(least - tau), axis=1))
        depth[node + 1] = row
    depth[0] = 2.0 * depth[1] - depth[2]
    depth[-1] = 2.0 * depth[-2] - depth[-3]
    return IGMTable(jnp.asarray(depth, dtype=float), step=step, z_max=float(z_max), model=model)
