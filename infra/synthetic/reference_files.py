"""The reference files of a synthetic program, in the formats of the observatory, and the rules that choose them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.modeling import models
from astropy.table import Table
from scipy.optimize import brentq
from stdatamodels.jwst import datamodels

from calibration import dq
from calibration.simulate import niriss
from calibration.simulate.detector import Readout
from calibration.simulate.dispersion import sky_pattern
from calibration.simulate.field import ARCSEC, Distortion
from calibration.simulate.references import FULL_SIZE, MEAN_GAIN, Detector
from calibration.simulate.scene import PSF
from calibration.simulate.throughput import (
    GRISM_ORDERS,
    Passband,
    image_conversion,
    spectral_conversion,
)
from infra.synthetic.crds_cache import Rule
from infra.synthetic.detector_references import Place, write_darks, write_detector
from infra.synthetic.reference_format import about, define_dq, save_reference, write_asdf

IMAGES = "NIS_IMAGE"
SPECTRA = "NIS_WFSS"
GRISMS = ("GR150R", "GR150C")
WAVELENGTH_RANGE = (1.70, 2.28)  # [um], where spectra are cut out
CALIBRATED_RANGE = (1.725, 2.255)  # [um], where the throughput is at least 1 per cent of its peak
SKY_ANNULUS = (12.0, 16.0)  # [pixel], for aperture photometry


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
    def relative_area(self) -> np.ndarray:
        """Area of each pixel on the sky, in nominal areas."""
        area = niriss.distortion("", "").pixel_area_map(self.detector.shape, self.detector.origin)
        return area * ARCSEC**2 / niriss.PIXEL_AREA


def write_niriss(writer: ReferenceWriter, readouts: dict[str, Readout]) -> list[Rule]:
    """Write all NIRISS references; ``readouts`` is read pattern -> readout. Returns the rules that choose them."""
    place = Place("NIRISS", "NIS", writer.subarray)
    rules = [
        *write_detector(writer.folder, place, writer.detector),
        *write_darks(writer.folder, place, writer.detector, readouts),
        *_write_images(writer),
        *_write_spectra(writer),
        *_write_geometry(writer),
        *_write_parameters(writer),
    ]
    return rules


def _common(reftype: str, title: str) -> dict[str, Any]:
    return about(reftype, title, "NIRISS", "NIS")


def _flat(writer: ReferenceWriter, data: np.ndarray, number: int, filter_name: str, pupil: str) -> Rule:
    bad = (writer.detector.efficiency == 0) | writer.detector.reference
    flags = np.where(bad, dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["NO_FLAT_FIELD"], np.uint32(0)).astype(np.uint32)
    data = np.where(bad, 1, data).astype(np.float32)
    model = datamodels.FlatModel(data=data, dq=flags, err=np.full(data.shape, 1e-3, np.float32))
    define_dq(model, ("DO_NOT_USE", "NO_FLAT_FIELD"))
    meta = _common("flat", "response of the pixels")
    meta["subarray"] = writer.area
    meta["instrument"] |= {"filter": filter_name, "pupil": pupil}
    filename = save_reference(model, meta, writer.folder, f"jwst_niriss_flat_{number:04}.fits")
    return Rule("flat", filename, _optics(writer, filter_name, pupil))


def _optics(writer: ReferenceWriter, filter_name: str, pupil: str) -> dict[str, str]:
    return {
        "META.INSTRUMENT.DETECTOR": "NIS",
        "META.INSTRUMENT.FILTER": filter_name,
        "META.INSTRUMENT.PUPIL": pupil,
        "META.SUBARRAY.NAME": writer.subarray,
    }


def _write_images(writer: ReferenceWriter) -> list[Rule]:
    pupil, area = writer.passband.name, writer.relative_area
    # A uniform sky is flat after the flat field, so the flat of the images holds the areas of the pixels.
    rules = [_flat(writer, writer.response * area, 1, "CLEAR", pupil)]

    photometry = {"pixelarea_steradians": niriss.PIXEL_AREA, "pixelarea_arcsecsq": niriss.PIXEL_AREA / ARCSEC**2}
    # An AREA file has no keywords of where it lies: it always covers the whole detector.
    whole = niriss.distortion("", "").pixel_area_map((FULL_SIZE, FULL_SIZE), (0, 0)) * ARCSEC**2 / niriss.PIXEL_AREA
    model = datamodels.PixelAreaModel(data=whole.astype(np.float32))
    meta = {**_common("area", "relative area of the pixels"), "photometry": photometry}
    filename = save_reference(model, meta, writer.folder, "jwst_niriss_area_0001.fits")
    rules.append(Rule("area", filename, {"META.EXPOSURE.TYPE": IMAGES}))
    rules.append(Rule("area", "N/A", {"META.EXPOSURE.TYPE": SPECTRA}))

    conversion = image_conversion(writer.passband, MEAN_GAIN, niriss.PIXEL_AREA)
    table = np.array(
        [("CLEAR", pupil, conversion, 0.01 * conversion)],
        [("filter", "S12"), ("pupil", "S12"), ("photmjsr", "f4"), ("uncertainty", "f4")],
    )
    meta = {**_common("photom", "MJy/sr per DN/s"), "photometry": photometry, "exposure": {"type": IMAGES}}
    filename = save_reference(
        datamodels.NisImgPhotomModel(phot_table=table), meta, writer.folder, "jwst_niriss_photom_0001.fits"
    )
    rules.append(Rule("photom", filename, {"META.EXPOSURE.TYPE": IMAGES}))

    rows = [("CLEAR", pupil, *row) for row in image_apertures()]
    dtype = [("filter", "S12"), ("pupil", "S15")]
    dtype += [(column, "f4") for column in ("eefraction", "radius", "apcorr", "skyin", "skyout")]
    meta = {**_common("apcorr", "aperture corrections of images"), "exposure": {"type": IMAGES}}
    model = datamodels.NisImgApcorrModel(apcorr_table=np.array(rows, dtype))
    filename = save_reference(model, meta, writer.folder, "jwst_niriss_apcorr_0001.fits")
    rules.append(Rule("apcorr", filename, {"META.EXPOSURE.TYPE": IMAGES}))

    offsets = Table(rows=[("CLEAR", pupil, 1.70)], names=("filter", "pupil", "abvega_offset"))
    filename = "jwst_niriss_abvegaoffset_0001.asdf"
    # The data model of this type cannot be given a table in memory; it can read this one.
    meta = {
        **_common("abvegaoffset", "AB minus Vega magnitude"),
        "filename": filename,
        "model_type": "ABVegaOffsetModel",
    }
    write_asdf({"meta": meta, "abvega_offset": offsets}, writer.folder / filename)
    rules.append(Rule("abvegaoffset", filename, {"META.INSTRUMENT.DETECTOR": "NIS"}))
    return rules


def image_apertures() -> list[tuple[float, float, float, float, float]]:
    """Rows (enclosed fraction, radius, correction, sky radii [pixel]) of a point source in a mosaic."""
    # The box of a pixel widens the image in the exposure, as a drop, and in the mosaic; the coupling of pixels a little.
    variances = [(weight, sigma**2 + 3 / 12 + 0.011) for weight, sigma in PSF]

    def enclosed(radius: float) -> float:
        return sum(weight * (1 - np.exp(-0.5 * radius**2 / variance)) for weight, variance in variances)

    inner, outer = SKY_ANNULUS
    sky = (enclosed(outer) - enclosed(inner)) / (np.pi * (outer**2 - inner**2))
    rows = []
    for percent in range(10, 90, 10):
        radius = brentq(lambda r, part=percent / 100: enclosed(r) - part, 1e-3, 20)
        rows.append((percent / 100, radius, 1 / (percent / 100 - np.pi * radius**2 * sky), inner, outer))
    return rows


def _write_spectra(writer: ReferenceWriter) -> list[Rule]:
    pupil, rules = writer.passband.name, []
    for number, grism in enumerate(GRISMS, start=1):
        rules.append(_flat(writer, writer.response, number + 1, grism, pupil))

        axis = niriss.grism(grism).axis
        pattern = sky_pattern(writer.detector.shape, writer.detector.origin, axis)
        pattern *= writer.response * writer.relative_area
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
    exptypes = {"META.EXPOSURE.TYPE": f"{IMAGES}|{SPECTRA}"}
    meta = {**_common("distortion", "pixels to (V2, V3)"), "subarray": {"name": "GENERIC"}}
    meta |= {"exposure": {"p_exptype": f"{IMAGES}|{SPECTRA}|"}}
    model = datamodels.DistortionModel(
        model=distortion_model(niriss.distortion("", "")), input_units=u.pix, output_units=u.arcsec
    )
    rules = [
        Rule("distortion", save_reference(model, meta, writer.folder, "jwst_niriss_distortion_0001.asdf"), exptypes)
    ]

    offsets = [
        {"filter": filter_name, "pupil": name, "column_offset": column, "row_offset": row}
        for (filter_name, name), (column, row) in niriss.FILTER_OFFSETS.items()
    ]
    model = datamodels.FilteroffsetModel(filters=offsets, instrument="NIRISS")
    meta = _common("filteroffset", "offsets of the filters [pixel]")
    meta |= {"exposure": {"type": IMAGES}}
    model.meta.input_units = "pixel"
    rules.append(
        Rule("filteroffset", save_reference(model, meta, writer.folder, "jwst_niriss_filteroffset_0001.asdf"), exptypes)
    )

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


#: Parameters of steps on direct images: reference type -> (class in the official package, parameters). F200W is
#: undersampled: the default derivative scale rejects the cores of bright stars, and a faint star covers few pixels.
_PARAMETERS = {
    "pars-outlierdetectionstep": (
        "jwst.outlier_detection.outlier_detection_step.OutlierDetectionStep",
        {"scale": "2.4 1.4"},
    ),
    "pars-sourcecatalogstep": ("jwst.source_catalog.source_catalog_step.SourceCatalogStep", {"npixels": 6}),
}


def _write_parameters(writer: ReferenceWriter) -> list[Rule]:
    rules = []
    for reftype, (name, parameters) in _PARAMETERS.items():
        filename = f"jwst_niriss_{reftype}_0001.asdf"
        tree = {
            "class": name,
            "name": name.split(".")[1],
            "meta": {**_common(reftype, "for undersampled images"), "filename": filename, "origin": "Calweave"},
            "parameters": parameters,
            "steps": [],
        }
        write_asdf(tree, writer.folder / filename)
        rules += [
            Rule(reftype, filename, {"META.EXPOSURE.TYPE": IMAGES}),
            Rule(reftype, "N/A", {"META.EXPOSURE.TYPE": SPECTRA}),
        ]
    return rules


def _polynomial(terms: np.ndarray) -> models.Polynomial2D:
    names = ("c0_0", "c1_0", "c2_0", "c0_1", "c0_2", "c1_1")
    return models.Polynomial2D(2, **dict(zip(names, map(float, terms), strict=True)))


def distortion_model(distortion: Distortion) -> models.Shift:
    """The distortion as the compound model of the reference files, with a fitted inverse (1e-4 pixel or better)."""
    both = models.Mapping((0, 1, 0, 1))
    sin, cos = np.sin(np.deg2rad(distortion.v3i_yang)), np.cos(np.deg2rad(distortion.v3i_yang))
    parity = distortion.vparity
    forward = (
        models.Shift(-distortion.x_ref) & models.Shift(-distortion.y_ref)
        | both
        | _bivariate(distortion.x_coeffs) & _bivariate(distortion.y_coeffs)
        | both
        | models.Polynomial2D(1, c1_0=parity * cos, c0_1=sin) & models.Polynomial2D(1, c1_0=-parity * sin, c0_1=cos)
        | models.Shift(distortion.v2_ref) & models.Shift(distortion.v3_ref)
    )
    grid = np.linspace(-60, 2107, 45)
    x, y = np.meshgrid(grid, grid)
    xi, yi = distortion.ideal(x, y)
    degree = 5
    scale = 70.0  # [arcsec], to condition the fit
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    matrix = np.stack([(xi / scale).ravel() ** i * (yi / scale).ravel() ** j for i, j in powers], axis=1)
    fitted = []
    for target in (x - distortion.x_ref, y - distortion.y_ref):
        solution = np.linalg.lstsq(matrix, target.ravel(), rcond=None)[0]
        coeffs = {f"c{i}_{j}": value / scale ** (i + j) for (i, j), value in zip(powers, solution, strict=True)}
        fitted.append(models.Polynomial2D(degree, **coeffs))
    forward.inverse = (
        models.Shift(-distortion.v2_ref) & models.Shift(-distortion.v3_ref)
        | both
        | models.Polynomial2D(1, c1_0=parity * cos, c0_1=-parity * sin) & models.Polynomial2D(1, c1_0=sin, c0_1=cos)
        | both
        | fitted[0] & fitted[1]
        | models.Shift(distortion.x_ref) & models.Shift(distortion.y_ref)
    )
    return forward


def _bivariate(coeffs: np.ndarray) -> models.Polynomial2D:
    degree = coeffs.shape[0] - 1
    named = {f"c{i}_{j}": float(coeffs[i, j]) for i in range(degree + 1) for j in range(degree + 1 - i)}
    return models.Polynomial2D(degree, **named)


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
