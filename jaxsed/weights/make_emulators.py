"""Train the shipped photometric emulators.

usage: python -m jaxsed.weights.make_emulators SET [--width N] [--seconds S] [--train N]
                                               [--seed K] [--output FILE]

SET is one of the sets below. The emulator is written beside this script with its model card; a
checkpoint beside it lets an interrupted training go on.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import jax

from jaxsed.catalog.train import train_emulator
from jaxsed.emulators import TrainSettings, model_card
from jaxsed.emulators.train import FAST
from jaxsed.sps.models import family
from jaxsed.sps.photometry import load_filter
from jaxsed.sps.ssp import load_ssp

GOODSS = (
    "goodss_ctio_u goodss_vimos_u goodss_acs_f435w goodss_acs_f606w goodss_acs_f775w "
    "goodss_acs_f814w goodss_acs_f850lp goodss_wfc3_f098m goodss_wfc3_f105w goodss_wfc3_f125w "
    "goodss_wfc3_f160w goodss_isaac_ks goodss_hawki_ks goodss_irac_ch1 goodss_irac_ch2 "
    "goodss_irac_ch3 goodss_irac_ch4"
)
BROAD = (
    "galex_FUV galex_NUV sdss_u0 sdss_g0 sdss_r0 sdss_i0 sdss_z0 decam_g decam_r decam_i "
    "decam_z hsc_g hsc_r hsc_i hsc_z hsc_y twomass_J twomass_H twomass_Ks wise_w1 wise_w2 "
    "spitzer_irac_ch1 spitzer_irac_ch2 acs_wfc_f435w acs_wfc_f475w acs_wfc_f606w acs_wfc_f775w "
    "acs_wfc_f814w acs_wfc_f850lp wfc3_ir_f105w wfc3_ir_f110w wfc3_ir_f125w wfc3_ir_f140w "
    "wfc3_ir_f160w jwst_f070w jwst_f090w jwst_f115w jwst_f150w jwst_f200w jwst_f277w jwst_f335m "
    "jwst_f356w jwst_f410m jwst_f444w"
)
SETS = {
    "sdss": ("sdss_u0 sdss_g0 sdss_r0 sdss_i0 sdss_z0", (0.0, 0.65), "SDSS ugriz, z 0-0.65"),
    "goodss": (GOODSS, (0.0, 4.0), "CANDELS GOODS-S, 17 bands, z 0-4"),
    "broad": (BROAD, (0.0, 4.0), "44 bands from the far ultraviolet to IRAC, z 0-4"),
}
SOFTENING = -6.0
"""Softening magnitude of the fluxes at 10 pc of 1e10 Msun: some 15 mag below their light."""


def main() -> None:
    """Train one set and write the emulator and its model card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=900.0)
    parser.add_argument("--train", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args()
    names, redshift_range, title = SETS[options.set]
    name = f"provabgs_{options.set}"
    output = options.output or Path(__file__).with_name(f"emulator_{name}.h5")
    settings = TrainSettings(
        n_train=options.train,
        width=options.width,
        mu_0=SOFTENING,
        loss="band_rmse",
        fit=dataclasses.replace(FAST, max_seconds=options.seconds),
    )
    emulator, history = train_emulator(
        jax.random.key(options.seed),
        family("provabgs"),
        load_ssp(),
        [load_filter(band) for band in names.split()],
        redshift_range=redshift_range,
        settings=settings,
        checkpoint=output.with_suffix(".checkpoint"),
    )
    emulator.save(output)
    output.with_suffix(".md").write_text(model_card(emulator, f"PROVABGS photometry: {title}"))
    output.with_suffix(".checkpoint").unlink(missing_ok=True)
    print(f"{output}: validation RMSE {history.best_loss:.5f} mag, {history.stopped}")


if __name__ == "__main__":
    main()
