"""The reference files of a slitless program, in the formats of the observatory, and the rules that choose them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.modeling import models
from stdatamodels.jwst import datamodels

from calibration import dq
from calibration.simulate import niriss
from calibration.simulate.detector import Readout
from calibration.simulate.dispersion import sky_pattern
from calibration.simulate.field import ARCSEC
from calibration.simulate.references import MEAN_GAIN, Detector
from calibration.simulate.scene import PSF
from calibration.simulate.throughput import (
    GRISM_ORDERS,
    Passband,
    spectral_conversion,
)
from infra.synthetic.crds_cache import Rule
from infra.synthetic.detector_references import Place, write_darks, write_detector
from infra.synthetic.imaging_references import ImagingReferences, write_flat, write_imaging, write_parameters
from infra.synthetic.reference_format import about, define_dq, save_reference

IMAGES = "NIS_IMAGE"
SPECTRA = "NIS_WFSS"
GRISMS = ("GR150R", "GR150C")
WAVELENGTH_RANGE = (1.70, 2.28)  # [um], where spectra are cut out
CALIBRATED_RANGE = (1.725, 2.255)  # [um], where the throughput is at least 1 per cent of its peak


@dataclass(frozen=True)
class ReferenceWriter:
    """Where and for what the files are written: the folder of the cache, the detector area, the passband."""

    folder: Path
    detector: Detector
    passband: Passband
    subarray: str

    @property
    def area(self) -> dict[str, Any]:
        """Subarray keywords of a reference file."""
        return Place("NIRISS", "NIS", self.subarray).area(self.detector)

    @property
    def response(self) -> np.ndarray:
        """DN/s of each pixel for equal light on each, relative to the mean."""
        return self.detector.efficiency * np.float32(MEAN_GAIN) / self.detector.gain

    @property
    def images(self) -> ImagingReferences:
        """Where and for what the references of direct images are written."""
        place = Place("NIRISS", "NIS", self.subarray)
        return ImagingReferences(
            self.folder, place, niriss.imager(self.passband.name), self.area, MEAN_GAIN, f"{IMAGES}|{SPECTRA}"
        )


def write_niriss(writer: ReferenceWriter, readouts: dict[str, Readout]) -> list[Rule]:
    """Write all NIRISS references; ``readouts`` is read pattern -> readout. Returns the rules that choose them."""
    place = Place("NIRISS", "NIS", writer.subarray)
    rules = [
        *write_detector(writer.folder, place, writer.detector),
        *write_darks(writer.folder, place, writer.detector, readouts),
        *_write_images(writer),
        *_write_spectra(writer),
        *_write_geometry(writer),
    ]
    return rules


def _common(reftype: str, title: str) -> dict[str, Any]:
    return about(reftype, title, "NIRISS", "NIS")


def _optics(writer: ReferenceWriter, filter_name: str, pupil: str) -> dict[str, str]:
    return {
        "META.INSTRUMENT.DETECTOR": "NIS",
        "META.INSTRUMENT.FILTER": filter_name,
        "META.INSTRUMENT.PUPIL": pupil,
        "META.SUBARRAY.NAME": writer.subarray,
    }


def _write_images(writer: ReferenceWriter) -> list[Rule]:
    images, both = {"META.EXPOSURE.TYPE": IMAGES}, {"META.EXPOSURE.TYPE": f"{IMAGES}|{SPECTRA}"}
    # A uniform sky is flat after the flat field, so the flat of the images holds the areas of the pixels.
    files = write_imaging(writer.images, writer.response)
    match = {
        "flat": _optics(writer, "CLEAR", writer.passband.name),
        "abvegaoffset": {"META.INSTRUMENT.DETECTOR": "NIS"},
        "distortion": both,
        "filteroffset": both,
    }
    rules = [Rule(reftype, filename, match.get(reftype, images)) for reftype, filename in files.items()]
    rules.append(Rule("area", "N/A", {"META.EXPOSURE.TYPE": SPECTRA}))
    for reftype, filename in write_parameters(writer.images).items():
        rules += [Rule(reftype, filename, images), Rule(reftype, "N/A", {"META.EXPOSURE.TYPE": SPECTRA})]
    return rules


def _write_spectra(writer: ReferenceWriter) -> list[Rule]:
    pupil, rules = writer.passband.name, []
    for number, grism in enumerate(GRISMS, start=1):
        behind = replace(writer.images.imager, filter=grism, pupil=pupil)
        flat = write_flat(writer.images, writer.response, number + 1, behind)
        rules.append(Rule("flat", flat, _optics(writer, grism, pupil)))

        axis = niriss.grism(grism).axis
        pattern = sky_pattern(writer.detector.shape, writer.detector.origin, axis)
        pattern *= writer.response * writer.images.relative_area
        model = datamodels.WfssBkgModel(data=pattern.astype(np.float32), dq=np.zeros(pattern.shape, np.uint32))
        define_dq(model, ("DO_NOT_USE",))
        meta = _common("bkg", "the sky through the grism")
        meta["subarray"] = writer.area
        meta["instrument"] |= {"filter": grism, "pupil": pupil}
        filename = save_reference(model, meta, writer.folder, f"jwst_niriss_bkg_{number:04}.fits")
        match = {"META.EXPOSURE.TYPE": SPECTRA, **_optics(writer, grism, pupil)}
        # The type was called wfssbkg before it was called bkg.
        rules += [Rule("bkg", filename, match), Rule("wfssbkg", filename, match)]
    other = {parameter: "N/A" for parameter in _optics(writer, "", "")}
    for reftype in ("bkg", "wfssbkg"):
        rules.append(Rule(reftype, "N/A", {"META.EXPOSURE.TYPE": IMAGES, **other}))

    photometry = {"pixelarea_steradians": niriss.PIXEL_AREA, "pixelarea_arcsecsq": niriss.PIXEL_AREA / ARCSEC**2}
    meta = {**_common("photom", "MJy um s / (DN sr) by order and wavelength"), "photometry": photometry}
    meta |= {"exposure": {"type": SPECTRA}}
    model = datamodels.NisWfssPhotomModel(phot_table=_spectral_photometry(writer.passband))
    model.phot_unit, model.wave_unit = "MJy micron s / (DN sr)", "micron"
    filename = save_reference(model, meta, writer.folder, "jwst_niriss_photom_0002.fits")
    rules.append(Rule("photom", filename, {"META.EXPOSURE.TYPE": SPECTRA}))

    meta = {**_common("apcorr", "aperture corrections of spectra"), "exposure": {"type": SPECTRA}}
    model = datamodels.NisWfssApcorrModel(apcorr_table=_spectral_apertures(pupil))
    model.sizeunit = "pixels"
    filename = save_reference(model, meta, writer.folder, "jwst_niriss_apcorr_0002.fits")
    rules.append(Rule("apcorr", filename, {"META.EXPOSURE.TYPE": SPECTRA}))
    return rules


def _spectral_photometry(passband: Passband) -> np.ndarray:
    wavelength = np.arange(CALIBRATED_RANGE[0], CALIBRATED_RANGE[1] + 1e-9, 0.001)
    n = wavelength.size
    dtype: list[tuple] = [
        ("filter", "S12"),
        ("pupil", "S15"),
        ("order", "i2"),
        ("photmjsr", "f4"),
        ("uncertainty", "f4"),
    ]
    dtype += [("nelem", "i2")]
    dtype += [(column, "f4", (n,)) for column in ("wavelength", "relresponse", "reluncertainty")]
    rows = []
    for grism in GRISMS:
        for order in GRISM_ORDERS:
            factor = spectral_conversion(passband, order, wavelength, MEAN_GAIN, niriss.PIXEL_AREA)
            middle = factor[n // 2]
            rows.append(
                (grism, passband.name, order, middle, 0.01 * middle, n, wavelength, factor / middle, np.full(n, 0.01))
            )
    return np.array(rows, dtype)


def _spectral_apertures(pupil: str) -> np.ndarray:
    """Corrections for the light of a point source outside ``size`` pixels across the dispersion."""
    from scipy.special import erf

    wavelength = np.linspace(*WAVELENGTH_RANGE, 5)
    sizes = np.arange(1, 61)
    inside = np.zeros(sizes.size)
    for weight, sigma in PSF:
        inside += weight * erf(0.5 * sizes / np.sqrt(2 * (sigma**2 + 1 / 12 + 0.011)))
    correction = np.tile(1 / inside, (wavelength.size, 1))
    dtype = [("filter", "S12"), ("pupil", "S15"), ("wavelength", "f4", wavelength.shape), ("nelem_wl", "i2")]
    dtype += [("size", "u1", sizes.shape), ("nelem_size", "i2")]
    dtype += [("apcorr", "f4", correction.shape), ("apcorr_err", "f4", correction.shape)]
    rows = [
        (grism, pupil, wavelength, wavelength.size, sizes, sizes.size, correction, 0.01 * correction)
        for grism in GRISMS
    ]
    return np.array(rows, dtype)


def _write_geometry(writer: ReferenceWriter) -> list[Rule]:
    pupil = writer.passband.name
    rules = []
    for number, name in enumerate(GRISMS, start=1):
        grism = niriss.grism(name, writer.detector.origin)
        orders = list(grism.traces)
        line = models.Polynomial1D(1, c0=grism.c0, c1=grism.c1)
        inverse = models.Polynomial1D(1, c0=-grism.c0 / grism.c1, c1=1 / grism.c1)
        model = datamodels.NIRISSGrismModel(
            dispx=[[_polynomial(terms) for terms in grism.traces[order].x_terms] for order in orders],
            dispy=[[_polynomial(terms) for terms in grism.traces[order].y_terms] for order in orders],
            displ=[line.copy() for _ in orders],
            invdispl=[inverse.copy() for _ in orders],
            orders=orders,
            fwcpos_ref=grism.wheel_reference,
        )
        meta = _common("specwcs", "traces and wavelengths of the orders")
        meta["instrument"] |= {"filter": name, "pupil": pupil}
        meta |= {"exposure": {"type": SPECTRA, "p_exptype": f"{SPECTRA}|"}, "input_units": u.um, "output_units": u.um}
        filename = save_reference(model, meta, writer.folder, f"jwst_niriss_specwcs_{number:04}.asdf")
        match = {
            "META.EXPOSURE.TYPE": SPECTRA,
            "META.INSTRUMENT.FILTER": name,
            "META.INSTRUMENT.PUPIL": pupil,
        }
        rules.append(Rule("specwcs", filename, match))
    match = {"META.EXPOSURE.TYPE": IMAGES, "META.INSTRUMENT.FILTER": "N/A", "META.INSTRUMENT.PUPIL": "N/A"}
    rules.append(Rule("specwcs", "N/A", match))

    model = datamodels.WavelengthrangeModel(
        wrange=[[order, pupil, *WAVELENGTH_RANGE] for order in sorted(GRISM_ORDERS)],
        order=sorted(GRISM_ORDERS),
        extract_orders=[[pupil, [1]]],
        wrange_selector=[pupil],
        wunits=u.um,
    )
    meta = {**_common("wavelengthrange", "wavelengths of the orders [um]"), "exposure": {"type": SPECTRA}}
    filename = save_reference(model, meta, writer.folder, "jwst_niriss_wavelengthrange_0001.asdf")
    rules.append(Rule("wavelengthrange", filename, {"META.EXPOSURE.TYPE": SPECTRA}))
    rules.append(Rule("wavelengthrange", "N/A", {"META.EXPOSURE.TYPE": IMAGES}))
    return rules


def _polynomial(terms: np.ndarray) -> models.Polynomial2D:
    names = ("c0_0", "c1_0", "c2_0", "c0_1", "c0_2", "c1_1")
    return models.Polynomial2D(2, **dict(zip(names, map(float, terms), strict=True)))


def write_guider(folder: Path, rng: np.random.Generator) -> list[Rule]:
    """References of the FGS guider pipeline, for a box of GUIDER2 that holds the place of an ACQ1 window."""
    size, xstart, ystart = 256, 823, 958
    area = {"name": "GENERIC", "xstart": xstart, "ystart": ystart, "xsize": size, "ysize": size}
    area |= {"fastaxis": 2, "slowaxis": -1}
    shape = (size, size)
    flat = (1 + 0.02 * rng.standard_normal(shape)).astype(np.float32)
    flags = np.zeros(shape, np.uint32)
    flags[rng.random(shape) < 5e-4] = dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["DEAD"]
    mask = datamodels.MaskModel(dq=flags)
    define_dq(mask, ("DO_NOT_USE", "DEAD"))
    flat_model = datamodels.FlatModel(data=flat, dq=flags, err=np.full(shape, 1e-3, np.float32))
    define_dq(flat_model, ("DO_NOT_USE", "DEAD"))
    files = {
        "mask": mask,
        "flat": flat_model,
        "gain": datamodels.GainModel(data=np.full(shape, 1.9, np.float32)),
        "readnoise": datamodels.ReadnoiseModel(data=np.full(shape, 9.0, np.float32)),
    }
    rules = []
    for reftype, model in files.items():
        meta = {**about(reftype, f"guider {reftype}", "FGS", "GUIDER2"), "subarray": area}
        filename = save_reference(model, meta, folder, f"jwst_fgs_{reftype}_0001.fits")
        rules.append(Rule(reftype, filename, {"META.INSTRUMENT.DETECTOR": "GUIDER2"}))
    return rules
