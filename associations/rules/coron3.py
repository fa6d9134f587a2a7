"""Coronagraphs: calwebb_coron3, with a PSF reference; and the NIRCam coronagraph's open detectors as images."""

from associations.constraints import is_set, is_unset, none_of, one_of
from associations.rules.rule import HAS_SUBARRAY, LEVEL3_BASE, OPTICS, Level3Rule, Name, is_not_science

RULES = (
    Level3Rule(
        "Lv3MIRCoron",
        "coron3",
        where=(one_of("exp_type", ["mir_lyot", "mir_4qpm"]), *LEVEL3_BASE, is_unset("bkgdtarg"), HAS_SUBARRAY),
        key=(*OPTICS, "exp_type"),
        loose=is_not_science,
        needs=("science", "psf"),
    ),
    Level3Rule(
        "Lv3NRCCoron",
        "coron3",
        where=(
            one_of("exp_type", ["nrc_coron"]),
            *LEVEL3_BASE,
            is_unset("bkgdtarg"),
            is_set("nrccoron_ok"),
            HAS_SUBARRAY,
        ),
        key=(*OPTICS, "exp_type"),
        loose=is_not_science,
        needs=("science", "psf"),
    ),
    Level3Rule(
        "Lv3NRCCoronImage",
        "image3",
        where=(
            one_of("exp_type", ["nrc_coron"]),
            *LEVEL3_BASE,
            is_unset("bkgdtarg"),
            none_of("is_psf", ["t"]),
            one_of("channel", ["short"]),
            one_of("subarray", ["full"]),
        ),
        key=(*OPTICS, "exp_type", "channel"),
        loose=is_not_science,
        naming=Name.IMAGE3,
        keeps_coronagraphic_integrations=False,
    ),
)
