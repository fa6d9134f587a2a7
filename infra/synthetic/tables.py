"""The pool of a synthetic program, and its truth: sources, lines, positions on the detector, spectra."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import Table

from calibration.simulate.dispersion import Grism
from calibration.simulate.field import Distortion, Pointing, sky_to_pixel
from calibration.simulate.scene import Source, source_magnitude
from calibration.simulate.throughput import AB_ZERO, Passband, wavelengths
from calibration.subarrays import Subarray
from infra.synthetic.headers import OBSERVATION, PROGRAM, Exposure

_POOL_COLUMNS = (
    "FILENAME OBS_ID PROGRAM OBS_NUM VISIT VISIT_ID VISITGRP VISITYPE SEQ_ID ACT_ID EXPOSURE EXP_TYPE NEXPOSUR EXPCOUNT "
    "INSTRUME DETECTOR CHANNEL TARGETID TARGPROP TARGNAME TARGTYPE TEMPLATE PNTGTYPE PNTG_SEQ TARGORDN EXPSPCIN DITHPTIN "
    "MOSTILNO MODULE FILTER PUPIL DITHERID PATTTYPE PATTSTRT NUMDTHPT PATTSIZE SUBPXPTS PATT_NUM SUBPIXEL APERNAME "
    "SDP_VER SUBARRAY GRATING FXD_SLIT BAND GWA_XTIL GWA_YTIL ASN_CANDIDATE EXPOSERR IS_PSF IS_IMPRT BKGDTARG TSOVISIT "
    "MSASTATE MSAMETFL OPMODE LAMP SPEC_NUM SPAT_NUM DMS_NOTE EXSEGTOT NINTS NGROUPS MTSHADOW"
).split()

_FROM_HEADER = (
    "OBS_ID VISIT_ID VISITGRP VISITYPE SEQ_ID ACT_ID EXPOSURE EXP_TYPE NEXPOSUR EXPCOUNT INSTRUME DETECTOR TARGPROP "
    "TARGNAME TARGTYPE TEMPLATE MODULE CHANNEL FILTER PUPIL PATTTYPE NUMDTHPT SUBPXPTS PATT_NUM APERNAME SDP_VER SUBARRAY "
    "NINTS NGROUPS"
).split()


def write_pool(folder: Path, exposures: Sequence[Exposure], headers: Sequence[Mapping[str, object]]) -> Path:
    """Write the pool: one row per exposure, columns as the archive's pools have them. Returns the file."""
    path = folder / f"jw{PROGRAM}_20230714t140000_pool.csv"
    lines = ["|".join(_POOL_COLUMNS)]
    for exposure, cards in zip(exposures, headers, strict=True):
        row = {key: str(cards[key]) for key in _FROM_HEADER if key in cards}
        row |= {
            "FILENAME": str(cards["FILENAME"]),
            "PROGRAM": str(int(PROGRAM)),
            "OBS_NUM": str(int(OBSERVATION)),
            "VISIT": str(exposure.visit),
            "TARGETID": "1",
            "PNTGTYPE": "SCIENCE",
            "PNTG_SEQ": str(exposure.running),
            "TARGORDN": "1",
            "EXPSPCIN": str(exposure.specification),
            "DITHPTIN": str(exposure.number),
            "MOSTILNO": str(exposure.visit),
            "ASN_CANDIDATE": f"[('o{OBSERVATION}', 'observation')]",
            "IS_PSF": "F",
            "IS_IMPRT": "F",
            "BKGDTARG": "F",
            "TSOVISIT": "F",
            "SPEC_NUM": "1",
            "SPAT_NUM": "1",
            "MTSHADOW": "NONE",
        }
        lines.append("|".join(row.get(column, "NULL") for column in _POOL_COLUMNS))
    path.write_text("\n".join(lines) + "\n")
    return path


def source_table(sources: Sequence[Source], passband: Passband) -> Table:
    """Number, position, magnitude and shape of every source, and the name of its spectrum."""
    magnitudes = np.array([source_magnitude(source, passband) for source in sources])
    table = Table(
        {
            "id": [source.number for source in sources],
            "ra": [source.ra for source in sources] * u.deg,
            "dec": [source.dec for source in sources] * u.deg,
            "kind": [_kind(source) for source in sources],
            "abmag": magnitudes,
            "flux": AB_ZERO * 10 ** (-0.4 * magnitudes) * u.Jy,
            "radius": [source.radius for source in sources] * u.arcsec,
            "axis_ratio": [source.axis_ratio for source in sources],
            "position_angle": [source.position_angle for source in sources] * u.deg,
            "spectrum": [spectrum_name(source.number) for source in sources],
        }
    )
    table.meta["passband"] = passband.name
    return table


def line_table(sources: Sequence[Source]) -> Table:
    """One row per emission line."""
    rows = [
        (source.number, line.name, line.wavelength, line.flux, line.fwhm) for source in sources for line in source.lines
    ]
    table = Table(
        rows=rows, names=("id", "line", "wavelength", "flux", "fwhm"), dtype=(int, "U16", float, float, float)
    )
    table["wavelength"].unit = table["fwhm"].unit = u.um
    table["flux"].unit = u.W / u.m**2
    return table


def spectrum_table(source: Source, passband: Passband) -> Table:
    """Flux density of a source, lines included, over the passband."""
    wavelength = wavelengths(passband)
    return Table({"wavelength": wavelength * u.um, "flux": source.flux(wavelength) * u.Jy})


def spectrum_name(number: int) -> str:
    """Base name of the table of the spectrum of a source."""
    return f"spectrum_{number:04}"


def position_table(
    sources: Sequence[Source],
    distortion: Distortion,
    pointing: Pointing,
    grism: Grism | None,
    area: Subarray,
) -> Table:
    """Where sources stand in one exposure.

    Columns ``x`` and ``y`` are the direct position, zero-based pixels of the exposure's own array, and ``inside`` says whether
    it is on the array. For a grism, ``x_line``, ``y_line`` add where the first line of the source falls in order +1 (NaN
    without).
    """
    x, y = sky_to_pixel(
        distortion, pointing, np.array([source.ra for source in sources]), np.array([source.dec for source in sources])
    )
    x, y = x - area.xstart + 1, y - area.ystart + 1
    inside = (x > -0.5) & (x < area.xsize - 0.5) & (y > -0.5) & (y < area.ysize - 0.5)
    table = Table({"id": [source.number for source in sources], "x": x, "y": y, "inside": inside})
    if grism is not None:
        placed = [
            grism.position(1, x[i], y[i], source.lines[0].wavelength) if source.lines else (np.nan, np.nan)
            for i, source in enumerate(sources)
        ]
        table["x_line"], table["y_line"] = (np.array(column, float) for column in zip(*placed, strict=True))
    return table


def _kind(source: Source) -> str:
    if source.radius == 0:
        return "star"
    return "lines" if source.lines else "disk"
