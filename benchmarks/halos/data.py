"""Halos of CAMELS and mini-Millennium as the files that `jaxsed halos` reads.

    python -m benchmarks.halos.data FOLDER --output OUT

FOLDER holds `camels_astrid_25mpc_dev.npz` and `mini_millennium_z0.npz`.  Written are `train.h5`
and `test.h5`, boxes of CAMELS-ASTRID (Villaescusa-Navarro et al. 2021; Ni et al. 2023) drawn by the
seed, and `millennium.h5`, all of mini-Millennium with the galaxies of SAGE (Croton et al. 2016) as
one box.  V_max, which includes baryons, stands for V_peak in CAMELS, and halos have a galaxy above
1.3e8 Msun/h.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from jaxsed import halos as ha

TEST = 160
"""Boxes that no training and no choice sees."""


def camels(path: Path) -> ha.Halos:
    """896 boxes of 25 Mpc/h."""
    with np.load(path, allow_pickle=False) as data:
        power = lambda name: 10 ** data[name].astype(float)  # noqa: E731
        size = float(data["box_size_mpc_h"])
        return ha.halos(
            data["box"].astype(int), data["position_u16"].astype(float) / 2**16 * size,
            {
                "v_peak": power("log10_vmax_kms"), "mass_total": power("log10_mass_total_msun"),
                "sigma_v": power("log10_sigma_v_kms"), "is_central": data["is_central"],
            },
            box_size=size, hubble=float(data["hubble_h"]),
            stellar_mass=power("log10_mass_stars_msun"),
        )  # fmt: skip


def millennium(path: Path) -> ha.Halos:
    """One box of 62.5 Mpc/h."""
    hubble = 0.73
    with np.load(path, allow_pickle=False) as data:
        mass = {name: data[name].astype(float) * 1e10 / hubble for name in ("mpeak", "macc")}
        features = {
            "v_peak": data["vpeak"], "v_acc": data["vacc"], "v_max": data["vmax"],
            "m_peak": mass["mpeak"], "m_acc": mass["macc"], "spin": data["spin"],
            "satellite": data["type"], "m_host": data["centralmvir"].astype(float) * 1e10 / hubble,
        }  # fmt: skip
        resolved = mass["mpeak"] > 0
        return ha.halos(
            np.zeros(resolved.sum(), int), np.mod(data["pos"][resolved], 62.5),
            {name: column[resolved] for name, column in features.items()}, box_size=62.5,
            hubble=hubble, stellar_mass=data["mstar"][resolved].astype(float) * 1e10 / hubble,
            sfr=data["sfr"][resolved].astype(float),
        )  # fmt: skip


def main() -> None:
    """Read, divide, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    boxes = camels(options.folder / "camels_astrid_25mpc_dev.npz")
    order = np.random.default_rng(options.seed).permutation(len(boxes))
    parts = {"train": boxes.take(np.sort(order[TEST:])), "test": boxes.take(np.sort(order[:TEST])),
             "millennium": millennium(options.folder / "mini_millennium_z0.npz")}  # fmt: skip
    for name, part in parts.items():
        ha.write_halos(options.output / f"{name}.h5", part)
        print(f"{options.output / name}.h5: {part.box.size} halos in {len(part)} boxes")


if __name__ == "__main__":
    main()
