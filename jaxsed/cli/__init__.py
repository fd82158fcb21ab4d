"""The command ``jaxsed``."""

from __future__ import annotations

import sys

import typer

from jaxsed.cli import emulators, fitting, installation
from jaxsed.cli.app import app
from jaxsed.cli.config import config
from jaxsed.cli.halos import halos
from jaxsed.cli.process import cores, prepare_process
from jaxsed.cli.stars import stars
from jaxsed.core.errors import JaxsedError

for group in (fitting, emulators, installation):
    app.add_typer(group.commands)
app.add_typer(config, name="config")
app.add_typer(stars, name="stars")
app.add_typer(halos, name="halos")

__all__ = ["app", "cores", "main", "prepare_process"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a `JaxsedError`, and a file that cannot be read or written, are told in
    words, with exit status 1."""
    try:
        app(arguments)
    except JaxsedError as error:
        typer.echo(f"jaxsed: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.filename is None:  # a defect
            raise
        typer.echo(f"jaxsed: {error.filename}: {error.strerror}", err=True)
        sys.exit(1)
