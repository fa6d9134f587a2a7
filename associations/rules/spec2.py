"""Spectra of one exposure: calwebb_spec2, with backgrounds, nods, imprints and direct images."""

from associations.constraints import is_set, is_unset, none_of, one_of, unless
from associations.exposure import SPEC2_TYPES, Exposure
from associations.rules.rule import (
    BASE,
    CONSISTENT,
    HAS_PROGRAM,
    MODE,
    MODE_OK,
    SCIENCE,
    Companions,
    Finish,
    Level2Rule,
)

_SPECTRUM = one_of("exp_type", SPEC2_TYPES)
_NODS = ("2-point-nod", "4-point-nod", "along-slit-nod")
_OTHER_ROLE = none_of("role", ["science", "psf"])
_PATH = (*BASE, *MODE, "exp_type")


def is_same_point(science: Exposure, other: Exposure) -> bool:
    """Whether two exposures are of the same dither point along the slit.

    The archive's associations take point 12 for a repetition of points 1 and 2, as its number contains theirs. Patterns
    that fly have two points, to which this makes no difference; so it is done here as there.
    """
    return science["patt_num"] in other["patt_num"]


def overlaps(science: Exposure, other: Exposure) -> bool:
    """Whether the spectra of two nods of a slit or of shutters would overlap on the detector.

    Sub-pixel dithers of one primary point are too close, and so are neighbours among five points in the short slit
    S1600A1.
    """
    if science["targetid"] != other["targetid"]:
        return True
    is_slit = science["exp_type"] == "nrs_fixedslit"
    here, there = _primary_point(science), _primary_point(other)
    if here is None or there is None:
        return is_slit
    distance = abs(here[0] - there[0])
    return distance == 0 or (is_slit and science["fxd_slit"] == "s1600a1" and here[1] == 5 and distance <= 1)


def _primary_point(exposure: Exposure) -> tuple[int, int] | None:
    """The primary dither point and how many there are; None where the pool does not tell."""
    point, total, subpixels = (_number(exposure[column]) for column in ("patt_num", "numdthpt", "subpx"))
    if point is None or total is None or not subpixels:
        return None
    return (point - 1) // subpixels, total // subpixels


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _wfss(name: str, grism: str, image: str, *key: str) -> Level2Rule:
    columns = ("program", "tsovisit", "targetid", "instrume", *key)
    return Level2Rule(
        name,
        "spec2",
        seed=(one_of("exp_type", [grism]), HAS_PROGRAM, is_set(*key, "instrume"), SCIENCE),
        key=columns,
        companions=(Companions((one_of("exp_type", [image]), one_of("role", ["science"])), columns),),
        finish=Finish.DIRECT_IMAGE,
    )


_LRS_NOD = (
    one_of("exp_type", ["mir_lrs-fixedslit"]),
    one_of("patttype", ["along-slit-nod"]),
    is_set("patt_num"),
    HAS_PROGRAM,
    SCIENCE,
)
_CONFIRMATION = Companions((one_of("exp_type", ["mir_taconfirm"]),), ("program", "obs_num"), "target_acquisition")
_LRS = (one_of("exp_type", ["mir_lrs-slitless", "mir_lrs-fixedslit"]), HAS_PROGRAM, *MODE_OK, CONSISTENT)

_FIXED_SLIT = (one_of("exp_type", ["nrs_fixedslit"]), is_set("fss_ok"), HAS_PROGRAM, *MODE_OK)
_FIXED_SLIT_NOD = (*_FIXED_SLIT, SCIENCE, is_set("expspcin", "numdthpt", "subpx"))
_FIXED_SLIT_KEY = (*_PATH, "expspcin", "numdthpt", "subpx")

_IFU_NOD = (
    one_of("exp_type", ["nrs_ifu"]),
    is_set("ifu_ok"),
    one_of("patttype", ["2-point-nod", "4-point-nod"]),
    is_set("mostilno"),
    HAS_PROGRAM,
    *MODE_OK,
)
_IFU_NOD_KEY = (*_PATH, "patttype", "mostilno")

_SHUTTERS = (one_of("exp_type", ["nrs_msaspec"]), is_set("msametfl"), is_set("expspcin"), HAS_PROGRAM, *MODE_OK)
_SHUTTERS_KEY = (*_PATH, "msametfl", "expspcin")

_PLAIN = (
    one_of("exp_type", "mir_mrs mir_wfss nis_soss nrc_tsgrism nrs_ifu nrs_brightobj".split()),
    is_unset("tso"),
    none_of("patttype", _NODS),
    is_set("ifu_ok"),
    is_set("mostilno"),
    HAS_PROGRAM,
    *MODE_OK,
    CONSISTENT,
)

RULES = (
    Level2Rule(
        "Lv2MIRLRSFixedSlitNod",
        "spec2",
        seed=_LRS_NOD,
        companions=(Companions(_LRS_NOD, BASE, "background", unless=is_same_point), _CONFIRMATION),
        scopes=("observation",),
    ),
    Level2Rule(
        "Lv2NRSFSS",
        "spec2",
        seed=_FIXED_SLIT_NOD,
        key=_FIXED_SLIT_KEY,
        companions=(
            Companions(_FIXED_SLIT_NOD, _FIXED_SLIT_KEY, "background", unless=overlaps),
            Companions((*_FIXED_SLIT, _OTHER_ROLE), _PATH),
        ),
    ),
    Level2Rule(
        "Lv2NRSIFUNod",
        "spec2",
        seed=(*_IFU_NOD, SCIENCE),
        key=_IFU_NOD_KEY,
        companions=(
            Companions((*_IFU_NOD, SCIENCE), _IFU_NOD_KEY, "background"),
            Companions((*_IFU_NOD, _OTHER_ROLE), _IFU_NOD_KEY),
        ),
        finish=Finish.PRUNE_GROUP_IMPRINTS,
    ),
    Level2Rule(
        "Lv2NRSLAMPSpectral",
        "nrslamp-spec2",
        seed=(
            one_of("exp_type", ["nrs_lamp", "nrs_autoflat", "nrs_autowave"]),
            one_of("filter", ["opaque"]),
            is_set("lamp_ok"),
            is_set("lamp"),
            none_of("lamp", ["nolamp"]),
            none_of("grating", ["mirror"]),
            none_of("opmode", ["grating-only"]),
            unless("opmode is not msaspec, or msametfl is set", opmode="msaspec", msametfl=None),
            HAS_PROGRAM,
        ),
    ),
    Level2Rule(
        "Lv2NRSMSA",
        "spec2",
        seed=(*_SHUTTERS, SCIENCE),
        key=_SHUTTERS_KEY,
        companions=(
            Companions((*_SHUTTERS, SCIENCE), _SHUTTERS_KEY, "background", unless=overlaps),
            Companions((*_SHUTTERS, _OTHER_ROLE), _SHUTTERS_KEY),
        ),
    ),
    Level2Rule(
        "Lv2Spec",
        "spec2",
        seed=(*_PLAIN, SCIENCE),
        key=(*_PATH, "mostilno"),
        companions=(
            Companions((*_PLAIN, is_set("bkgdtarg")), _PATH),
            Companions((*_PLAIN, is_unset("bkgdtarg"), one_of("role", ["imprint"])), (*_PATH, "mostilno")),
        ),
        finish=Finish.PRUNE_IMPRINTS,
    ),
    Level2Rule(
        "Lv2SpecImprint",
        "spec2",
        seed=(_SPECTRUM, is_set("is_imprt"), is_set("ifu_ok"), HAS_PROGRAM, *MODE_OK),
    ),
    Level2Rule(
        "Lv2SpecSpecial",
        "spec2",
        seed=(_SPECTRUM, is_set("special"), is_unset("is_imprt"), is_set("ifu_ok"), HAS_PROGRAM, *MODE_OK),
        key=(*_PATH, "special", "mostilno"),
        companions=(
            Companions(
                (_SPECTRUM, is_set("special"), is_set("is_imprt"), is_set("ifu_ok"), HAS_PROGRAM, *MODE_OK),
                (*_PATH, "special", "mostilno"),
                "imprint",
            ),
        ),
        finish=Finish.PRUNE_IMPRINTS,
    ),
    Level2Rule(
        "Lv2SpecTSO",
        "tso-spec2",
        seed=(
            one_of("exp_type", SPEC2_TYPES - {"nrs_msaspec", "nrs_fixedslit", "mir_lrs-fixedslit", "mir_lrs-slitless"}),
            is_set("tso"),
            HAS_PROGRAM,
            *MODE_OK,
            SCIENCE,
            unless("it is no grism time series without a grism", exp_type="nrc_tsgrism", pupil="clear"),
            unless("light of its slit reaches the detector", exp_type="nrs_brightobj", fss_ok=False),
            unless("it is no soss exposure of order 1 alone", exp_type="nis_soss", filter=("f277w", None)),
        ),
    ),
    _wfss("Lv2WFSSMIR", "mir_wfss", "mir_image", "detector"),
    _wfss("Lv2WFSSNIS", "nis_wfss", "nis_image", "pupil", "subarray"),
    _wfss("Lv2WFSSNRC", "nrc_wfss", "nrc_image", "detector"),
    Level2Rule(
        "Lv2WFSSParallel",
        "spec2",
        seed=(one_of("exp_type", ["nis_wfss", "nrc_wfss", "mir_wfss"]), HAS_PROGRAM, SCIENCE),
        key=(*BASE, "instrume"),
        companions=(
            Companions(
                (one_of("exp_type", ["nis_image", "nrc_image", "mir_image"]), one_of("role", ["science"])),
                (*BASE, "instrume"),
            ),
        ),
        finish=Finish.PARALLEL_IMAGE,
        scopes=("direct_image",),
    ),
    Level2Rule(
        "MIRLRSTAConfirm",
        "spec2",
        seed=(*_LRS, SCIENCE),
        key=(*BASE, *MODE),
        companions=(Companions((*_LRS, is_set("bkgdtarg"), is_unset("tso")), (*BASE, *MODE)), _CONFIRMATION),
    ),
)
