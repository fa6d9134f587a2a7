"""What the rules want to know of an exposure, worked out once from its row of the pool.

Sources: the tables of exposure types and of optical elements that leave light on a detector are facts of the instruments
(JWST user documentation: "NIRSpec Dispersers and Filters", "NIRSpec Detectors", "NIRCam Coronagraphic Imaging"; and the
``jwst`` documentation, "Associations").
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

from associations.pool import Row

#: A row of the pool and the columns that ``describe`` adds.
Exposure = Mapping[str, Any]

ACQUISITION_TYPES = frozenset(
    """mir_tacq mir_taconfirm nis_tacq nis_taconfirm nrc_tacq nrc_taconfirm nrs_confirm nrs_msata nrs_taconfirm nrs_tacq
    nrs_taslit nrs_verify nrs_wata""".split()
)
TSO_TYPES = frozenset("nrc_tsimage nrc_tsgrism nrs_brightobj".split())
CORONAGRAPHIC_TYPES = frozenset("mir_4qpm mir_lyot nrc_coron".split())

#: Images that stage 2 calibrates as science, and those that it only flat-fields.
IMAGE2_TYPES = frozenset(
    "fgs_image mir_4qpm mir_image mir_lyot nis_ami nis_image nrc_coron nrc_image nrs_mimf nrc_tsimage".split()
)
IMAGE2_NONSCIENCE_TYPES = ACQUISITION_TYPES | frozenset("mir_coroncal nis_focus nrc_focus nrs_focus nrs_image".split())
SPEC2_TYPES = frozenset(
    """mir_lrs-fixedslit mir_lrs-slitless mir_mrs mir_wfss nis_soss nis_wfss nrc_tsgrism nrc_wfss nrs_fixedslit nrs_ifu
    nrs_msaspec nrs_brightobj""".split()
)

#: The role of an exposure of this type whatever its flags; a type that is not here is science by its type.
ROLE_OF_TYPE: Mapping[str, str] = {
    **dict.fromkeys(ACQUISITION_TYPES - {"nrs_verify"}, "target_acquisition"),
    **dict.fromkeys("mir_darkall mir_darkimg mir_darkmrs nis_dark nrc_dark nrs_dark".split(), "dark"),
    **dict.fromkeys("mir_flatimage mir_flatimage-ext mir_flatmrs mir_flatmrs-ext nrc_flat".split(), "flat"),
    **dict.fromkeys("nis_focus nis_lamp nrc_focus nrc_led nrs_focus nrs_image nrs_lamp".split(), "engineering"),
    "nrs_autoflat": "autoflat",
    "nrs_autowave": "autowave",
}

# NIRSpec: (grating, filter). On NRS2 there is light of the long-wave half of the high-resolution spectra only.
_HIGH_NRS2 = frozenset((("g140h", "f100lp"), ("g235h", "f170lp"), ("g395h", "f290lp")))
_HIGH = _HIGH_NRS2 | {("g140h", "f070lp")}
_MEDIUM = frozenset((("g140m", "f070lp"), ("g140m", "f100lp"), ("g235m", "f170lp"), ("g395m", "f290lp")))
_NRS1 = _HIGH | _MEDIUM | {("prism", "clear")}
_DISPERSED = {"nrs1": _NRS1, "nrs2": _HIGH_NRS2}
# The slit S200B1 lies beside the others: its spectra fall on NRS2, those of the shortest setting on both.
_DISPERSED_S200B1 = {"nrs1": frozenset((("g140h", "f070lp"), ("g140m", "f070lp"))), "nrs2": _NRS1}

# NIRSpec fixed-slit calibration: the lamps that fill the range of a grating.
_LAMPS = {
    "prism": frozenset("line4 flat5 test".split()),
    **dict.fromkeys(("g395m", "g395h"), frozenset("flat3 line3".split())),
    **dict.fromkeys(("g235m", "g235h"), frozenset("flat2 line2".split())),
    "g140m": frozenset("flat1 line1 flat4".split()),
    "g140h": frozenset("flat1 line1 flat4 ref".split()),
}

# NIRCam full frame: the detectors of module A that have no part of that occulter.
_NO_OCCULTER = {*product(["maskbar"], ["nrca1", "nrca2", "nrca3"]), *product(["maskrnd"], ["nrca1", "nrca3", "nrca4"])}


def describe(row: Row) -> Exposure:
    """A row of the pool with the columns that the rules use.

    ``elem1``, ``elem2`` : the two optical elements; ``subpx`` : number of sub-pixel points; ``special`` : the flag that
    sets the exposure apart, as (column, value); ``role`` : what it would be as a member; ``tso`` : it is a time series;
    ``n_tso``, ``n_ami``, ``n_coron`` : it keeps its integrations, and why; ``wfsc``, ``haswfsc`` : wavefront sensing;
    ``ifu_ok``, ``fss_ok``, ``lamp_ok``, ``nrccoron_ok`` : light reaches this detector; ``slitclass`` : the slit, with the
    two slits S200A1 and S200A2 as one; ``contradicts`` : flagged both as PSF reference and background.
    """
    exposure: dict[str, Any] = dict(row)
    kind = exposure["exp_type"] or ""
    exposure["exp_type"] = kind
    exposure["elem1"] = row["filter"] or row["band"]
    exposure["elem2"] = row["pupil"] or row["grating"]
    exposure["subpx"] = row["subpxpts"]
    exposure["special"] = next(((flag, row[flag]) for flag in ("bkgdtarg", "is_psf") if row[flag]), None)
    exposure["role"] = _role(row, kind)
    named = None not in (row["detector"], row["subarray"], row["pupil"])
    exposure["nrccoron_ok"] = named and not _lacks_occulter(row)
    pointed = row["pntgtype"] == "science"
    series = row["tsovisit"] == "t" or kind in TSO_TYPES
    exposure["tso"] = pointed and series
    counts = pointed and kind not in ACQUISITION_TYPES
    exposure["n_tso"] = counts and series
    exposure["n_ami"] = counts and kind == "nis_ami"
    exposure["n_coron"] = counts and kind in CORONAGRAPHIC_TYPES and not (kind == "nrc_coron" and _lacks_occulter(row))
    visit = row["visitype"] or ""
    exposure["haswfsc"] = "wfsc" in visit
    exposure["wfsc"] = "wfsc" in visit[1:-1]
    exposure["ifu_ok"] = kind != "nrs_ifu" or (row["grating"], row["filter"]) in _DISPERSED.get(
        row["detector"] or "", ()
    )
    exposure["fss_ok"] = _slit_is_lit(row)
    exposure["lamp_ok"] = _lamp_is_seen(row)
    slit = row["fxd_slit"]
    exposure["slitclass"] = "s200a1" if slit == "s200a2" else slit
    exposure["contradicts"] = bool(row["is_psf"] and row["bkgdtarg"])
    return exposure


def _role(row: Row, kind: str) -> str:
    purpose = row["pntgtype"]
    if purpose is not None and purpose != "science":
        return purpose
    if kind in ROLE_OF_TYPE:
        return ROLE_OF_TYPE[kind]
    if row["is_psf"]:
        return "psf"
    if row["is_imprt"]:
        return "imprint"
    return "background" if row["bkgdtarg"] else "science"


def _lacks_occulter(row: Row) -> bool:
    return row["subarray"] == "full" and (row["pupil"], row["detector"]) in _NO_OCCULTER


def _slit_is_lit(row: Row) -> bool:
    slit, grating, filter_, detector = (row[name] for name in ("fxd_slit", "grating", "filter", "detector"))
    if None in (slit, grating, filter_, detector):
        return False
    settings = _DISPERSED_S200B1 if slit == "s200b1" else _DISPERSED
    return (grating, filter_) in settings.get(str(detector), ())


def _lamp_is_seen(row: Row) -> bool:
    detector, grating, mode, lamp = (row[name] for name in ("detector", "grating", "opmode", "lamp"))
    if mode == "msaspec":
        return None not in (detector, grating)
    if None in (detector, grating, mode, lamp):
        return False
    if mode == "fixedslit":
        return lamp in _LAMPS.get(str(grating), ())
    if mode != "ifu":
        return False
    if grating in ("g395h", "g235h"):
        return True
    if grating == "g140h":
        return not (detector == "nrs2" and lamp == "flat4")
    return detector == "nrs1" and grating in ("prism", "g140m", "g235m", "g395m")
