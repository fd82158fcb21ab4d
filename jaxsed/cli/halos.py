"""``jaxsed halos``: halos of simulated boxes in, mass functions of their galaxies out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jaxsed.cli.app import GROUP
from jaxsed.cli.process import prepare_process
from jaxsed.core.errors import JaxsedError

halos = typer.Typer(
    help="Stellar mass functions from halos: networks and what they must beat.",
    no_args_is_help=True,
    **GROUP,
)


class Network(StrEnum):
    """What can be trained."""

    RESNET = "resnet"
    FOREST = "forest"
    RIDGE = "ridge"
    MEAN = "mean"


DATA = "HDF5: box, position, v_peak and other features, stellar_mass; box_size, hubble"


@halos.command()
def train(
    data: Annotated[Path, typer.Argument(help=DATA)],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 of the model")],
    network: Annotated[Network, typer.Option(help="what to train")] = Network.RESNET,
    channels: Annotated[int, typer.Option(help="of the first layer", min=1)] = 20,
    epochs: Annotated[int, typer.Option(help="passes over the boxes", min=1)] = 100,
    members: Annotated[int, typer.Option(help="networks of an ensemble", min=1)] = 1,
    bins: Annotated[
        tuple[float, float, int], typer.Option(help="log10 stellar mass: lowest, highest, number")
    ] = (10.2, 11.6, 14),
    v_peak_min: Annotated[float, typer.Option(help="km/s; halos below are left out")] = 0.0,
    periodic: Annotated[
        bool, typer.Option(help="whether a box goes on at its other side")
    ] = True,
    seed: Annotated[int, typer.Option()] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Train a network, or fit a forest or a ridge regression; some boxes are kept apart."""
    prepare_process()
    import numpy as np

    from jaxsed.workflows.halos import train_file

    low, high, number = bins
    lines = train_file(
        data, output, network.value, channels=channels, epochs=epochs, members=members,
        edges=np.round(np.linspace(low, high, number + 1), 10).tolist(), v_peak_min=v_peak_min,
        periodic=periodic, seed=seed, progress=not quiet,
    )  # fmt: skip
    if not quiet:
        for line in lines:
            typer.echo(line)


@halos.command()
def predict(
    model: Annotated[Path, typer.Argument(help="an output of `jaxsed halos train`")],
    data: Annotated[Path, typer.Argument(help="HDF5 of boxes of the training's size")],
    table: Annotated[Path, typer.Option("--table", "-t", help=".ecsv, .fits or .csv")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Numbers of galaxies and mass functions of every box, with uncertainties."""
    prepare_process()
    from jaxsed.workflows.halos import predict_file

    for line in predict_file(model, data, table, progress=not quiet):
        if not quiet:
            typer.echo(line)


@halos.command()
def forest(
    data: Annotated[Path, typer.Argument(help=DATA)],
    output: Annotated[Path, typer.Option("--output", "-o", help="folder")],
    lowest: Annotated[float, typer.Option(help="log10 stellar mass of the galaxies used")] = 0.0,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """A forest from the properties of halos to stellar masses, and which properties matter."""
    prepare_process()
    from jaxsed import plots
    from jaxsed.workflows.halos import forest_file

    outcome = forest_file(data, output, lowest=lowest, seed=seed)
    masses = plots.stellar_masses(outcome.truth, outcome.found)
    plots.save_figure(masses, output / "stellar_masses.png")
    shares = plots.importances(outcome.figures["importance"], outcome.figures["permutation"])
    plots.save_figure(shares, output / "importances.png")
    for line in outcome.lines:
        typer.echo(line)


@halos.command()
def read(
    table: Annotated[Path, typer.Argument(help="FITS, CSV, ECSV, or an hlist file")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 for `jaxsed halos train`")],
    column: Annotated[
        list[str], typer.Option(help="x=COLUMN; likewise y, z, v_peak, stellar_mass, features")
    ],
    size: Annotated[float, typer.Option(help="Mpc/h, of the whole box")],
    hubble: Annotated[float, typer.Option(help="in 100 km/s/Mpc")],
    cut: Annotated[float, typer.Option(help="Mpc/h, of the boxes that it is cut into")] = 25.0,
    v_peak_min: Annotated[float, typer.Option(help="km/s; halos below are left out")] = 0.0,
) -> None:
    """Cut a simulation's table of halos into boxes."""
    prepare_process()
    from jaxsed.workflows.halos import read_files

    columns = dict(part.partition("=")[::2] for part in column)
    unnamed = [name for name, value in columns.items() if not value]
    if unnamed:
        raise JaxsedError(f"--column {unnamed[0]}: expected NAME=COLUMN, as v_peak=Vpeak")
    typer.echo(
        read_files(
            table, output, columns, size=size, box_size=cut, hubble=hubble, v_peak_min=v_peak_min
        )
    )
