"""The reference files of slitless spectra, for all imagers: flat, sky, photometry, apertures and traces; and their rules."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from astropy import units as u
from astropy.modeling import models
from scipy.special import erf
from stdatamodels.jwst import datamodels

from calibration.simulate.dispersion import Grism, sky_pattern
from calibration.simulate.field import ARCSEC
from calibration.simulate.imager import Imager
from calibration.simulate.slitless import Slitless
from calibration.simulate.throughput import spectral_conversion
from infra.synthetic.crds_cache import Rule
from infra.synthetic.imaging_references import (
    PARAMETERS,
    ImagingReferences,
    key_columns,
    wheels,
    write_flat,
    write_imaging,
    write_parameters,
)
from infra.synthetic.reference_format import define_dq

#: Instrument -> data models of the traces, of the photometry and of the aperture corrections.
_MODELS = {
    "NIRISS": (datamodels.NIRISSGrismModel, datamodels.NisWfssPhotomModel, datamodels.NisWfssApcorrModel),
    "NIRCAM": (datamodels.NIRCAMGrismModel, datamodels.NrcWfssPhotomModel, datamodels.NrcWfssApcorrModel),
    "MIRI": (datamodels.MiriWFSSSpecwcsModel, datamodels.MirWfssPhotomModel, datamodels.MirLrsApcorrModel),
}
_OF_IMAGES = ("area", *PARAMETERS)
# The type was called wfssbkg before it was called bkg.
_OF_SPECTRA = ("specwcs", "wavelengthrange", "bkg", "wfssbkg")


def write_slitless(to: ImagingReferences, optics: Slitless, response: np.ndarray) -> list[Rule]:
    """Write the references of stages 2 and 3 for a slitless program: those of its direct images, and of its spectra.

    ``response`` (ny, nx) is DN/s of each pixel for equal light on each, relative to the mean; 0 where it is dead.
    """
    to = replace(to, exp_types=f"{optics.images.exp_type}|{optics.spectra[0].exp_type}")
    of_images = write_imaging(to, response) | write_parameters(to)
    rules = _rules(to, optics.images, of_images | dict.fromkeys(_OF_SPECTRA, "N/A"))
    shared = {reftype: of_images[reftype] for reftype in ("abvegaoffset", "distortion", "filteroffset")}
    shared |= dict.fromkeys(_OF_IMAGES, "N/A") | _write_shared(to, optics)
    for number, (behind, grism) in enumerate(zip(optics.spectra, optics.grisms, strict=True), start=1):
        rules += _rules(to, behind, shared | _write_grism(to, optics, behind, grism, number, response))
    return rules


def _rules(to: ImagingReferences, imager: Imager, files: Mapping[str, str]) -> list[Rule]:
    match = {
        "META.INSTRUMENT.DETECTOR": to.place.detector,
        "META.EXPOSURE.TYPE": imager.exp_type,
        "META.INSTRUMENT.FILTER": imager.filter,
        "META.INSTRUMENT.PUPIL": imager.pupil or "N/A",
    }
    return [Rule(reftype, filename, match) for reftype, filename in files.items()]


def _write_grism(
    to: ImagingReferences, optics: Slitless, behind: Imager, grism: Grism, number: int, response: np.ndarray
) -> dict[str, str]:
    """What each grism has of its own: flat, sky and traces."""
    files = {"flat": write_flat(to, response, number + 1, behind)}
    shape, origin = (to.area["ysize"], to.area["xsize"]), (to.area["xstart"] - 1, to.area["ystart"] - 1)
    elements = {name: value for name, value in wheels(behind).items() if value}

    pattern = sky_pattern(shape, origin, grism.axis) * response * to.relative_area
    model = datamodels.WfssBkgModel(data=pattern.astype(np.float32), dq=np.zeros(shape, np.uint32))
    define_dq(model, ("DO_NOT_USE",))
    meta = {**to.about("bkg", "the sky through the grism"), "subarray": to.area}
    meta["instrument"] |= elements
    files["bkg"] = files["wfssbkg"] = to.save(model, meta, number=number)

    meta = to.about("specwcs", "traces and wavelengths of the orders")
    meta["instrument"] |= elements
    exp_type = behind.exp_type
    meta |= {"exposure": {"type": exp_type, "p_exptype": f"{exp_type}|"}, "input_units": u.um, "output_units": u.um}
    model = _MODELS[to.place.instrument][0](**specwcs(grism.cut(origin), behind))
    files["specwcs"] = to.save(model, meta, "asdf", number)
    return files


def specwcs(grism: Grism, behind: Imager) -> dict[str, Any]:
    """The traces of a grism in the form that its instrument has them in."""
    orders = list(grism.traces)
    tree: dict[str, Any] = {
        f"disp{axis}": [[_polynomial(terms) for terms in getattr(grism.traces[n], f"{axis}_terms")] for n in orders]
        for axis in "xy"
    }
    tree |= {"displ": [models.Polynomial1D(1, c0=grism.c0, c1=grism.c1) for _ in orders], "orders": orders}
    if behind.instrument == "NIRCAM":
        # Along the dispersion it has mere polynomials of t, and no inverses.
        key = f"disp{grism.axis}"
        tree[key] = [
            [models.Polynomial1D(len(terms) - 1, **{f"c{k}": one.c0_0.value for k, one in enumerate(terms)})]
            for terms in tree[key]
        ]
        return tree
    inverse = {"c0": -grism.c0 / grism.c1, "c1": 1 / grism.c1}
    tree["invdispl"] = [models.Polynomial1D(1, **inverse) for _ in orders]
    return tree | ({"fwcpos_ref": grism.wheel_reference} if behind.instrument == "NIRISS" else {})


def _polynomial(terms: np.ndarray) -> models.Polynomial2D:
    names = ("c0_0", "c1_0", "c2_0", "c0_1", "c0_2", "c1_1")
    return models.Polynomial2D(2, **dict(zip(names, map(float, terms), strict=True)))


def _write_shared(to: ImagingReferences, optics: Slitless) -> dict[str, str]:
    """What the spectra through all grisms share: photometry, aperture corrections and wavelengths."""
    _, photom, apcorr = _MODELS[to.place.instrument]
    area, exposure = to.imager.pixel_area(to.place.detector), {"exposure": {"type": optics.spectra[0].exp_type}}
    photometry = {"pixelarea_steradians": area, "pixelarea_arcsecsq": area / ARCSEC**2}
    meta = {**to.about("photom", "MJy um s / (DN sr) by order and wavelength"), "photometry": photometry, **exposure}
    model = photom(phot_table=_photometry(to, optics, area))
    model.phot_unit, model.wave_unit = "MJy micron s / (DN sr)", "micron"
    files = {"photom": to.save(model, meta, number=2)}

    model = apcorr(apcorr_table=_apertures(to, optics))
    model.sizeunit = "pixels"
    meta = {**to.about("apcorr", "aperture corrections of spectra"), **exposure}
    files["apcorr"] = to.save(model, meta, number=2)

    key, orders = _wavelength_key(optics.spectra[0]), sorted(optics.grisms[0].traces)
    model = datamodels.WavelengthrangeModel(
        wrange=[[order, key, *optics.extracted] for order in orders],
        order=orders,
        extract_orders=[[key, [1]]],
        wrange_selector=[key],
        wunits=u.um,
    )
    meta = {**to.about("wavelengthrange", "wavelengths of the orders [um]"), **exposure}
    files["wavelengthrange"] = to.save(model, meta, "asdf")
    return files


def _wavelength_key(behind: Imager) -> str:
    """The filter, which NIRISS has in the pupil wheel."""
    return behind.pupil if behind.instrument == "NIRISS" else behind.filter


def _photometry(to: ImagingReferences, optics: Slitless, area: float) -> np.ndarray:
    wavelength = np.arange(optics.calibrated[0], optics.calibrated[1] + 1e-9, 0.001)
    n = wavelength.size
    with_order = to.place.instrument != "MIRI"
    dtype: list[tuple] = [("photmjsr", "f4"), ("uncertainty", "f4"), ("nelem", "i2")]
    dtype += [(column, "f4", (n,)) for column in ("wavelength", "relresponse", "reluncertainty")]
    names: list[tuple] = []
    rows = []
    for behind, grism in zip(optics.spectra, optics.grisms, strict=True):
        names, values = key_columns(replace(to, imager=behind), 15)
        for order in grism.traces:
            factor = spectral_conversion(optics.passband, order, wavelength, to.gain, area, grism.efficiencies)
            middle = factor[n // 2]
            where = (*values, order) if with_order else values
            rows.append((*where, middle, 0.01 * middle, n, wavelength, factor / middle, np.full(n, 0.01)))
    return np.array(rows, names + ([("order", "i2")] if with_order else []) + dtype)


def _apertures(to: ImagingReferences, optics: Slitless) -> np.ndarray:
    """Corrections for the light of a point source outside ``size`` pixels across the dispersion."""
    wavelength = np.linspace(*optics.extracted, 5)
    sizes = np.arange(1, 61)
    inside = np.zeros(sizes.size)
    for weight, sigma in optics.images.psf:
        inside += weight * erf(0.5 * sizes / np.sqrt(2 * (sigma**2 + 1 / 12 + 0.011)))
    correction = np.tile(1 / inside, (wavelength.size, 1))
    dtype: list[tuple] = [("wavelength", "f4", wavelength.shape), ("nelem_wl", "i2")]
    dtype += [("size", "u1", sizes.shape), ("nelem_size", "i2")]
    dtype += [("apcorr", "f4", correction.shape), ("apcorr_err", "f4", correction.shape)]
    names: list[tuple] = []
    rows = []
    for behind in optics.spectra:
        names, values = key_columns(replace(to, imager=behind), 15)
        if to.place.instrument == "MIRI":  # the model is that of the slit, which has no filter
            names, values = names[1:], values[1:]
        rows.append((*values, wavelength, wavelength.size, sizes, sizes.size, correction, 0.01 * correction))
    return np.array(rows, names + dtype)
