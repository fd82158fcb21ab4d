"""Fixed banded matrices as small dense blocks, and the one that conserves flux.

A gather of single elements has a slow transpose; windows of contiguous elements times small dense
blocks are matrix products, forward and backward, on any device.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax
from scipy import sparse

ROWS = 32
"""Rows per block."""


@struct.dataclass
class BandedMatrix:
    """A matrix [row, column] whose rows have their few nonzero columns side by side."""

    blocks: Array
    """[block, copy x width, row in block]; a copy for every vector it is applied to."""
    starts: Array
    """[block] first column of each window."""
    n_rows: int = struct.field(pytree_node=False)
    width: int = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        """Matrix times x [column], or the sum of one matrix times each x [copy, column]: [row]."""
        x = x.reshape(-1, x.shape[-1])

        def window(start: Array) -> Array:
            part = lax.dynamic_slice(x, (0, start), (x.shape[0], self.width))
            return part.ravel()

        windows = jax.vmap(window)(self.starts)
        out = jnp.einsum("bw,bwr->br", windows, self.blocks, precision=lax.Precision.HIGHEST)
        return out.ravel()[: self.n_rows]


def banded_matrix(*copies: sparse.sparray) -> BandedMatrix:
    """Blocks of one matrix [row, column], or of several of the same shape that act together."""
    matrices = [sparse.csr_array(m) for m in copies]
    n_rows, n_columns = matrices[0].shape
    n_blocks = -(-n_rows // ROWS)
    first, last = np.full(n_blocks, n_columns), np.zeros(n_blocks, int)
    for matrix in matrices:
        row, column = matrix.nonzero()
        np.minimum.at(first, row // ROWS, column)
        np.maximum.at(last, row // ROWS, column)
    width = min(max(int((last - first).max()) + 1, 1), n_columns)
    starts = np.clip(first, 0, n_columns - width)
    blocks = np.zeros((n_blocks, len(matrices), width, ROWS))
    for k, matrix in enumerate(matrices):
        entries = matrix.tocoo()
        block = entries.row // ROWS
        blocks[block, k, entries.col - starts[block], entries.row % ROWS] = entries.data
    return BandedMatrix(
        blocks=jnp.asarray(blocks.reshape(n_blocks, -1, ROWS), dtype=float),
        starts=jnp.asarray(starts, dtype=int),
        n_rows=n_rows,
        width=width,
    )


def integrals(nodes: np.ndarray, low: np.ndarray, high: np.ndarray) -> sparse.csr_array:
    """[cell, node] matrix that integrates a function exactly over cells.

    The function is linear between its values at `nodes` [node] (increasing) and zero beyond them;
    a cell reaches from `low` to `high`.  The integral over touching cells is the integral over
    their union, to rounding.
    """
    nodes, low, high = (np.asarray(x, float) for x in (nodes, low, high))
    rows, columns, values = [], [], []
    # Cells and node intervals cut each other into segments, on which the function is linear.
    first = np.clip(np.searchsorted(nodes, low, side="right") - 1, 0, nodes.size - 2)
    last = np.clip(np.searchsorted(nodes, high, side="left") - 1, 0, nodes.size - 2)
    for step in range(int((last - first).max()) + 1):
        interval = np.minimum(first + step, last)
        live = first + step <= last
        a = np.maximum(low, nodes[interval])
        b = np.minimum(high, nodes[interval + 1])
        length = np.where(live, np.maximum(b - a, 0.0), 0.0)
        share = (0.5 * (a + b) - nodes[interval]) / (nodes[interval + 1] - nodes[interval])
        for column, weight in ((interval, 1 - share), (interval + 1, share)):
            rows.append(np.arange(low.size))
            columns.append(column)
            values.append(length * weight)
    entries = np.concatenate(values)
    seen = entries != 0
    index = (np.concatenate(rows)[seen], np.concatenate(columns)[seen])
    return sparse.csr_array(sparse.coo_array((entries[seen], index), (low.size, nodes.size)))


def energy_matrix(wave: np.ndarray, ln_first: float, ln_step: float, n: int) -> BandedMatrix:
    """[grid, wave] energy per ln(wavelength), of L_lambda at a model's wavelengths.

    The mean over the cells of a grid of `n` points uniform in ln(wavelength).  L_lambda is linear
    between the model's wavelengths and constant beyond them.
    """
    edges = np.exp(ln_first + ln_step * (np.arange(n + 1) - 0.5))
    wide = np.concatenate([[min(edges[0], wave[0]) - 1], wave, [max(edges[-1], wave[-1]) + 1]])
    cells = integrals(wide, edges[:-1], edges[1:])
    first, last = (sparse.csr_array(cells[:, [k]]) for k in (0, wide.size - 1))
    beyond = sparse.hstack([first, sparse.csr_array((n, wave.size - 2)), last])
    return banded_matrix((sparse.csr_array(cells[:, 1:-1]) + sparse.csr_array(beyond)) / ln_step)
