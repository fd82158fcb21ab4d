"""Commands about the installation: what is there, whether it works, and what to cite.

Everything heavy is imported inside the commands, so that ``--help`` is quick and so that
`prepare_process` acts before JAX starts.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from jaxsed import __version__
from jaxsed.cli.app import GROUP
from jaxsed.cli.process import cores, prepare_process
from jaxsed.core.errors import JaxsedError

commands = typer.Typer(**GROUP)

# what the package cannot do without, and what only a part of it needs
REQUIRED = ("jax", "flax", "optax", "numpyro", "blackjax", "astropy", "h5py", "sedpy")
OPTIONAL = {"distrax": "the normalising flows", "arviz": "to_arviz", "matplotlib": "plots"}


class Check(NamedTuple):
    """One line of ``jaxsed doctor``."""

    name: str
    found: str
    ok: bool
    required: bool = True


def library_checks() -> list[Check]:
    """Whether each library imports, and its version."""
    from importlib import import_module
    from importlib.metadata import PackageNotFoundError, version

    checks = []
    for name in (*REQUIRED, *OPTIONAL):
        required = name in REQUIRED
        try:
            import_module(name)
            found, ok = version("astro-sedpy" if name == "sedpy" else name), True
        except PackageNotFoundError:
            # the unrelated PyPI package `sedpy` fills the same folder
            found, ok = "installed from elsewhere; jaxsed needs astro-sedpy", False
        except Exception as error:  # a broken dependency raises anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            found, ok = f"does not import: {reason}", False
            if not required:
                found += f" (only {OPTIONAL[name]} need it)"
        checks.append(Check(name, found, ok, required))
    return checks


def device_checks() -> list[Check]:
    """Devices, precision and what the environment sets."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    devices = jax.devices()
    kinds = ", ".join(sorted({f"{d.platform} ({d.device_kind})" for d in devices}))
    numbers = np.random.default_rng(0).normal(size=(2, 256, 256))
    product = jnp.asarray(numbers[0], "float32") @ jnp.asarray(numbers[1], "float32")
    exact = numbers[0] @ numbers[1]
    error = float(np.abs(np.asarray(product, float) - exact).max() / np.abs(exact).max())
    sps_home = os.environ.get("SPS_HOME")
    return [
        Check("devices", f"{len(devices)} x {kinds}; {cores()} cores", True),
        Check("default precision", str(jnp.zeros(()).dtype), True),
        # TensorFloat-32 has 10 bits: errors of 1e-3
        Check("float32 product", f"relative error {error:.1e}", error < 1e-5),
        Check("SPS_HOME", sps_home or "not set (only for building grids with FSPS)", True),
    ]


@commands.command()
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="versions and devices only")] = False,
) -> None:
    """Check versions, devices and precision, and compute known answers.

    Exit 1 if jaxsed cannot work or gets an answer wrong.
    """
    prepare_process()
    from rich.console import Console
    from rich.table import Table

    checks = [
        Check("jaxsed", __version__, True),
        Check("python", f"{platform.python_version()} on {platform.platform()}", True),
        *library_checks(),
    ]
    broken = any(check.required and not check.ok for check in checks)
    if not broken:
        checks += device_checks()
        if not quick:
            from jaxsed.workflows.checks import self_check

            checks += [Check(*check) for check in self_check()]
        broken = any(check.required and not check.ok for check in checks)
    view = Table("", "found", "")
    for check in checks:
        verdict = "ok" if check.ok else "PROBLEM" if check.required else "not usable"
        view.add_row(check.name, check.found, verdict)
    Console(highlight=False).print(view)
    if broken:
        raise typer.Exit(1)


@commands.command()
def cite(
    run: Annotated[Path | None, typer.Argument(help="a result file: only what it used")] = None,
) -> None:
    """Print the work to cite, by component; with a result file, only what that run used."""
    from jaxsed.catalog.citations import CITATIONS, components

    names = components()
    if run is not None:
        from jaxsed.catalog.config import parse_config
        from jaxsed.catalog.results import load_results

        provenance = load_results(run).provenance
        config = parse_config(provenance["config"], source=f"configuration in {run}")
        names = components(config, predictor=provenance.get("predictor"))
    typer.echo(f"jaxsed {__version__}: The jaxsed developers")
    for name in names:
        what, references = CITATIONS[name]
        typer.echo(f"\n{name}: {what}")
        for reference in references:
            typer.echo(f"  {reference}")


@commands.command()
def info() -> None:
    """List the shipped emulators with their errors, and the other components with their sources."""
    prepare_process()
    from importlib import resources

    import h5py
    from rich.console import Console
    from rich.table import Table

    from jaxsed.emulators.summary import Summary, summary

    emulators = Table("name", *(name.replace("_", " ") for name in Summary._fields[1:-1]), "MB")
    others = Table("file", "what", "MB", "checksum", "source")
    with resources.as_file(resources.files("jaxsed") / "weights") as folder:
        for path in sorted(folder.glob("*.h5")):
            try:
                with h5py.File(path) as file:
                    known = dict(file.attrs)
                if path.stem.startswith(("emulator_", "spectrum_")):
                    *words, megabytes = summary(path)
                    emulators.add_row(*map(str, words), f"{megabytes:.2f}")
                    continue
            except (OSError, ValueError) as error:
                raise JaxsedError(f"the shipped file {path} is damaged ({error}).") from None
            what = known.get("title") or known.get("kind") or known.get("format", "")
            checksum = str(known.get("sha256") or known.get("checksum") or "")[:12]
            size = f"{path.stat().st_size / 1e6:.2f}"
            others.add_row(path.name, str(what), size, checksum, str(known.get("citation", "")))
    console = Console(highlight=False)
    console.print("Emulators", emulators, "Other components", others)
