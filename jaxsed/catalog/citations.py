"""What to cite: the work behind each component, and which components a configuration uses."""

from __future__ import annotations

from jaxsed.catalog.config import Config

# component -> what it is here, and its references
CITATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "provabgs": (
        "PROVABGS physics: star formation and metallicity histories, priors",
        (
            "Hahn, C., Kwon, K. J., Tojeiro, R., et al. 2023, ApJ, 945, 16 (arXiv:2202.01809)",
            "Kwon, K. J., Hahn, C., & Alsing, J. 2023, ApJS, 265, 23 (arXiv:2209.14323)",
        ),
    ),
    "emulator": (
        "photometric emulators, arsinh magnitudes, likelihood",
        ("Mathews, E. P., Leja, J., et al. 2023, ApJ, 954, 132 (arXiv:2306.16442)",),
    ),
    "pegase2": (
        "stellar populations with nebular emission",
        (
            "Fioc, M., & Rocca-Volmerange, B. 1997, A&A, 326, 950",
            "Fioc, M., & Rocca-Volmerange, B. 1999, arXiv:astro-ph/9912179",
            "Kroupa, P. 2001, MNRAS, 322, 231",
        ),
    ),
    "dust": (
        "dust attenuation",
        (
            "Charlot, S., & Fall, S. M. 2000, ApJ, 539, 718",
            "Kriek, M., & Conroy, C. 2013, ApJL, 775, L16",
            "Calzetti, D., Armus, L., Bohlin, R. C., et al. 2000, ApJ, 533, 682",
        ),
    ),
    "inoue2014": (
        "intergalactic absorption",
        ("Inoue, A. K., Shimizu, I., Iwata, I., & Tanaka, M. 2014, MNRAS, 442, 1805",),
    ),
    "madau1995": ("intergalactic absorption", ("Madau, P. 1995, ApJ, 441, 18",)),
    "planck15": ("cosmology", ("Planck Collaboration XIII 2016, A&A, 594, A13",)),
    "planck13": ("cosmology", ("Planck Collaboration XVI 2014, A&A, 571, A16",)),
    "wmap9": ("cosmology", ("Hinshaw, G., Larson, D., Komatsu, E., et al. 2013, ApJS, 208, 19",)),
    "nuts": (
        "sampler",
        (
            "Hoffman, M. D., & Gelman, A. 2014, Journal of Machine Learning Research, 15, 1593",
            "Cabezas, A., Corenflos, A., Lao, J., & Louf, R. 2024, arXiv:2402.10797 (BlackJAX)",
        ),
    ),
    "auto": (
        "amortised posterior, importance weights",
        (
            "Hahn, C., & Melchior, P. 2022, ApJ, 938, 11 (SEDflow)",
            "Papamakarios, G., Pavlakou, T., & Murray, I. 2017, arXiv:1705.07057",
            "Vehtari, A., Simpson, D., Gelman, A., Yao, Y., & Gabry, J. 2024, Journal of Machine "
            "Learning Research, 25, 72",
        ),
    ),
    "hmc": (
        "sampler",
        (
            "Duane, S., Kennedy, A. D., Pendleton, B. J., & Roweth, D. 1987, Physics Letters B, "
            "195, 216",
            "Cabezas, A., Corenflos, A., Lao, J., & Louf, R. 2024, arXiv:2402.10797 (BlackJAX)",
        ),
    ),
    "mclmc": (
        "sampler",
        (
            "Robnik, J., De Luca, G. B., Silverstein, E., & Seljak, U. 2023, Journal of Machine "
            "Learning Research, 24, 311",
            "Cabezas, A., Corenflos, A., Lao, J., & Louf, R. 2024, arXiv:2402.10797 (BlackJAX)",
        ),
    ),
    "chees": (
        "sampler",
        (
            "Hoffman, M., Radul, A., & Sountsov, P. 2021, Proceedings of Machine Learning "
            "Research, 130, 3907",
            "Cabezas, A., Corenflos, A., Lao, J., & Louf, R. 2024, arXiv:2402.10797 (BlackJAX)",
        ),
    ),
    "numpyro": (
        "sampler",
        (
            "Hoffman, M. D., & Gelman, A. 2014, Journal of Machine Learning Research, 15, 1593",
            "Phan, D., Pradhan, N., & Jankowiak, M. 2019, arXiv:1912.11554 (NumPyro)",
        ),
    ),
    "ensemble_slice": (
        "sampler",
        (
            "Karamanis, M., & Beutler, F. 2021, Statistics and Computing, 31, 61",
            "Karamanis, M., Beutler, F., & Peacock, J. A. 2021, MNRAS, 508, 3589",
            "Phan, D., Pradhan, N., & Jankowiak, M. 2019, arXiv:1912.11554 (NumPyro)",
        ),
    ),
    "aies": (
        "sampler",
        (
            "Goodman, J., & Weare, J. 2010, Communications in Applied Mathematics and "
            "Computational Science, 5, 65",
            "Foreman-Mackey, D., Hogg, D. W., Lang, D., & Goodman, J. 2013, PASP, 125, 306",
            "Phan, D., Pradhan, N., & Jankowiak, M. 2019, arXiv:1912.11554 (NumPyro)",
        ),
    ),
    "nested": (
        "nested sampling",
        (
            "Skilling, J. 2006, Bayesian Analysis, 1, 833",
            "Yallup, D., Kroupa, N., & Handley, W. 2026, arXiv:2601.23252",
            "Cabezas, A., Corenflos, A., Lao, J., & Louf, R. 2024, arXiv:2402.10797 (BlackJAX)",
        ),
    ),
    "continuity": (
        "continuity star formation history, mass-metallicity prior",
        (
            "Leja, J., Carnall, A. C., Johnson, B. D., et al. 2019, ApJ, 876, 3",
            "Gallazzi, A., Charlot, S., Brinchmann, J., White, S. D. M., & Tremonti, C. A. 2005, "
            "MNRAS, 362, 41",
        ),
    ),
    "prospector": (
        "Prospector-like physics: priors; gas, dust emission and active nucleus",
        (
            "Leja, J., Johnson, B. D., Conroy, C., van Dokkum, P. G., & Byler, N. 2017, ApJ, 837, "
            "170",
            "Leja, J., Carnall, A. C., Johnson, B. D., et al. 2019, ApJ, 876, 3",
            "Gallazzi, A., Charlot, S., Brinchmann, J., White, S. D. M., & Tremonti, C. A. 2005, "
            "MNRAS, 362, 41",
            "Byler, N., Dalcanton, J. J., Conroy, C., & Johnson, B. D. 2017, ApJ, 840, 44",
            "Draine, B. T., & Li, A. 2007, ApJ, 657, 810",
            "Nenkova, M., Sirocky, M. M., Nikutta, R., et al. 2008, ApJ, 685, 160",
        ),
    ),
    "stars": (
        "labels of stars: networks, the Cannon, element windows",
        (
            "Leung, H. W., & Bovy, J. 2019, MNRAS, 483, 3255 (arXiv:1808.04428)",
            "Fabbro, S., Venn, K. A., O'Briain, T., et al. 2018, MNRAS, 475, 2978 (StarNet)",
            "Ness, M., Hogg, D. W., Rix, H.-W., Ho, A. Y. Q., & Zasowski, G. 2015, ApJ, 808, 16",
            "Garcia Perez, A. E., Allende Prieto, C., Holtzman, J. A., et al. 2016, AJ, 151, 144",
        ),
    ),
    "halos": (
        "halos and galaxies: networks, mass functions of halos, the relation of their masses",
        (
            "Nadler, E. O., & To, C.-H. 2018, Efficient neural network implementation of the "
            "UniverseMachine",
            "Behroozi, P., Wechsler, R. H., Hearin, A. P., & Conroy, C. 2019, MNRAS, 488, 3143",
            "Behroozi, P. S., Wechsler, R. H., & Conroy, C. 2013, ApJ, 770, 57",
            "Tinker, J., Kravtsov, A. V., Klypin, A., et al. 2008, ApJ, 688, 709",
            "Diemer, B. 2018, ApJS, 239, 35 (colossus)",
            "Pedregosa, F., Varoquaux, G., Gramfort, A., et al. 2011, JMLR, 12, 2825 "
            "(scikit-learn)",
        ),
    ),
    "diagnostics": (
        "convergence diagnostics",
        (
            "Vehtari, A., Gelman, A., Simpson, D., Carpenter, B., & Bürkner, P.-C. 2021, Bayesian "
            "Analysis, 16, 667",
            "Cabezas, A., Corenflos, A., Lao, J., & Louf, R. 2024, arXiv:2402.10797 (BlackJAX)",
        ),
    ),
    "software": (
        "libraries",
        (
            "Bradbury, J., Frostig, R., Hawkins, P., et al. 2018, JAX: composable transformations "
            "of Python+NumPy programs",
            "Astropy Collaboration 2022, ApJ, 935, 167",
            "Harris, C. R., Millman, K. J., et al. 2020, Nature, 585, 357 (NumPy)",
            "Johnson, B. D. 2019, Astrophysics Source Code Library, ascl:1905.026 (sedpy)",
        ),
    ),
}


def components(config: Config | None = None, *, predictor: str | None = None) -> list[str]:
    """Names in `CITATIONS` that a run used; all of them without a configuration.

    `predictor` is what the run recorded: "emulator" or "physics".
    """
    if config is None:
        return list(CITATIONS)
    model = config.model
    grid = model.grid.removesuffix("_stellar")
    used = {model.physics, grid, "dust", model.igm, model.cosmology, config.sampler.method}
    used |= set(config.sampler.fallback)
    if config.sampler.method == "auto":
        used.add("hmc")
    used |= {"diagnostics", "software"}
    if predictor != "physics":
        used.add("emulator")
    return [name for name in CITATIONS if name in used]
