"""Headers of raw exposures, with what the archive's files have."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.time import Time

from calibration.simulate import nircam, niriss
from calibration.simulate.detector import Readout
from calibration.simulate.field import Distortion, Pointing, angles_to_sky, pixel_to_sky
from calibration.simulate.imager import Imager
from calibration.simulate.references import SENSORS
from calibration.subarrays import Subarray
from infra.synthetic.reference_format import DATE

PROGRAM, OBSERVATION = "09801", "001"
BARYCENTRIC_DELAY = 141.6  # [s], barycentric minus local time of the made-up epoch
HELIOCENTRIC_DELAY = 138.2  # [s]


@dataclass(frozen=True)
class Exposure:
    """One exposure of the program by one detector.

    Parameters
    ----------
    imager
        Optics, mode and read pattern.
    detector
        One of the imager's.
    visit
        Number of the visit, from 1; each tile of a mosaic is one.
    activity
        Number of the activity in the visit, from 1; one per exposure specification.
    number
        Number of the exposure in the activity, from 1: its dither point.
    count
        Exposures of the activity.
    specification
        Ordinal of the exposure specification (the pool's ``expspcin``).
    running
        Running number in the visit, from 1.
    dither
        Step of the telescope along (V2, V3) [arcsec].
    readout
        Groups and frames.
    start
        Modified Julian date (UTC) of the start.
    """

    imager: Imager
    detector: str
    visit: int
    activity: int
    number: int
    count: int
    specification: int
    running: int
    dither: tuple[float, float]
    readout: Readout
    start: float

    @property
    def visit_id(self) -> str:
        """Program, observation and visit."""
        return f"{PROGRAM}{OBSERVATION}{self.visit:03}"

    @property
    def root(self) -> str:
        """File name without suffix."""
        return f"jw{self.visit_id}_021{self.activity:02}_{self.number:05}_{self.detector.lower()}"

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return duration(self.readout)


def duration(readout: Readout) -> float:
    """Seconds from start to end: all frames, and one reset frame between integrations."""
    return (readout.nints * readout.frames + readout.nints - 1) * readout.tframe


def exposure_cards(
    exposure: Exposure, pointing: Pointing, area: Subarray, subarray: str, target: tuple[float, float], planned: int
) -> dict[str, Any]:
    """FITS keyword -> value of a raw exposure of an area of the detector; ``planned`` exposures are in the visit."""
    readout, imager = exposure.readout, exposure.imager
    fastaxis, slowaxis = _axes(exposure.detector)
    day = 1 / 86400
    end = exposure.start + exposure.duration * day
    middle = 0.5 * (exposure.start + end)
    begin, finish = (Time(mjd, format="mjd", scale="utc").isot for mjd in (exposure.start, end))
    effective = readout.ngroups * readout.nframes * readout.tframe
    identity = exposure.visit_id
    cards: dict[str, Any] = {
        "DATE": DATE, "ORIGIN": "STSCI", "TIMESYS": "UTC", "TIMEUNIT": "s", "FILENAME": f"{exposure.root}_uncal.fits",
        "SDP_VER": "2023_2a", "PRD_VER": "PRDOPSSOC-063", "OSS_VER": "8.4.9", "GSC_VER": "GSC30",
        "TELESCOP": "JWST", "HGA_MOVE": False, "PWFSEET": exposure.start - 1.2, "NWFSEST": exposure.start + 1.1,
        "COMPRESS": False,
        "TITLE": "A synthetic field", "PI_NAME": "Calweave", "CATEGORY": "CAL", "SUBCAT": imager.instrument,
        "DATE-OBS": begin[:10], "TIME-OBS": begin[11:], "DATE-BEG": begin, "DATE-END": finish,
        "OBS_ID": f"V{identity}P00000000021{exposure.activity:02}", "VISIT_ID": identity,
        "PROGRAM": PROGRAM, "OBSERVTN": OBSERVATION, "VISIT": f"{exposure.visit:03}", "VISITGRP": "02", "SEQ_ID": "1",
        "ACT_ID": f"{exposure.activity:02}", "EXPOSURE": str(exposure.number),
        "BKGDTARG": False, "TEMPLATE": _TEMPLATES[imager.instrument], "OBSFOLDR": "Synthetic",
        "ENG_QUAL": "OK", "ENGQLPTG": "CALCULATED_TRACK_TR_202111", "VISITYPE": "PRIME_TARGETED_FIXED",
        "VSTSTART": "2023-07-14 09:40:00.0000000", "VISITSTA": "SUCCESSFUL", "NEXPOSUR": planned,
        "INTARGET": False, "TARGOOPP": False, "TSOVISIT": False, "EXP_ONLY": False, "CROWDFLD": False,
        "TARGPROP": "SYNTHETIC-FIELD", "TARGNAME": "SYNTHETIC FIELD", "TARGTYPE": "FIXED",
        "TARG_RA": target[0], "TARG_DEC": target[1], "TARGURA": 0.0, "TARGUDEC": 0.0,
        "MU_RA": 0.0, "MU_DEC": 0.0, "MU_EPOCH": "2023-07-14 00:00:00.0000000", "PROP_RA": target[0], "PROP_DEC": target[1],
        "INSTRUME": imager.instrument, "DETECTOR": exposure.detector, **_optics_cards(exposure),
        "EXPCOUNT": exposure.running, "EXPRIPAR": "PRIME", "EXP_TYPE": imager.exp_type,
        "EXPSTART": exposure.start, "EXPMID": middle, "EXPEND": end, "OSF_FILE": "2023195T120000000_001_osf.xml",
        "READPATT": imager.pattern, "NOUTPUTS": 4 if area == imager.detector_area or imager.instrument == "MIRI" else 1,
        "NINTS": readout.nints, "NGROUPS": readout.ngroups, "NFRAMES": readout.nframes, "FRMDIVSR": readout.nframes,
        "GROUPGAP": readout.groupgap, "DRPFRMS1": 0, "DRPFRMS3": 0, "NSAMPLES": 1, "TSAMPLE": 10.0,
        "TFRAME": readout.tframe, "TGROUP": readout.tgroup, "EFFINTTM": effective,
        "EFFEXPTM": effective * readout.nints, "DURATION": exposure.duration,
        "NRSTSTRT": 1, "NRESETS": 1, "ZEROFRAM": False, "DATAPROB": False, **_SCA.get(exposure.detector, {}),
        "SCTARATE": 0.0, "IS_PSF": False, "SELFREF": False,
        "SUBARRAY": subarray, "SUBSTRT1": area.xstart, "SUBSTRT2": area.ystart, "SUBSIZE1": area.xsize,
        "SUBSIZE2": area.ysize, "FASTAXIS": fastaxis, "SLOWAXIS": slowaxis,
        "PATTTYPE": "NONE", "PATT_NUM": exposure.number, "NUMDTHPT": exposure.count, "SUBPXPTS": 1,
        "XOFFSET": exposure.dither[0], "YOFFSET": exposure.dither[1],
        "APERNAME": imager.apertures[exposure.detector], "PPS_APER": imager.apertures[exposure.detector],
        "BARTDELT": BARYCENTRIC_DELAY, "BSTRTIME": exposure.start + BARYCENTRIC_DELAY * day,
        "BENDTIME": end + BARYCENTRIC_DELAY * day, "BMIDTIME": middle + BARYCENTRIC_DELAY * day,
        "HELIDELT": HELIOCENTRIC_DELAY, "HSTRTIME": exposure.start + HELIOCENTRIC_DELAY * day,
        "HENDTIME": end + HELIOCENTRIC_DELAY * day, "HMIDTIME": middle + HELIOCENTRIC_DELAY * day,
        "GS_ORDER": 1, "GSSTRTTM": "2023-07-14 09:45:00.0000000", "GSENDTIM": "2023-07-14 09:49:00.0000000",
        "GDSTARID": "N000000001", "GS_RA": target[0] + 0.1, "GS_DEC": target[1] + 0.1, "GS_URA": 0.0, "GS_UDEC": 0.0,
        "GS_MAG": 15.2, "GS_UMAG": 0.02, "PCS_MODE": "FINEGUIDE", "VISITEND": "2023-07-14 13:00:00.0000000",
        "MJD-BEG": exposure.start, "MJD-AVG": middle, "MJD-END": end,
        "TDB-BEG": exposure.start + BARYCENTRIC_DELAY * day, "TDB-MID": middle + BARYCENTRIC_DELAY * day,
        "TDB-END": end + BARYCENTRIC_DELAY * day, "XPOSURE": effective * readout.nints, "TELAPSE": exposure.duration,
        "REFFRAME": "EME2000", "EPH_TYPE": "Definitive", "EPH_TIME": middle,
        "JWST_X": 57_320_415.0, "JWST_Y": -129_812_337.0, "JWST_Z": -56_307_921.0,
        "OBSGEO-X": 412_305_881.0, "OBSGEO-Y": -1_288_410_233.0, "OBSGEO-Z": -690_238_114.0,
        "JWST_DX": 27.112, "JWST_DY": 9.871, "JWST_DZ": 4.215,
        "OBSGEODX": 118.3, "OBSGEODY": 64.9, "OBSGEODZ": -151.7,
        "VA_SCALE": pointing.va_scale, "VA_RA": pointing.ra_ref - 0.004, "VA_DEC": pointing.dec_ref + 0.002,
        "BUNIT": "DN", "RADESYS": "ICRS",
    }  # fmt: skip
    cards.update(_wcs_cards(exposure, pointing, area))
    return cards


_TEMPLATES = {
    "NIRISS": "NIRISS Wide Field Slitless Spectroscopy",
    "NIRCAM": "NIRCam Imaging",
    "MIRI": "MIRI Imaging",
    "FGS": "FGS External Calibration",
}
_SCA = {"NIS": {"SCA_NUM": 496, "DATAMODE": 92}}


def _optics_cards(exposure: Exposure) -> dict[str, Any]:
    """Wheels and lamps, as each instrument has them."""
    imager = exposure.imager
    wheels = {"FILTER": imager.filter, "PUPIL": imager.pupil}
    if imager.instrument == "NIRISS":
        position = niriss.WHEEL.get(imager.filter, 235.15)
        return {**wheels, "FOCUSPOS": 0.0, "LAMP": "NONE", "OPMODE": "NONE", "PWCPOS": 291.35, "FWCPOS": position}
    if imager.instrument == "NIRCAM":
        where = {key.upper(): value for key, value in nircam.module_and_channel(exposure.detector).items()}
        return {**where, **wheels, "PILIN": False, "CORONMSK": "NONE"}
    return {key: value for key, value in wheels.items() if value}


def _axes(detector: str) -> tuple[int, int]:
    """FASTAXIS and SLOWAXIS."""
    if detector == "MIRIMAGE":
        return 1, 2
    return SENSORS[detector].fastaxis, SENSORS[detector].slowaxis


def _wcs_cards(exposure: Exposure, pointing: Pointing, area: Subarray) -> dict[str, Any]:
    optics, distortion = exposure.imager.optics[exposure.detector], exposure.imager.behind_filter(exposure.detector)
    ra_v1, dec_v1, pa_v3 = boresight(distortion, pointing)
    angle = (pointing.roll_ref + distortion.v3i_yang) % 360
    sin, cos = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    columns, rows = (
        np.array([-0.5, n - 0.5]) + start for n, start in ((area.xsize, area.xstart - 1), (area.ysize, area.ystart - 1))
    )
    x, y = columns[[0, 0, 1, 1]], rows[[0, 1, 1, 0]]
    region = " ".join(f"{ra:.9f} {dec:.9f}" for ra, dec in zip(*pixel_to_sky(distortion, pointing, x, y), strict=True))
    return {
        "RA_V1": ra_v1, "DEC_V1": dec_v1, "PA_V3": pa_v3, "PA_APER": angle,
        "WCSAXES": 2, "CRPIX1": optics.x_ref + 2 - area.xstart, "CRPIX2": optics.y_ref + 2 - area.ystart,
        "CRVAL1": pointing.ra_ref, "CRVAL2": pointing.dec_ref, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg", "CUNIT2": "deg",
        "CDELT1": float(distortion.x_coeffs[1, 0]) / 3600, "CDELT2": float(distortion.y_coeffs[0, 1]) / 3600,
        "PC1_1": distortion.vparity * cos, "PC1_2": sin, "PC2_1": -distortion.vparity * sin, "PC2_2": cos,
        "S_REGION": f"POLYGON ICRS  {region}",
        "V2_REF": distortion.v2_ref, "V3_REF": distortion.v3_ref, "VPARITY": distortion.vparity,
        "V3I_YANG": distortion.v3i_yang, "RA_REF": pointing.ra_ref, "DEC_REF": pointing.dec_ref,
        "ROLL_REF": pointing.roll_ref, "VELOSYS": 0.0,
    }  # fmt: skip


def boresight(distortion: Distortion, pointing: Pointing) -> tuple[float, float, float]:
    """Right ascension, declination and position angle of V3 [deg] at the V1 axis of the telescope."""
    still = Pointing(pointing.ra_ref, pointing.dec_ref, pointing.roll_ref, 1.0)
    ra, dec = angles_to_sky(distortion, still, np.array([0.0, 0.0]), np.array([0.0, 1.0]))
    east = (ra[1] - ra[0]) * np.cos(np.deg2rad(dec[0]))
    return float(ra[0]), float(dec[0]), float(np.rad2deg(np.arctan2(east, dec[1] - dec[0])) % 360)


def group_table(exposure: Exposure, area: Subarray) -> np.ndarray:
    """The GROUP table: one row per group, with its end."""
    dtype = [
        ("integration_number", "i4"), ("group_number", "i2"), ("end_day", "i2"), ("end_milliseconds", "i4"),
        ("end_submilliseconds", "i2"), ("group_end_time", "S26"), ("number_of_columns", "i2"),
        ("number_of_rows", "i2"), ("number_of_gaps", "i2"), ("completion_code_number", "i2"),
        ("completion_code_text", "S36"), ("bary_end_time", "f8"), ("helio_end_time", "f8"),
    ]  # fmt: skip
    readout, rows = exposure.readout, []
    for i in range(readout.nints):
        for g in range(readout.ngroups):
            seconds = _integration_start(readout, i) + readout.nframes * readout.tframe + g * readout.tgroup
            mjd = exposure.start + seconds / 86400
            # Days since 2000-01-01, as the on-board clock counts.
            day, part = divmod(mjd - 51544, 1)
            milliseconds = part * 86_400_000
            rows.append(
                (i + 1, g + 1, int(day), int(milliseconds), int(1000 * (milliseconds % 1)),
                 Time(mjd, format="mjd", scale="utc").isot, area.xsize, area.ysize, 0, 0, "COMPLETE",
                 mjd + BARYCENTRIC_DELAY / 86400, mjd + HELIOCENTRIC_DELAY / 86400)
            )  # fmt: skip
    return np.array(rows, dtype)


def times_table(start: float, readout: Readout) -> np.ndarray:
    """The INT_TIMES table of an exposure that begins at ``start`` (MJD): start, middle and end of each integration."""
    names = [f"int_{which}_{scale}" for scale in ("MJD_UTC", "BJD_TDB") for which in ("start", "mid", "end")]
    rows = []
    for i in range(readout.nints):
        seconds = _integration_start(readout, i)
        utc = [start + (seconds + part * readout.frames * readout.tframe) / 86400 for part in (0, 0.5, 1)]
        rows.append((i + 1, *utc, *(mjd + BARYCENTRIC_DELAY / 86400 for mjd in utc)))
    return np.array(rows, [("integration_number", "i4"), *((name, "f8") for name in names)])


def _integration_start(readout: Readout, i: int) -> float:
    return i * (readout.frames + 1) * readout.tframe
