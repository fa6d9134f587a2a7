"""Aperture-masking interferometry: calwebb_ami3, with a PSF reference."""

from associations.constraints import one_of
from associations.rules.rule import HAS_SUBARRAY, LEVEL3_BASE, OPTICS, Level3Rule, is_not_science

RULES = (
    Level3Rule(
        "Lv3AMI",
        "ami3",
        where=(one_of("exp_type", ["nis_ami"]), *LEVEL3_BASE, HAS_SUBARRAY),
        key=(*OPTICS, "exp_type"),
        loose=is_not_science,
        needs=("science", "psf"),
    ),
)
