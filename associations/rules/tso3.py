"""Time series of one observation: calwebb_tso3."""

from associations.constraints import is_set, none_of, unless
from associations.rules.rule import HAS_SUBARRAY, LEVEL3_BASE, OPTICS, Level3Rule
from associations.rules.spec3 import is_background

#: Subarrays of NIRCam's dispersed Hartmann sensor in several stripes.
_STRIPES = ("sub260stripe4_dhs", "sub41stripe1_dhs", "sub82stripe2_dhs", "sub164stripe4_dhs")

RULES = (
    Level3Rule(
        "Lv3TSO",
        "tso3",
        where=(
            is_set("tso"),
            *LEVEL3_BASE,
            none_of("exp_type", ["mir_mrs", "mir_flatmrs", "nrs_autowave", "nrs_ifu"]),
            unless(
                "it is no grism time series without a grism", exp_type="nrc_tsgrism", pupil=("clear", "gdhs0", "gdhs60")
            ),
            unless("it is no grism time series of nrcblong", exp_type="nrc_tsgrism", detector="nrcblong"),
            none_of("subarray", _STRIPES),
            unless("it is no soss exposure of one integration", exp_type="nis_soss", nints="1"),
            unless("it is no soss exposure of order 1 alone", exp_type="nis_soss", filter=("f277w", None)),
            unless("light of its slit reaches the detector", exp_type="nrs_brightobj", fss_ok=False),
            HAS_SUBARRAY,
        ),
        key=(*OPTICS, "exp_type"),
        loose=is_background,
        scopes=("observation",),
    ),
)
