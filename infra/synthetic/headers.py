"""Headers of raw exposures, with what the archive's files have."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.time import Time

from calibration.simulate import niriss
from calibration.simulate.detector import Readout
from calibration.simulate.field import Distortion, Pointing, angles_to_sky, pixel_to_sky
from calibration.simulate.references import FULL_SIZE
from infra.synthetic.reference_format import DATE

PROGRAM, OBSERVATION, VISIT = "09801", "001", "001"
BARYCENTRIC_DELAY = 141.6  # [s], barycentric minus local time of the made-up epoch
HELIOCENTRIC_DELAY = 138.2  # [s]


@dataclass(frozen=True)
class Exposure:
    """One exposure of the program.

    Parameters
    ----------
    activity
        Number of the activity in the visit, from 1; one per exposure specification.
    number
        Number of the exposure in the activity, from 1: its dither point.
    count
        Exposures of the activity.
    exp_type, filter, pupil
        Mode and optics.
    specification
        Ordinal of the exposure specification (the pool's ``expspcin``).
    running
        Running number in the visit, from 1.
    dither
        Step of the telescope along (V2, V3) [arcsec].
    pattern
        Read pattern, READPATT.
    readout
        Groups and frames.
    start
        Modified Julian date (UTC) of the start.
    """

    activity: int
    number: int
    count: int
    exp_type: str
    filter: str
    pupil: str
    specification: int
    running: int
    dither: tuple[float, float]
    pattern: str
    readout: Readout
    start: float

    @property
    def root(self) -> str:
        """File name without suffix."""
        return f"jw{PROGRAM}{OBSERVATION}{VISIT}_021{self.activity:02}_{self.number:05}_nis"

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return duration(self.readout)


def duration(readout: Readout) -> float:
    """Seconds from start to end: all frames, and one reset frame between integrations."""
    return (readout.nints * readout.frames + readout.nints - 1) * readout.tframe


def exposure_cards(
    exposure: Exposure, pointing: Pointing, size: int, subarray: str, target: tuple[float, float], planned: int
) -> dict[str, Any]:
    """FITS keyword -> value of a raw exposure of ``size`` x ``size`` pixels; ``planned`` exposures are in the visit."""
    readout, origin = exposure.readout, (FULL_SIZE - size) // 2
    distortion = niriss.distortion(exposure.filter, exposure.pupil)
    day = 1 / 86400
    end = exposure.start + exposure.duration * day
    middle = 0.5 * (exposure.start + end)
    begin, finish = (Time(mjd, format="mjd", scale="utc").isot for mjd in (exposure.start, end))
    effective = readout.ngroups * readout.nframes * readout.tframe
    identity = f"{PROGRAM}{OBSERVATION}{VISIT}"
    cards: dict[str, Any] = {
        "DATE": DATE, "ORIGIN": "STSCI", "TIMESYS": "UTC", "TIMEUNIT": "s", "FILENAME": f"{exposure.root}_uncal.fits",
        "SDP_VER": "2023_2a", "PRD_VER": "PRDOPSSOC-063", "OSS_VER": "8.4.9", "GSC_VER": "GSC30",
        "TELESCOP": "JWST", "HGA_MOVE": False, "PWFSEET": exposure.start - 1.2, "NWFSEST": exposure.start + 1.1,
        "COMPRESS": False,
        "TITLE": "A synthetic field", "PI_NAME": "Calweave", "CATEGORY": "CAL", "SUBCAT": "NIRISS",
        "DATE-OBS": begin[:10], "TIME-OBS": begin[11:], "DATE-BEG": begin, "DATE-END": finish,
        "OBS_ID": f"V{identity}P00000000021{exposure.activity:02}", "VISIT_ID": identity,
        "PROGRAM": PROGRAM, "OBSERVTN": OBSERVATION, "VISIT": VISIT, "VISITGRP": "02", "SEQ_ID": "1",
        "ACT_ID": f"{exposure.activity:02}", "EXPOSURE": str(exposure.number),
        "BKGDTARG": False, "TEMPLATE": "NIRISS Wide Field Slitless Spectroscopy", "OBSFOLDR": "Synthetic",
        "ENG_QUAL": "OK", "ENGQLPTG": "CALCULATED_TRACK_TR_202111", "VISITYPE": "PRIME_TARGETED_FIXED",
        "VSTSTART": "2023-07-14 09:40:00.0000000", "VISITSTA": "SUCCESSFUL", "NEXPOSUR": planned,
        "INTARGET": False, "TARGOOPP": False, "TSOVISIT": False, "EXP_ONLY": False, "CROWDFLD": False,
        "TARGPROP": "SYNTHETIC-FIELD", "TARGNAME": "SYNTHETIC FIELD", "TARGTYPE": "FIXED",
        "TARG_RA": target[0], "TARG_DEC": target[1], "TARGURA": 0.0, "TARGUDEC": 0.0,
        "MU_RA": 0.0, "MU_DEC": 0.0, "MU_EPOCH": "2023-07-14 00:00:00.0000000", "PROP_RA": target[0], "PROP_DEC": target[1],
        "INSTRUME": "NIRISS", "DETECTOR": "NIS", "FILTER": exposure.filter, "PUPIL": exposure.pupil,
        "FOCUSPOS": 0.0, "LAMP": "NONE", "OPMODE": "NONE", "PWCPOS": 291.35, "FWCPOS": _wheel(exposure.filter),
        "EXPCOUNT": exposure.running, "EXPRIPAR": "PRIME", "EXP_TYPE": exposure.exp_type,
        "EXPSTART": exposure.start, "EXPMID": middle, "EXPEND": end, "OSF_FILE": "2023195T120000000_001_osf.xml",
        "READPATT": exposure.pattern, "NOUTPUTS": 4 if size == FULL_SIZE else 1,
        "NINTS": readout.nints, "NGROUPS": readout.ngroups, "NFRAMES": readout.nframes, "FRMDIVSR": readout.nframes,
        "GROUPGAP": readout.groupgap, "DRPFRMS1": 0, "DRPFRMS3": 0, "NSAMPLES": 1, "TSAMPLE": 10.0,
        "TFRAME": readout.tframe, "TGROUP": readout.tgroup, "EFFINTTM": effective,
        "EFFEXPTM": effective * readout.nints, "DURATION": exposure.duration,
        "NRSTSTRT": 1, "NRESETS": 1, "ZEROFRAM": False, "DATAPROB": False, "SCA_NUM": 496, "DATAMODE": 92,
        "SCTARATE": 0.0, "IS_PSF": False, "SELFREF": False,
        "SUBARRAY": subarray, "SUBSTRT1": origin + 1, "SUBSTRT2": origin + 1, "SUBSIZE1": size, "SUBSIZE2": size,
        "FASTAXIS": -2, "SLOWAXIS": -1,
        "PATTTYPE": "NONE", "PATT_NUM": exposure.number, "NUMDTHPT": exposure.count, "SUBPXPTS": 1,
        "XOFFSET": exposure.dither[0], "YOFFSET": exposure.dither[1],
        "APERNAME": "NIS_CEN", "PPS_APER": "NIS_CEN",
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
    cards.update(_wcs_cards(distortion, pointing, size, origin))
    return cards


def _wheel(filter_name: str) -> float:
    return niriss.WHEEL.get(filter_name, 235.15)


def _wcs_cards(distortion: Distortion, pointing: Pointing, size: int, origin: int) -> dict[str, Any]:
    ra_v1, dec_v1, pa_v3 = boresight(distortion, pointing)
    angle = (pointing.roll_ref + distortion.v3i_yang) % 360
    sin, cos = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    corners = np.array([-0.5, size - 0.5]) + origin
    x, y = corners[[0, 0, 1, 1]], corners[[0, 1, 1, 0]]
    region = " ".join(f"{ra:.9f} {dec:.9f}" for ra, dec in zip(*pixel_to_sky(distortion, pointing, x, y), strict=True))
    return {
        "RA_V1": ra_v1, "DEC_V1": dec_v1, "PA_V3": pa_v3, "PA_APER": angle,
        "WCSAXES": 2, "CRPIX1": niriss.CENTRE + 1 - origin, "CRPIX2": niriss.CENTRE + 1 - origin,
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


def group_table(exposure: Exposure, size: int) -> np.ndarray:
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
                 Time(mjd, format="mjd", scale="utc").isot, size, size, 0, 0, "COMPLETE",
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
