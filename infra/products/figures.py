"""Figures of a product that tell at a glance whether it is sound."""

import numpy as np

from calibration import dq
from infra.products.fits import Contents

SAMPLE = 1 << 18  # pixels that a median is taken of


def figures_of(contents: Contents, suffix: str | None) -> dict[str, str]:
    """Figures of a product that tell at a glance whether it is sound; medians are of a sample of its pixels.

    Keys are words for a table head; the background is the median and the noise the scaled median absolute deviation.
    """
    header = contents.header
    found: dict[str, str] = {}
    for keyword, words in (("TARGNAME", "target"), ("FILTER", "filter"), ("PUPIL", "pupil")):
        if header.get(keyword):
            found[words] = str(header[keyword])
    if header.get("EFFEXPTM"):
        found["exposure time"] = f"{float(header['EFFEXPTM']):.0f} s"
    slits = [ver for extname, ver in contents.cards if extname == "SCI"]
    tables = [(extname, ver) for extname, ver in contents.arrays if extname in ("EXTRACT1D", "COMBINE1D")]
    if tables:
        found["spectra"] = str(sum(_spectra_in(contents.arrays[key]) for key in tables))
    elif len(slits) > 1:
        found["slits"] = str(len(slits))
    elif suffix == "segm":
        found["sources"] = str(np.count_nonzero(np.bincount(contents.require("SCI").ravel())[1:]))
    elif contents.get("SCI") is not None:
        data = np.asarray(contents.require("SCI"))
        flags = contents.get("DQ")
        if flags is not None:
            for words, bit in (
                ("unusable", "DO_NOT_USE"),
                ("hit by cosmic rays", "JUMP_DET"),
                ("saturated", "SATURATED"),
            ):
                found[words] = f"{100 * np.count_nonzero(flags & dq.PIXEL[bit]) / max(flags.size, 1):.2f} %"
            if flags.shape == data.shape:
                data = np.where(flags & dq.PIXEL["DO_NOT_USE"], np.nan, data)
        sample = data.ravel()[:: max(1, data.size // SAMPLE)]
        sample = sample[np.isfinite(sample)]
        unit = str(header.get("BUNIT", ""))
        if sample.size:
            level = float(np.median(sample))
            found["background"] = f"{level:.4g} {unit}"
            found["noise"] = f"{1.4826 * float(np.median(np.abs(sample - level))):.3g} {unit}"
        else:
            found["background"] = "no pixel has a value"
    return found


def _spectra_in(table: np.ndarray) -> int:
    """Spectra in one table: one for each row where the cells hold spectra, one in all where the rows are wavelengths."""
    return len(table) if table.dtype["WAVELENGTH"].shape else 1
