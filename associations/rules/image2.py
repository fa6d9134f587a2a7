"""Images of one exposure: calwebb_image2."""

from associations.constraints import either, is_set, is_unset, one_of, unless
from associations.exposure import IMAGE2_NONSCIENCE_TYPES, IMAGE2_TYPES
from associations.rules.rule import BASE, CONSISTENT, HAS_PROGRAM, MODE, MODE_OK, SCIENCE, Companions, Level2Rule

_IMAGE = one_of("exp_type", IMAGE2_TYPES)
_KEY = (*BASE, *MODE, "exp_type")

_NOT_SERIES = (_IMAGE, is_unset("tso"), HAS_PROGRAM, *MODE_OK, CONSISTENT)
_CORONAGRAPHIC = (
    one_of("exp_type", ["nrc_coron"]),
    one_of("subarray", ["full"]),
    is_set("nrccoron_ok"),
    HAS_PROGRAM,
    *MODE_OK,
    CONSISTENT,
)

RULES = (
    Level2Rule(
        "Lv2CoronAsRate",
        "image2",
        seed=(*_CORONAGRAPHIC, SCIENCE),
        key=_KEY,
        companions=(Companions((*_CORONAGRAPHIC, is_set("bkgdtarg")), _KEY),),
        keeps_coronagraphic_integrations=False,
    ),
    Level2Rule(
        "Lv2FGS",
        "image2",
        seed=(
            one_of("exp_type", ["fgs_image", "fgs_focus"]),
            HAS_PROGRAM,
            unless("it is no wavefront sensing visit", wfsc=True),
            SCIENCE,
        ),
    ),
    Level2Rule(
        "Lv2Image",
        "image2",
        seed=(*_NOT_SERIES, SCIENCE),
        key=_KEY,
        companions=(Companions((*_NOT_SERIES, is_set("bkgdtarg")), _KEY),),
    ),
    Level2Rule(
        "Lv2ImageNonScience",
        "image2",
        seed=(
            either(
                "it is a target acquisition, of a type that is only flat-fielded, or an image through the open MSA",
                (one_of("role", ["target_acquisition"]),),
                (one_of("exp_type", IMAGE2_NONSCIENCE_TYPES),),
                (
                    one_of("exp_type", ["nrs_msaspec"]),
                    one_of("msastate", ["primarypark_allopen"]),
                    one_of("grating", ["mirror"]),
                ),
            ),
            HAS_PROGRAM,
        ),
    ),
    Level2Rule(
        "Lv2ImageSpecial",
        "image2",
        seed=(_IMAGE, is_set("special"), HAS_PROGRAM, *MODE_OK),
        key=(*BASE, *MODE),
    ),
    Level2Rule("Lv2ImageTSO", "tso-image2", seed=(_IMAGE, is_set("tso"), HAS_PROGRAM, *MODE_OK, SCIENCE)),
    Level2Rule(
        "Lv2NRSLAMPImage",
        "image2",
        seed=(
            one_of("exp_type", ["nrs_lamp"]),
            one_of("grating", ["mirror"]),
            one_of("opmode", ["image", None]),
            HAS_PROGRAM,
        ),
    ),
    Level2Rule(
        "Lv2WFSC",
        "image2",
        seed=(
            _IMAGE,
            is_set("wfsc"),
            HAS_PROGRAM,
            SCIENCE,
            unless("it is no jitter test of nrc_image", exp_type="nrc_image", dms_note="wfsc_los_jitter"),
        ),
    ),
)
