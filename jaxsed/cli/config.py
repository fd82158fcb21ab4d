"""``jaxsed config``: about configurations."""

from __future__ import annotations

import typer

config = typer.Typer(
    help="Configurations of `jaxsed fit`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@config.callback()
def _group() -> None:
    """Configurations of `jaxsed fit`."""


@config.command()
def schema() -> None:
    """Print the JSON schema of a configuration."""
    import json

    from jaxsed.catalog.config import config_schema

    typer.echo(json.dumps(config_schema(), indent=1))
