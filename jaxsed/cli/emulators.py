"""Commands about emulators and flows.

Everything heavy is imported inside the commands, so that ``--help`` is quick and so that
`prepare_process` acts before JAX starts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxsed.cli.app import GROUP
from jaxsed.cli.process import prepare_process

commands = typer.Typer(**GROUP)


@commands.command()
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


@commands.command()
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


@commands.command()
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
