"""``jaxsed stars``: spectra of stars in, labels out."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from jaxsed.cli.app import GROUP
from jaxsed.cli.process import prepare_process

stars = typer.Typer(
    help="Labels of stars from their spectra: temperature, gravity, abundances.",
    no_args_is_help=True,
    **GROUP,
)


class Network(StrEnum):
    """What can be trained."""

    BCNN = "bcnn"
    CENSORED = "censored"
    STARNET = "starnet"
    CANNON = "cannon"


@stars.command()
def train(
    data: Annotated[
        Path, typer.Argument(help="HDF5: flux, flux_uncertainty, wave_A, labels, label_names")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 of the model")],
    network: Annotated[Network, typer.Option(help="what to train")] = Network.BCNN,
    epochs: Annotated[int, typer.Option(help="at most, per learning rate", min=1)] = 100,
    members: Annotated[int, typer.Option(help="networks of an ensemble", min=1)] = 1,
    seed: Annotated[int, typer.Option()] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Train a network, or fit a Cannon, on labelled spectra; a tenth of them is kept apart."""
    prepare_process()
    from jaxsed.workflows.stars import train_file

    lines = train_file(
        data, output, network.value, epochs=epochs, members=members, seed=seed, progress=not quiet
    )
    if not quiet:
        for line in lines:
            typer.echo(line)


@stars.command()
def predict(
    model: Annotated[Path, typer.Argument(help="an output of `jaxsed stars train`")],
    data: Annotated[Path, typer.Argument(help="HDF5: flux, flux_uncertainty, wave_A")],
    table: Annotated[Path, typer.Option("--table", "-t", help=".ecsv, .fits or .csv")],
    draws: Annotated[int, typer.Option(help="dropout masks; 0 for none", min=0)] = 100,
    flux_errors: Annotated[
        bool, typer.Option("--flux-errors", help="propagate the uncertainties of the flux")
    ] = False,
    seed: Annotated[int, typer.Option()] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Labels of every spectrum, with uncertainties, or a flag that says why not."""
    prepare_process()
    from jaxsed.workflows.stars import predict_file

    for line in predict_file(
        model, data, table, draws=draws, flux_errors=flux_errors, seed=seed, progress=not quiet
    ):
        if not quiet:
            typer.echo(line)


@stars.command()
def read(
    spectra: Annotated[list[Path], typer.Argument(help="APOGEE apVisit, apStar, aspcapStar files")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 for `jaxsed stars predict`")],
    release: Annotated[int, typer.Option(help="data release, 11 to 17")] = 17,
    visits: Annotated[
        bool, typer.Option("--visits", help="of apStar files the visits, not the combination")
    ] = False,
) -> None:
    """Continuum-normalised spectra at rest of APOGEE files, in one HDF5 file."""
    prepare_process()
    from jaxsed.workflows.stars import read_files

    typer.echo(read_files(spectra, output, release=release, visits=visits))
