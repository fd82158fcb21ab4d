"""Commands that fit galaxies and show what came of it.

Everything heavy is imported inside the commands, so that ``--help`` is quick and so that
`prepare_process` acts before JAX starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jaxsed.cli.app import GROUP
from jaxsed.cli.process import prepare_process

if TYPE_CHECKING:
    from jaxsed.catalog.results import Results

commands = typer.Typer(**GROUP)


@commands.command()
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


@commands.command()
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


@commands.command()
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
