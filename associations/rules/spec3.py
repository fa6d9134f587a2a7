"""Spectra of a target or of the sources of a field: calwebb_spec3."""

from associations.constraints import either, is_set, is_unset, one_of
from associations.exposure import Exposure
from associations.rules.rule import HAS_SUBARRAY, LEVEL3_BASE, OPTICS, Level3Rule, Name

_NODS = ("2-point-nod", "4-point-nod", "along-slit-nod")
_WAVECAL = ("nrs_autoflat", "nrs_autowave")
_COMMON = (*LEVEL3_BASE, is_unset("tso"))


def is_background(exposure: Exposure) -> bool:
    """Whether it is an exposure of a background target."""
    return exposure["role"] == "background"


def _wfss(name: str, exp_type: str, column: str, grisms: tuple[str, ...], optics: tuple[str, ...]) -> Level3Rule:
    return Level3Rule(
        name,
        "spec3",
        where=(one_of("exp_type", [exp_type]), *LEVEL3_BASE, one_of(column, grisms)),
        key=("exp_type", *optics),
        loose=is_background,
        naming=Name.PATH,
        optics=optics,
    )


_MRS = (one_of("exp_type", ["mir_mrs"]), *_COMMON)
_IFU = (one_of("exp_type", ["nrs_ifu"]), *_COMMON, is_set("ifu_ok"))

RULES = (
    Level3Rule("Lv3MIRMRS", "spec3", where=_MRS, key=(), loose=is_background, naming=Name.INSTRUMENT),
    Level3Rule(
        "Lv3MIRMRSBackground",
        "spec3",
        where=(*_MRS, one_of("bkgdtarg", ["t"])),
        key=(),
        auxiliary=True,
        naming=Name.INSTRUMENT,
    ),
    Level3Rule(
        "Lv3NRSFSS",
        "spec3",
        where=(one_of("exp_type", ["nrs_fixedslit", *_WAVECAL]), *_COMMON, is_set("fss_ok"), HAS_SUBARRAY),
        key=OPTICS,
        loose=is_background,
        naming=Name.SLIT_SOURCE,
    ),
    Level3Rule(
        "Lv3NRSIFU",
        "spec3",
        where=(one_of("exp_type", ["nrs_ifu", "nrs_autowave"]), *_COMMON, is_set("ifu_ok"), is_set("patttype")),
        key=("patttype", "grating"),
        loose=is_background,
        naming=Name.PATH,
        optics=("grating",),
    ),
    Level3Rule(
        "Lv3NRSIFUBackground",
        "spec3",
        where=(*_IFU, one_of("bkgdtarg", ["t"])),
        key=("grating",),
        auxiliary=True,
        naming=Name.PATH,
        optics=("grating",),
    ),
    Level3Rule(
        "Lv3SlitlessSpectral",
        "spec3",
        where=(one_of("exp_type", ["nis_soss"]), *_COMMON, is_unset("patttype"), HAS_SUBARRAY),
        key=OPTICS,
        loose=is_background,
    ),
    Level3Rule(
        "Lv3SpecAux",
        "spec3",
        where=(
            one_of("exp_type", ["mir_lrs-fixedslit", "nrs_fixedslit"]),
            *_COMMON,
            one_of("bkgdtarg", ["t"]),
            HAS_SUBARRAY,
        ),
        key=(*OPTICS, "exp_type"),
        auxiliary=True,
    ),
    Level3Rule(
        "Lv3SpectralSource",
        "spec3",
        where=(
            either(
                "exp_type is nrs_msaspec with msametfl, nrs_autoflat or nrs_autowave",
                (one_of("exp_type", ["nrs_msaspec"]), is_set("msametfl")),
                (one_of("exp_type", _WAVECAL),),
            ),
            *_COMMON,
            HAS_SUBARRAY,
        ),
        key=OPTICS,
        loose=is_background,
        naming=Name.SOURCE,
    ),
    Level3Rule(
        "Lv3SpectralTarget",
        "spec3",
        where=(
            one_of("exp_type", ["mir_lrs-fixedslit", "nis_soss"]),
            *_COMMON,
            one_of("patttype", _NODS),
            HAS_SUBARRAY,
        ),
        key=(*OPTICS, "patttype"),
        loose=is_background,
        several_observations=False,
        x1d_twice=True,
    ),
    _wfss("Lv3WFSSMIR", "mir_wfss", "filter", ("p750l",), ("filter",)),
    _wfss("Lv3WFSSNIS", "nis_wfss", "filter", ("gr150r", "gr150c"), ("filter", "pupil")),
    _wfss("Lv3WFSSNRC", "nrc_wfss", "pupil", ("grismr", "grismc"), ("pupil", "filter")),
)
