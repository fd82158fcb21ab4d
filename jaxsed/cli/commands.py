"""The commands about galaxies.

Everything heavy is imported inside the commands, so that ``--help`` is quick and so that
`prepare_process` acts before JAX starts.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from jaxsed import __version__
from jaxsed.cli.process import cores, prepare_process
from jaxsed.core.errors import JaxsedError

if TYPE_CHECKING:
    from jaxsed.catalog.results import Results

app = typer.Typer(
    help="Fit galaxy SEDs: posteriors of mass, star formation, metallicity, age and dust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# what the package cannot do without, and what only a part of it needs
REQUIRED = ("jax", "flax", "optax", "numpyro", "blackjax", "astropy", "h5py", "sedpy")
OPTIONAL = {"distrax": "the normalising flows", "arviz": "to_arviz", "matplotlib": "plots"}


@app.command()
def fit(
    catalog: Annotated[Path, typer.Argument(help="FITS, ECSV, CSV, VOTable, parquet, HDF5, text")],
    config: Annotated[Path, typer.Option("--config", "-c", help="TOML: columns, units, filters")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5: draws and all else")],
    table: Annotated[
        Path | None, typer.Option("--table", "-t", help="summary table: .ecsv, .fits or .csv")
    ] = None,
    seed: Annotated[int, typer.Option(help="with a galaxy's id, decides its random numbers")] = 0,
    train: Annotated[
        bool, typer.Option("--train", help="train an emulator where none covers the bands")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue a killed run")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the output")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress, no summary")] = False,
) -> None:
    """Fit every row of a catalogue; each gets a posterior or a flag that says why not."""
    prepare_process()
    from jaxsed.catalog.run import fit_catalog

    try:
        results = fit_catalog(
            config,
            catalog,
            output,
            table,
            seed=seed,
            train=train,
            resume=resume,
            overwrite=overwrite,
            progress=not quiet,
        )
    except KeyboardInterrupt:
        typer.echo(
            f"\nStopped. --resume continues {output} from the galaxies that are done.", err=True
        )
        raise typer.Exit(130) from None
    if not quiet:
        _print_summary(results, table)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="folder for results and pictures")] = Path(
        "demo_output"
    ),
    galaxies: Annotated[int, typer.Option(help="how many of the 24 galaxies", min=1, max=24)] = 24,
) -> None:
    """Fit the example catalogue: real galaxies of CANDELS GOODS-S, 17 bands."""
    prepare_process()
    from importlib import resources

    from astropy.table import Table

    from jaxsed import plots
    from jaxsed.catalog.run import fit_catalog
    from jaxsed.io.outputs import save_table

    output.mkdir(parents=True, exist_ok=True)
    catalog = output / "catalog.ecsv"
    with resources.as_file(resources.files("jaxsed.examples")) as folder:
        save_table(Table.read(folder / "goodss.ecsv")[:galaxies], catalog)
        results = fit_catalog(
            folder / "goodss.toml", catalog, output / "run.h5", output / "run.ecsv", overwrite=True
        )
    _print_summary(results, output / "run.ecsv")
    columns = ["id", "redshift", "log_mass_surviving_p50", "log_sfr_100myr_p50", "a_v_p50", "flag"]
    shown = results.table[columns].copy()
    for name in columns[1:-1]:
        shown[name].info.format = ".2f"
    shown.pprint(max_lines=-1, max_width=-1)
    paths = plots.save_all(results, output / "plots", limit=4)
    typer.echo(f"{len(paths)} pictures in {output / 'plots'}")


@app.command()
def calibrate(
    model: Annotated[Path, typer.Argument(help="HDF5 of a flow, see jaxsed.weights.make_flows")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder")],
    mocks: Annotated[int, typer.Option(help="galaxies", min=200)] = 1000,
    draws: Annotated[int, typer.Option(help="draws of the flow per galaxy", min=500)] = 2048,
    seed: Annotated[int, typer.Option()] = 1,
    missing: Annotated[
        float | None,
        typer.Option(help="chance of a missing band; that of the training", min=0, max=1),
    ] = None,
    mcmc: Annotated[int, typer.Option(help="galaxies to sample by HMC as well")] = 0,
) -> None:
    """Are a flow's posteriors right? Ranks, p-p curves and coverage on galaxies it never saw."""
    prepare_process()
    from jaxsed import plots
    from jaxsed.core.errors import user_errors
    from jaxsed.infer import amortised
    from jaxsed.io.outputs import check_folder
    from jaxsed.workflows import calibrate as calibration

    check_folder(output)
    with user_errors():
        flow = amortised.load(model)
    found = calibration.calibrate(
        flow, mocks=mocks, draws=draws, seed=seed, missing=missing, mcmc=mcmc
    )
    calibration.write(found, output)
    for name, figure in plots.calibration_figures(found).items():
        plots.save_figure(figure, output / f"{name}.png", dpi=150)
    typer.echo(f"{found['accepted']:.1%} of {mocks} galaxies accepted by their weights")
    for name in [kind for kind in calibration.KINDS if kind in found]:
        figures = found[name]
        lowest = min(figures["sbc_pvalue"].values())
        typer.echo(
            f"{name}: ranks p >= {lowest:.3g}, p-p curves within {figures['pp_max_deviation']:.3f},"
            f" coverage within {figures['tarp_max_error']:.3f} ({figures['galaxies']} galaxies)"
        )


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(help="an output of `jaxsed fit`")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder")] = Path("plots"),
    limit: Annotated[int, typer.Option(help="galaxies with pictures of their own")] = 20,
) -> None:
    """Draw a run: diagnostics of the catalogue; SED, history and corner plot per galaxy."""
    from jaxsed import plots
    from jaxsed.catalog.results import load_results

    paths = plots.save_all(load_results(run), output, limit=limit)
    typer.echo(f"{len(paths)} pictures in {output}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="TOML of `jaxsed fit`: its bands and physics")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 of the emulator")],
    z_min: Annotated[float, typer.Option(help="lowest redshift")] = 0.0,
    z_max: Annotated[float, typer.Option(help="highest redshift")] = 4.0,
    width: Annotated[int, typer.Option(help="nodes per layer")] = 128,
    pairs: Annotated[int, typer.Option(help="training galaxies")] = 1_000_000,
    minutes: Annotated[float, typer.Option(help="time of the training")] = 15.0,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Train a photometric emulator for the bands of a configuration; resumes if interrupted."""
    prepare_process()
    import dataclasses

    import jax
    from rich.console import Console

    from jaxsed.catalog.config import load_config
    from jaxsed.catalog.plan import resolve
    from jaxsed.catalog.predictors import load_grid
    from jaxsed.emulators import error_table, model_card
    from jaxsed.io import files
    from jaxsed.io.outputs import check_writable
    from jaxsed.workflows.train_photometric import CACHE_SETTINGS, train_emulator

    check_writable(output)
    plan = resolve(load_config(config))
    fit = dataclasses.replace(CACHE_SETTINGS.fit, max_seconds=60 * minutes)
    emulator, _ = train_emulator(
        jax.random.key(seed),
        plan.model.galaxies,
        load_grid(plan.model),
        plan.filters,
        redshift_range=(z_min, z_max),
        settings=dataclasses.replace(CACHE_SETTINGS, width=width, n_train=pairs, fit=fit),
        cosmology=plan.model.cosmology,
        birth_cloud_age=plan.model.birth_cloud_age,
        igm=plan.model.igm,
        checkpoint=output.with_suffix(".checkpoint"),
    )
    emulator.save(output)
    files.write_text(output.with_suffix(".md"), model_card(emulator, f"Emulator for {config.name}"))
    output.with_suffix(".checkpoint").unlink(missing_ok=True)
    Console().print(error_table(emulator))


@app.command()
def validate(
    emulator: Annotated[Path, typer.Argument(help="HDF5 of an emulator")],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder: tables and pictures")],
    pairs: Annotated[
        int | None, typer.Option(help="galaxies that errors are measured on", min=100)
    ] = None,
    gradients: Annotated[int, typer.Option(help="galaxies whose derivatives are compared")] = 200,
    posteriors: Annotated[
        int, typer.Option(help="mock galaxies whose posteriors are compared with the physics'")
    ] = 0,
    survey: Annotated[
        Path | None, typer.Option(help="table of bands and a survey's uncertainties in mag")
    ] = None,
    error_floor: Annotated[
        float, typer.Option(help="relative uncertainty, without a table")
    ] = 0.05,
    ssp: Annotated[Path | None, typer.Option(help="SSP grid, if it is not a shipped one")] = None,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Measure an emulator's errors on fresh simulations: tables and pictures of where it is bad."""
    prepare_process()
    from rich.console import Console

    from jaxsed import plots
    from jaxsed.workflows.validate import Request, validate_file

    request = Request(
        pairs=pairs,
        gradients=gradients,
        posteriors=posteriors,
        survey=survey,
        error_floor=error_floor,
        ssp=ssp,
        seed=seed,
    )
    outcome = validate_file(emulator, output, request)
    if outcome.photometry is not None:
        figures = plots.validation_figures(outcome.photometry, outcome.posteriors)
    else:
        figures = plots.spectrum_figures(outcome.spectrum)
    for name, figure in figures.items():
        plots.save_figure(figure, output / f"{name}.png")
    Console(highlight=False).print(outcome.view)
    typer.echo(f"{len(outcome.paths)} tables and {len(figures)} pictures in {output}")


def _print_summary(results: Results, table: Path | None) -> None:
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from jaxsed.catalog.flags import NOT_FITTED, TEXT

    console = Console(highlight=False)
    flags = results.flags
    fitted = int(np.count_nonzero((flags & int(NOT_FITTED)) == 0))
    seconds = np.atleast_1d(results.provenance["chunk_seconds"])
    console.print(
        f"{len(results)} rows: {fitted} fitted, {int(np.count_nonzero(flags == 0))} without a flag."
    )
    if flags.any():
        view = Table("flag", "rows", "meaning")
        for bit, words in TEXT.items():
            count = int(np.count_nonzero(flags & int(bit)))
            if count:
                view.add_row(str(int(bit)), str(count), words)
        console.print(view)
    if seconds.size:
        compiling = float(np.sum(results.provenance["chunk_compiling"]))
        total = max(float(seconds.sum()) - compiling, 1e-9)
        console.print(
            f"Sampling took {total:.1f} s, {fitted / total:.3g} galaxies/s, "
            f"and compilation {compiling:.1f} s."
        )
    console.print(f"Posteriors: {results.path}", soft_wrap=True)
    if table is not None:
        console.print(f"Table: {table}", soft_wrap=True)


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


@app.command()
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


@app.command()
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


@app.command()
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


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jaxsed {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="and exit")
    ] = False,
) -> None:
    """Options before the command."""
