"""The reference files of direct images, for all imagers: flat, photometry, apertures, geometry, and parameters of steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.modeling import bind_bounding_box, models
from astropy.table import Table
from scipy.optimize import brentq
from stdatamodels.jwst import datamodels

from calibration import dq
from calibration.simulate import nircam
from calibration.simulate.field import ARCSEC, Distortion
from calibration.simulate.imager import Imager
from calibration.simulate.throughput import image_conversion
from infra.synthetic.detector_references import Place
from infra.synthetic.reference_format import about, define_dq, save_reference, write_asdf

SKY_ANNULUS = (12.0, 16.0)  # [pixel], for aperture photometry

#: Instrument -> data models of the photometry and of the aperture corrections.
_MODELS = {
    "NIRISS": (datamodels.NisImgPhotomModel, datamodels.NisImgApcorrModel),
    "NIRCAM": (datamodels.NrcImgPhotomModel, datamodels.NrcImgApcorrModel),
    "MIRI": (datamodels.MirImgPhotomModel, datamodels.MirImgApcorrModel),
    "FGS": (datamodels.FgsImgPhotomModel, datamodels.FgsImgApcorrModel),
}

#: Parameters of steps on direct images: reference type -> (class in the official package, parameters). The images are
#: undersampled: the default derivative scale rejects the cores of bright stars, and a faint star covers few pixels.
PARAMETERS = {
    "pars-outlierdetectionstep": (
        "jwst.outlier_detection.outlier_detection_step.OutlierDetectionStep",
        {"scale": "2.4 1.4"},
    ),
    "pars-sourcecatalogstep": ("jwst.source_catalog.source_catalog_step.SourceCatalogStep", {"npixels": 6}),
}


@dataclass(frozen=True)
class ImagingReferences:
    """For what the files are written, and where to.

    Parameters
    ----------
    folder
        Of the instrument, in the cache.
    place
        The detector.
    imager
        Its optics.
    area
        Subarray keywords of what is read out.
    gain
        Mean gain [e-/DN].
    exp_types
        EXP_TYPE of all that the geometry is for, separated by ``|``.
    """

    folder: Path
    place: Place
    imager: Imager
    area: Mapping[str, Any]
    gain: float
    exp_types: str

    @property
    def relative_area(self) -> np.ndarray:
        """Area on the sky of each pixel that is read out, in nominal areas."""
        shape, origin = (self.area["ysize"], self.area["xsize"]), (self.area["xstart"] - 1, self.area["ystart"] - 1)
        detector = self.place.detector
        areas = self.imager.optics[detector].pixel_area_map(shape, origin)
        return areas * ARCSEC**2 / self.imager.pixel_area(detector)

    def about(self, reftype: str, title: str) -> dict[str, Any]:
        """The keywords that every file has."""
        meta = about(reftype, title, self.place.instrument, self.place.detector)
        if self.place.instrument == "NIRCAM":
            meta["instrument"] |= nircam.module_and_channel(self.place.detector)
        return meta

    def save(self, model: Any, meta: dict[str, Any], suffix: str = "fits", number: int = 1) -> str:
        """Write the file of this number of its type for the detector; returns its name."""
        return save_reference(model, meta, self.folder, self.place.name(meta["reftype"], number, suffix))


def write_imaging(to: ImagingReferences, response: np.ndarray) -> dict[str, str]:
    """Write the references of stages 2 and 3 for direct images; returns reference type -> file name (or N/A).

    ``response`` (ny, nx) is DN/s of each pixel for equal light on each, relative to the mean; 0 where it is dead.
    """
    exp_type = {"exposure": {"type": to.imager.exp_type}}
    files = {"flat": write_flat(to, np.where(response > 0, response * to.relative_area, 0), 1, to.imager)}

    pixel_area = to.imager.pixel_area(to.place.detector)
    photometry = {"photometry": {"pixelarea_steradians": pixel_area, "pixelarea_arcsecsq": pixel_area / ARCSEC**2}}
    whole = to.imager.detector_area
    # An AREA file has no keywords of where it lies: it always covers the whole detector.
    areas = to.imager.optics[to.place.detector].pixel_area_map(whole.shape, (0, 0)) * ARCSEC**2 / pixel_area
    model = datamodels.PixelAreaModel(data=areas.astype(np.float32))
    files["area"] = to.save(model, {**to.about("area", "relative area of the pixels"), **photometry})

    photom, apcorr = _MODELS[to.place.instrument]
    conversion = image_conversion(to.imager.passband, to.gain, pixel_area)
    names, values = key_columns(to, 12)
    dtype = [*names, ("photmjsr", "f4"), ("uncertainty", "f4")]
    model = photom(phot_table=np.array([(*values, conversion, 0.01 * conversion)], dtype))
    files["photom"] = to.save(model, {**to.about("photom", "MJy/sr per DN/s"), **photometry, **exp_type})

    names, values = key_columns(to, 15)
    dtype = names + [(column, "f4") for column in ("eefraction", "radius", "apcorr", "skyin", "skyout")]
    model = apcorr(apcorr_table=np.array([(*values, *row) for row in image_apertures(to.imager)], dtype))
    files["apcorr"] = to.save(model, {**to.about("apcorr", "aperture corrections of images"), **exp_type})

    key = {name: value for name, value in wheels(to.imager).items() if value} or {"detector": to.place.detector}
    offsets = Table(rows=[(*key.values(), to.imager.vega_offset)], names=(*key, "abvega_offset"))
    # The data model of this type cannot be given a table in memory; it can read this one.
    files["abvegaoffset"] = to.place.name("abvegaoffset", suffix="asdf")
    meta = {**to.about("abvegaoffset", "AB minus Vega magnitude"), "filename": files["abvegaoffset"]}
    tree = {"meta": {**meta, "model_type": "ABVegaOffsetModel"}, "abvega_offset": offsets}
    write_asdf(tree, to.folder / files["abvegaoffset"])
    return files | _write_geometry(to)


def write_flat(to: ImagingReferences, response: np.ndarray, number: int, behind: Imager) -> str:
    """Write the flat of ``response`` (ny, nx), 0 in pixels that have none, for the filter and the pupil of ``behind``."""
    bad = response == 0
    flags = np.where(bad, dq.PIXEL["DO_NOT_USE"] | dq.PIXEL["NO_FLAT_FIELD"], np.uint32(0)).astype(np.uint32)
    data = np.where(bad, 1, response).astype(np.float32)
    model = datamodels.FlatModel(data=data, dq=flags, err=np.full(data.shape, 1e-3, np.float32))
    define_dq(model, ("DO_NOT_USE", "NO_FLAT_FIELD"))
    meta = to.about("flat", "response of the pixels")
    meta["subarray"] = to.area
    meta["instrument"] |= {name: value for name, value in wheels(behind).items() if value}
    return save_reference(model, meta, to.folder, to.place.name("flat", number))


def wheels(imager: Imager) -> dict[str, str]:
    """The keywords of the wheels; empty where the instrument has none."""
    return {"filter": imager.filter, "pupil": imager.pupil}


def key_columns(to: ImagingReferences, pupil_width: int) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Columns that say what a row of a photometric table is for, and their values."""
    if to.place.instrument == "FGS":
        return [], ()
    if to.place.instrument == "MIRI":
        return [("filter", "S12"), ("subarray", "S17")], (to.imager.filter, to.place.subarray)
    return [("filter", "S12"), ("pupil", f"S{pupil_width}")], (to.imager.filter, to.imager.pupil)


def image_apertures(imager: Imager) -> list[tuple[float, float, float, float, float]]:
    """Rows (enclosed fraction, radius, correction, sky radii [pixel]) of a point source in a mosaic."""
    # The box of a pixel widens the image in the exposure, as a drop, in the mosaic, and in the aperture, which takes a pixel
    # for even; the coupling of pixels a little.
    variances = [(weight, sigma**2 + 4 / 12 + 0.011) for weight, sigma in imager.psf]

    def enclosed(radius: float) -> float:
        return sum(weight * (1 - np.exp(-0.5 * radius**2 / variance)) for weight, variance in variances)

    inner, outer = SKY_ANNULUS
    sky = (enclosed(outer) - enclosed(inner)) / (np.pi * (outer**2 - inner**2))
    rows = []
    for percent in range(10, 90, 10):
        radius = brentq(lambda r, part=percent / 100: enclosed(r) - part, 1e-3, 20)
        rows.append((percent / 100, radius, 1 / (percent / 100 - np.pi * radius**2 * sky), inner, outer))
    return rows


def _write_geometry(to: ImagingReferences) -> dict[str, str]:
    meta = {**to.about("distortion", "pixels to (V2, V3)"), "subarray": {"name": "GENERIC"}}
    meta |= {"exposure": {"p_exptype": f"{to.exp_types}|"}}
    if to.place.instrument == "NIRCAM":
        meta["instrument"]["p_pupil"] = f"{to.imager.pupil}|"
    transform = distortion_model(to.imager.optics[to.place.detector], to.imager.detector_area.shape)
    if to.imager.bounding_box is not None:
        bind_bounding_box(transform, to.imager.bounding_box, order="F")
    model = datamodels.DistortionModel(model=transform, input_units=u.pix, output_units=u.arcsec)
    files = {"distortion": to.save(model, meta, "asdf"), "filteroffset": "N/A"}
    if to.imager.offset is not None:
        column, row = to.imager.offset
        entry = {"filter": to.imager.filter, "pupil": to.imager.pupil or "N/A"}
        entries = [entry | {"column_offset": column, "row_offset": row}]
        model = datamodels.FilteroffsetModel(filters=entries, instrument=to.place.instrument)
        meta = to.about("filteroffset", "offsets of the filters [pixel]")
        meta |= {"exposure": {"type": to.imager.exp_type}}
        model.meta.input_units = "pixel"
        files["filteroffset"] = to.save(model, meta, "asdf")
    return files


def write_parameters(to: ImagingReferences) -> dict[str, str]:
    """Write the parameters of steps; returns reference type -> file name."""
    files = {}
    for reftype, (name, parameters) in PARAMETERS.items():
        filename = to.place.name(reftype, suffix="asdf")
        meta = to.about(reftype, "for undersampled images")
        tree = {
            "class": name,
            "name": name.split(".")[1],
            "meta": {**meta, "filename": filename, "origin": "Calweave"},
            "parameters": parameters,
            "steps": [],
        }
        write_asdf(tree, to.folder / filename)
        files[reftype] = filename
    return files


def distortion_model(distortion: Distortion, shape: tuple[int, int] = (2048, 2048)) -> models.Shift:
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
    ny, nx = shape
    x, y = np.meshgrid(np.linspace(-60, nx + 59, 45), np.linspace(-60, ny + 59, 45))
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
