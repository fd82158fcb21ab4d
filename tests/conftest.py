"""Fixtures shared by all tests."""

import atexit
import gc
import importlib
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Before any test imports JAX: most of the time of the tests is compilation, and these take more
# than half of it off.
QUICK = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if version("jaxlib").startswith("0.10."):  # jaxlib aborts where it does not know one, as 0.12 does
    QUICK += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
os.environ.setdefault("XLA_FLAGS", " ".join(QUICK))

# Many tests compile the same programs: the processes of a run share them, and no two runs do.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    CACHE = tempfile.mkdtemp(prefix="jaxsed-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    atexit.register(shutil.rmtree, CACHE, ignore_errors=True)


# Files of one group stay in one process, which compiles what they share once; any other file is a
# group of its own. Those that take longest come first, so that the processes end together.
GROUPS = (
    ("infer", "keys", "batches", "amortised", "checks", "diagnostics", "posterior"),
    ("star_uncertainty", "star_predictions", "star_command", "star_networks", "star_training",
     "star_autoencoder", "star_cannon", "star_resampling", "cnn1d"),
    ("prior_coordinates",),
    ("halos", "halo_models", "halo_formation", "halo_baselines", "halo_command", "resnet3d"),
    ("contracts",),
    ("faults", "run"),
    ("emulator", "widths", "stitched", "validate", "mlp", "learn"),
    ("spectral", "spectrum_likelihood", "spectroscopy"),
    ("hostile_files",),
    ("params", "problem", "sed", "sfh", "cosmology"),
)  # fmt: skip


RANK = {f"test_{name}": i for i, group in enumerate(GROUPS) for name in group}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: RANK.get(item.path.stem, len(GROUPS)))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        """Tests of a group of files in one process."""

        def _split_scope(self, nodeid):
            file = nodeid.split("::", 1)[0]
            return str(RANK.get(Path(file).stem, file))

    return ByGroup(config, log)


def pytest_collection_finish():
    """What is imported by now is never freed: the garbage collector need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared_data() -> Path:
    """Folder of the reference data (real catalogues, published model outputs), or skip.

    Looked for in the environment variable JAXSED_REFERENCE_DATA, else in ``../shared/data``
    beside the repository. It is not part of the package: most tests do without it.
    """
    named = os.environ.get("JAXSED_REFERENCE_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no reference data in {folder} (set JAXSED_REFERENCE_DATA to its folder)")
    return folder


@pytest.fixture
def x64():
    """Run the test in 64-bit: arrays made inside it are float64, and the setting is undone."""
    import jax

    with jax.enable_x64(True):
        yield


@pytest.fixture
def import_dsps():
    """``import_dsps("dsps.dust.att_curves")``: a module of DSPS, or skip where it is missing.

    Importing DSPS switches 64-bit on for the whole process; this puts the setting back, so that
    the test and those after it stay in the precision that they ask for.
    """
    import jax

    # Read before the test turns 64-bit on for itself, or that would be put back for good.
    before = jax.config.jax_enable_x64

    def load(name: str):
        try:
            pytest.importorskip("dsps")
            return importlib.import_module(name)
        finally:
            jax.config.update("jax_enable_x64", before)

    return load
