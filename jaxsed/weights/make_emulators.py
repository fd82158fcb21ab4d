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
from typing import NamedTuple

import jax

from jaxsed.bands.filters import load_filter
from jaxsed.emulators import model_card
from jaxsed.io import files
from jaxsed.io.outputs import check_writable
from jaxsed.sps.models.registry import family
from jaxsed.sps.ssp.grid import load_ssp
from jaxsed.workflows.train_photometric import CACHE_SETTINGS, train_emulator

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
MATHEWS137 = (
    "galex_FUV galex_NUV wfc3_uvis_f275w wfc3_uvis_f336w sdss_u0 mayall_mosaic_U_k1001 "
    "vlt_vimos_U wfc3_uvis_f390w cfht_megacam_us_9301 cfht_megacam_gs_9401 mpgeso_wfi_U38_eso841 "
    "wfc3_uvis_f555w acs_wfc_f435w acs_wfc_f475w sdss_g0 subaru_suprimecam_B cfht_megacam_rs_9601 "
    "acs_wfc_f555w wfc3_uvis_f475w mpgeso_wfi_B_eso842 subaru_suprimecam_ia427 keck_lris_g "
    "subaru_suprimecam_ia445 wfc3_uvis_f606w subaru_suprimecam_ia464 acs_wfc_f606w acs_wfc_f625w "
    "subaru_suprimecam_ia484 mpgeso_wfi_V_eso843 subaru_suprimecam_ia505 subaru_suprimecam_V "
    "keck_lris_Rs subaru_suprimecam_ia527 vlt_vimos_R subaru_suprimecam_ia550 sdss_r0 "
    "subaru_suprimecam_rp subaru_suprimecam_ia574 cfht_megacam_is_9701 mpgeso_wfi_Rc_eso844 "
    "subaru_suprimecam_ia598 subaru_suprimecam_Rc subaru_suprimecam_ia624 jwst_f070w "
    "subaru_suprimecam_ia651 sdss_i0 subaru_suprimecam_ia679 cfht_megacam_zs_9801 acs_wfc_f775w "
    "subaru_suprimecam_ip acs_wfc_f814w subaru_suprimecam_ia709 wfc3_uvis_f814w "
    "subaru_suprimecam_ia738 mpgeso_wfi_Ic_eso845 subaru_suprimecam_ia767 acs_wfc_f850lp "
    "subaru_suprimecam_ia797 sdss_z0 jwst_f090w vista_vircam_Z subaru_suprimecam_ia856 hsc_zpp "
    "subaru_suprimecam_ia827 subaru_suprimecam_zp wfc3_ir_f105w wfc3_ir_f160w wfc3_ir_f110w "
    "vista_vircam_Y vista_vircam_J hsc_y mayall_newfirm_J1 jwst_f115w vlt_isaac_J "
    "mayall_newfirm_J2 twomass_J wfc3_ir_f125w ukirt_wfcam_J subaru_moircs_J vista_vircam_Ks "
    "cfht_wircam_J_8101 mayall_newfirm_J3 wfc3_ir_f140w jwst_f150w jwst_f140m subaru_moircs_H "
    "twomass_H ukirt_wfcam_H vista_vircam_H mayall_newfirm_H1 cfht_wircam_H_8201 vlt_isaac_H "
    "jwst_f162m mayall_newfirm_H2 jwst_f182m jwst_f200w subaru_moircs_Ks jwst_f210m ukirt_wfcam_K "
    "twomass_Ks vlt_isaac_Ks mayall_newfirm_K cfht_wircam_Ks_8302 jwst_f277w jwst_f460m "
    "jwst_f444w jwst_f480m jwst_f300m jwst_f250m jwst_f356w jwst_f360m jwst_f335m jwst_f410m "
    "wise_w1 jwst_f430m spitzer_irac_ch1 spitzer_irac_ch2 wise_w2 spitzer_irac_ch3 jwst_f560w "
    "spitzer_irac_ch4 jwst_f770w jwst_f1000w jwst_f1130w jwst_f1280w jwst_f1500w jwst_f1800w "
    "jwst_f2100w spitzer_mips_24 jwst_f2550w herschel_pacs_100 herschel_pacs_70 herschel_pacs_160 "
    "herschel_spire_250 herschel_spire_350 herschel_spire_500 1d3mm"
)
"""The bands of Mathews+ (2023), in their order."""


class EmulatorSet(NamedTuple):
    """What an emulator is of."""

    bands: str
    redshift_range: tuple[float, float]
    title: str
    physics: str = "provabgs"


SETS = {
    "sdss": EmulatorSet(
        "sdss_u0 sdss_g0 sdss_r0 sdss_i0 sdss_z0", (0.0, 0.65), "SDSS ugriz, z 0-0.65"
    ),
    "goodss": EmulatorSet(GOODSS, (0.0, 4.0), "CANDELS GOODS-S, 17 bands, z 0-4"),
    "broad": EmulatorSet(BROAD, (0.0, 4.0), "44 bands from the far ultraviolet to IRAC, z 0-4"),
    "mathews137": EmulatorSet(
        MATHEWS137, (0.0, 3.0), "137 bands from the far ultraviolet to 1.3 mm, z 0-3", "prospector"
    ),
}


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
    chosen = SETS[options.set]
    galaxies = family(chosen.physics)
    name = f"{chosen.physics}_{options.set}"
    output = options.output or Path(__file__).with_name(f"emulator_{name}.h5")
    check_writable(output)
    settings = dataclasses.replace(
        CACHE_SETTINGS,
        n_train=options.train,
        width=options.width,
        fit=dataclasses.replace(CACHE_SETTINGS.fit, max_seconds=options.seconds),
    )
    emulator, history = train_emulator(
        jax.random.key(options.seed),
        galaxies,
        load_ssp(galaxies.ssp),
        [load_filter(band) for band in chosen.bands.split()],
        redshift_range=chosen.redshift_range,
        settings=settings,
        checkpoint=output.with_suffix(".checkpoint"),
    )
    emulator.save(output)
    title = f"{chosen.physics} photometry: {chosen.title}"
    files.write_text(output.with_suffix(".md"), model_card(emulator, title))
    output.with_suffix(".checkpoint").unlink(missing_ok=True)
    print(f"{output}: validation RMSE {history.best_loss:.5f} mag, {history.stopped}")


if __name__ == "__main__":
    main()
