"""Settings of the process that runs a command or a benchmark."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

# glibc's M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD, and what they are set to in bytes
MALLOPT = ((-3, 2_000_000_000), (-1, 2_000_000_000), (-2, 300_000_000))

CACHE_BYTES = 2_000_000_000
"""Compiled code that is kept; what was not used for longest goes first."""


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepare_process() -> None:
    """Settings of the process that make fits faster; before JAX is imported.

    Linear algebra on small matrices must not start threads of its own, all compiled code is kept
    between runs, up to `CACHE_BYTES`, and glibc keeps freed memory, where giving it back and
    faulting it in again would take longer than the arithmetic. What the user has set stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxsed" / "xla"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(CACHE_BYTES))
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option in MALLOPT:
            libc.mallopt(*option)
    except (OSError, AttributeError):  # another C library: nothing to tune
        return
