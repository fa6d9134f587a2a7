"""A catalog of the user's own: positions from HST or another survey, in the form in which such tables come.

ECSV, FITS tables, CSV and the text of SExtractor are read by what is in them, not by their name. The columns go by the
names that surveys and tools use, in any case; positions are SkyCoord columns, numbers (degrees, or the unit of the column)
or sexagesimal text. Only positions are needed.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from infra.products.catalog import ONE_READER
from infra.products.header import ProductError

log = logging.getLogger(__name__)

#: Names of columns without case, the first that is there counts.
LABEL = "label id number source_id objid obj_id phot_id seqnr num".split()
SKY = "sky_centroid skycoord sky coord coords".split()
RA = (
    "ra raj2000 _raj2000 ra_icrs ra_j2000 ra_deg radeg alpha_j2000 alphawin_j2000 alphapeak_j2000 alpha_sky x_world xwin_world "
    "xpeak_world right_ascension alpha ra_hst ra_best"
).split()
DEC = (
    "dec dej2000 decj2000 _dej2000 de_icrs dec_icrs dec_j2000 dec_deg decdeg dedeg delta_j2000 deltawin_j2000 deltapeak_j2000 "
    "delta_sky y_world ywin_world ypeak_world declination delta de dec_hst dec_best"
).split()
MAGNITUDE = "isophotal_abmag abmag mag_auto mag_ab magab mag_iso mag_best mag_total mag magnitude".split()
REDSHIFT = "redshift z_best z_spec zspec z_grism z_phot zphot z z_a zbest".split()
EXTENDED = "is_extended extended".split()

#: What SExtractor and others write for "no magnitude" is at least this.
NO_MAGNITUDE = 90.0
LARGEST_LABEL = 2**31 - 1  # SOURCEID is a signed integer in the files of the archive


@dataclass(frozen=True)
class Listed:
    """The sources of a user's catalog, in its order.

    Attributes
    ----------
    name : str
        Of the file, for messages.
    label : (n,) int
        Number of each source; it runs unchanged to the spectra.
    ra, dec : (n,) float64
        ICRS [deg].
    abmag : (n,) float64
        AB magnitude; NaN where there is none.
    redshift : (n,) float64
        NaN where there is none.
    extended : (n,) bool or None
        None where the catalog does not say.
    """

    name: str
    label: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    abmag: np.ndarray
    redshift: np.ndarray
    extended: np.ndarray | None = None

    def __len__(self) -> int:
        return self.label.size

    def select(self, keep: np.ndarray) -> "Listed":
        """Those sources that a mask names."""
        names = ("label", "ra", "dec", "abmag", "redshift", "extended")
        return replace(self, **{name: value[keep] for name in names if (value := getattr(self, name)) is not None})


def read_user_catalog(path: str | Path) -> Listed:
    """The sources of a user's catalog.

    Raises
    ------
    ProductError
        If the file is absent, is no table, has no positions, or numbers its sources so that they cannot be told apart.
    """
    path = Path(path)
    table = read_table(path)
    columns = {name.lower(): name for name in reversed(table.colnames)}

    def find(names: list[str]) -> Any:
        found = next((columns[name] for name in names if name in columns), None)
        return None if found is None else table[found]

    label = _labels(find(LABEL), len(table), path.name)
    ra, dec = _positions(table, find, label, path.name)
    placed = np.isfinite(ra) & np.isfinite(dec)
    if not placed.all():
        log.warning("%s: source %s without a position, left out", path.name, listed(label[~placed]))
    wrong = placed & (np.abs(dec) > 90)
    if wrong.any():
        raise ProductError(
            f"{path.name}: expected declinations in degrees, but that of source {listed(label[wrong])} is beyond ±90; check "
            "its columns and their units"
        )
    abmag = _numbers(find(MAGNITUDE), len(table))
    abmag[~(np.abs(abmag) < NO_MAGNITUDE)] = np.nan
    extended = find(EXTENDED)
    found = Listed(
        path.name,
        label[placed],
        ra[placed] % 360,
        dec[placed],
        abmag[placed],
        _numbers(find(REDSHIFT), len(table))[placed],
        None if extended is None else np.asarray(extended)[placed].astype(bool),
    )
    log.info(
        "%s: %d sources, %d with a magnitude, %d with a redshift",
        path.name,
        len(found),
        np.isfinite(found.abmag).sum(),
        np.isfinite(found.redshift).sum(),
    )
    return found


def read_table(path: Path) -> Any:
    """The table of a file, whatever its format.

    Raises
    ------
    ProductError
        If there is no such file, or no table in it.
    """
    from astropy.table import QTable

    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise ProductError(f"{path}: there is no such catalog ({error.strerror}); check the name") from None
    try:
        if start.startswith((b"SIMPLE", b"\x1f\x8b")):
            return _fits_table(path)
        text = start.decode("utf-8-sig")
        if text.startswith("# %ECSV"):
            with ONE_READER:
                return QTable.read(path, format="ascii.ecsv")
        if re.match(r"#\s*1\s+[A-Za-z]", text):
            return QTable.read(path, format="ascii.sextractor")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            # Names in a comment, and not one row: a catalog without sources says so to those who need one.
            raise ValueError("there is no row in it")
        if "," in lines[0]:
            return QTable.read(path, format="ascii.csv", comment="#")
        return QTable.read(path, format="ascii.commented_header" if text.startswith("#") else "ascii.basic")
    except ProductError:
        raise
    except Exception as error:
        # astropy's readers raise many types for a file that is not a table.
        line = " ".join(str(error).split())[:200]
        raise ProductError(
            f"{path.name}: expected a table of sources (ECSV, FITS or CSV), but it does not read as one: {line}"
        ) from error


def _fits_table(path: Path) -> Any:
    from astropy.io import fits
    from astropy.table import QTable

    with fits.open(path) as hdulist:
        # The first table of sources; LDAC files of SExtractor have one of header text before it.
        tables = [
            hdu for hdu in hdulist if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and hdu.name != "LDAC_IMHEAD"
        ]
        if not tables:
            names = ", ".join(hdu.name or "PRIMARY" for hdu in hdulist)
            raise ProductError(f"{path.name}: expected a table of sources, but the file has none, only {names}")
        with ONE_READER:
            return QTable.read(tables[0])


def _labels(column: Any, n: int, name: str) -> np.ndarray:
    if column is None:
        log.info("%s: no column of source numbers (%s); sources are numbered 1 to %d", name, ", ".join(LABEL[:4]), n)
        return np.arange(1, n + 1)
    values = np.ma.filled(np.ma.asarray(getattr(column, "value", column)), -1)
    try:
        numbers = values.astype(float)
        whole = np.isfinite(numbers) & (numbers == np.round(numbers))
    except ValueError:
        whole = np.array([str(value).strip().isdigit() for value in values])
    if not whole.all():
        raise ProductError(
            f"{name}: expected whole numbers of the sources in its column {column.info.name}, but there is "
            f"{values[~whole][0].item()!r}; number them, the numbers are those of the spectra"
        )
    label = values.astype(float).astype(np.int64)
    bad = (label < 1) | (label > LARGEST_LABEL)
    if bad.any():
        raise ProductError(
            f"{name}: source numbers must be from 1 to {LARGEST_LABEL}, but there is {listed(label[bad])}; 0 is no source in a "
            "segmentation map: number them anew"
        )
    found, counts = np.unique(label, return_counts=True)
    if (counts > 1).any():
        raise ProductError(
            f"{name}: source {listed(found[counts > 1])} stands more than once; each source needs a number of its own"
        )
    return label


def _positions(table: Any, find: Any, label: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    from astropy.coordinates import SkyCoord

    sky = find(SKY)
    if sky is None:
        mixins = [table[column] for column in table.colnames if isinstance(table[column], SkyCoord)]
        sky = mixins[0] if mixins else None
    if isinstance(sky, SkyCoord):
        return np.asarray(sky.icrs.ra.deg, float).copy(), np.asarray(sky.icrs.dec.deg, float).copy()
    ra, dec = find(RA), find(DEC)
    if ra is None or dec is None:
        have = ", ".join(table.colnames[:12]) + (" ..." if len(table.colnames) > 12 else "")
        raise ProductError(
            f"{name}: expected columns of positions, such as ra and dec, RAJ2000 and DEJ2000, ALPHA_J2000 and DELTA_J2000 or "
            f"sky_centroid, but it has {have or 'no column'}; rename those that hold right ascension and declination"
        )
    return _angles(ra, "hourangle", label, name), _angles(dec, "deg", label, name)


def _angles(column: Any, sexagesimal: str, label: np.ndarray, name: str) -> np.ndarray:
    """A column of angles [deg]: text with ``sexagesimal`` as its first unit, numbers in the unit of the column or degrees."""
    from astropy.coordinates import Angle
    from astropy.units import Quantity, Unit, UnitConversionError

    values = getattr(column, "value", column)
    values = np.ma.asarray(values)
    absent = np.ma.getmaskarray(values)
    if values.dtype.kind in "US":
        angles = np.full(len(values), np.nan)
        for k, text in enumerate(np.char.strip(values.filled("").astype(str))):
            if text and not absent[k]:
                try:
                    angles[k] = float(text)
                except ValueError:
                    try:
                        angles[k] = Angle(text, unit=sexagesimal).deg
                    except ValueError:
                        raise ProductError(
                            f"{name}: source {label[k]} has {str(text)!r} in its column {column.info.name}; expected degrees, "
                            "or sexagesimal hours (degrees of declination), such as 03:32:38.4 -27:47:34"
                        ) from None
        return angles
    unit = column.unit or Unit("deg")
    try:
        angles = Quantity(values.filled(np.nan).astype(float), unit).to_value("deg")
    except UnitConversionError:
        raise ProductError(
            f"{name}: its column {column.info.name} is in {unit}, but positions are angles; check the column"
        ) from None
    return np.where(absent, np.nan, angles)


def _numbers(column: Any, n: int) -> np.ndarray:
    """(n,) float64 of a column that may be missing: NaN where there is no number."""
    if column is None:
        return np.full(n, np.nan)
    values = np.ma.asarray(getattr(column, "value", column))
    absent = np.ma.getmaskarray(values)
    if values.dtype.kind in "USO":
        texts = values.filled("").astype(str)
        return np.array([_number(text) for text in texts])
    return np.where(absent, np.nan, np.ma.filled(values.astype(float), np.nan))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # "none", "--", "INDEF": no number
        return float("nan")


def listed(numbers: Sequence[int] | np.ndarray) -> str:
    """Up to ten numbers, and how many more."""
    shown = ", ".join(str(int(number)) for number in numbers[:10])
    return shown + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
