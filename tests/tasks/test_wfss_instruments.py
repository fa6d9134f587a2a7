"""Scenes through the grisms of NIRCam and the prism of MIRI, from the simulator to spectra, against their truth."""

import json
from dataclasses import dataclass
from pathlib import Path

import asdf
import numpy as np
import pytest
from astropy.io import fits
from astropy.modeling.models import Polynomial1D, Polynomial2D
from stdatamodels.jwst import datamodels
from wfss_scene import POINTING as WFSS_POINTING
from wfss_scene import Place, catalog_of, distortion, other_wcs_of

from calibration.simulate import niriss
from calibration.simulate.dispersion import Grism, disperse, line_rate
from calibration.simulate.field import Pointing, pixel_to_sky, sky_to_pixel
from calibration.simulate.grisms import miri_prism, nircam_grism
from calibration.simulate.scene import Line, Source
from calibration.simulate.throughput import Passband, sensitivity
from calibration.wcs.grism import miri_disperser, nircam_disperser
from calibration.wcs.imaging import imaging_wcs
from flows.spec2 import spec2
from infra.products.catalog import Catalog
from infra.products.header import Header
from infra.products.image import Image, write_image
from infra.products.spectrum import read_spectra
from infra.references.content import References
from infra.synthetic.crds_cache import Rule, write_mappings
from tasks.assign_wcs import AssignWcsOptions, assign_wcs
from tasks.extract_1d import Extract1dOptions, extract_1d
from tasks.extract_2d import Extract2dOptions, extract_2d
from tasks.pathloss import pathloss
from tasks.photom import PhotomOptions, photom
from tasks.srctype import srctype
from tasks.step import NoOptions

DISTORTION, POINTING = niriss.distortion("", ""), Pointing(53.0, -27.0, 57.0, 1.00005)
AREA = 9.3e-14  # sr
F335M = Passband("F335M", blue=3.20, red=3.52, edge=0.006, peak=0.4)
P750L = Passband("P750L", blue=5.0, red=12.5, edge=0.05, peak=0.3)


@dataclass(frozen=True)
class Case:
    """An exposure of one source with a line: what disperses it, the area, the direct position, and where the line is."""

    grism: Grism
    module: str
    passband: Passband
    shape: tuple[int, int]
    place: tuple[float, float]
    line: Line
    order: int = 1

    @property
    def header(self) -> Header:
        cards = {"SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": self.shape[1], "SUBSIZE2": self.shape[0], "BUNIT": "DN/s"}
        cards |= {"EFFEXPTM": 100.0, "EXPMID": 60000.0, "FILENAME": "jw_rate.fits", "SUBARRAY": "FULL"}
        if self.module:
            cards |= {"INSTRUME": "NIRCAM", "EXP_TYPE": "NRC_WFSS", "FILTER": "F335M", "PUPIL": self.grism.name}
        else:
            cards |= {"INSTRUME": "MIRI", "EXP_TYPE": "MIR_WFSS", "FILTER": "P750L"}
        return Header(cards | {"DISPAXIS": 1 if self.grism.axis == "x" else 2})


PAA = Line("Pa_a", 3.36, 2e-18, 2e-3)
NEON = Line("Ne_II", 9.1, 2e-17, 8e-3)
CASES = {
    "nrca row": Case(nircam_grism("GRISMR", "A"), "A", F335M, (90, 560), (860.3, 44.6), PAA),
    "nrca row, order 2": Case(nircam_grism("GRISMR", "A"), "A", F335M, (90, 1000), (-2290.4, 44.6), PAA, order=2),
    "nrcb row": Case(nircam_grism("GRISMR", "B"), "B", F335M, (90, 560), (-290.3, 44.6), PAA),
    "nrcb column": Case(nircam_grism("GRISMC", "B"), "B", F335M, (560, 90), (44.6, 860.3), PAA),
    "miri": Case(miri_prism(), "", P750L, (420, 90), (44.7, 215.2), NEON),
}


def specwcs_of(grism: Grism) -> dict:
    """The tree of the reference of a simulated grism, in the form of its instrument."""
    names = ("c0_0", "c1_0", "c2_0", "c0_1", "c0_2", "c1_1")
    wave = {"displ": (grism.c0, grism.c1), "invdispl": (-grism.c0 / grism.c1, 1 / grism.c1)}
    tree = {key: [Polynomial1D(1, c0=c0, c1=c1) for _ in grism.traces] for key, (c0, c1) in wave.items()}
    for axis in "xy":
        tree[f"disp{axis}"] = [
            [
                Polynomial2D(2, **dict(zip(names, map(float, terms), strict=True)))
                for terms in getattr(trace, f"{axis}_terms")
            ]
            for trace in grism.traces.values()
        ]
    if grism.name == "P750L":
        return tree | {"orders": [1]}
    # Along the dispersion NIRCam has mere polynomials of t, and no inverses.
    key = f"disp{grism.axis}"
    tree[key] = [
        [Polynomial1D(len(order) - 1, **{f"c{k}": one.c0_0.value for k, one in enumerate(order)})]
        for order in tree[key]
    ]
    return {key: value for key, value in tree.items() if key != "invdispl"} | {"orders": list(grism.traces)}


def write_references(folder, case: Case) -> References:
    filter_, grism = case.passband, case.grism
    asdf.AsdfFile(specwcs_of(grism)).write_to(folder / "specwcs.asdf")
    ends = filter_.blue - 3 * filter_.edge, filter_.red + 3 * filter_.edge
    ranges = [[order, filter_.name, *ends] for order in grism.traces]
    tree = {"wavelengthrange": ranges, "extract_orders": [[filter_.name, [1]]]}
    asdf.AsdfFile(tree).write_to(folder / "wavelengthrange.asdf")
    waves = np.linspace(*ends, 3000)
    where = [("pupil", "S15"), ("order", "i2")] if case.module else [("subarray", "S15")]
    dtype = [("filter", "S12"), *where, ("photmjsr", "f4"), ("nelem", "i2")]
    dtype += [("wavelength", "f4", (3000,)), ("relresponse", "f4", (3000,))]
    rows = []
    for order in grism.traces:
        per_flux = sensitivity(filter_, waves, order, grism.efficiencies) * AREA * 1e6
        name = (grism.name, order) if case.module else ("FULL",)
        rows.append((filter_.name, *name, 1.0, 3000, waves, 1 / per_flux))
    primary = fits.PrimaryHDU(header=fits.Header({"PIXAR_SR": AREA, "PIXAR_A2": 0.0039}))
    fits.HDUList([primary, fits.BinTableHDU(np.array(rows, dtype), name="PHOTOM")]).writeto(folder / "photom.fits")
    files = {key: str(folder / f"{key}.asdf") for key in ("specwcs", "wavelengthrange")}
    return References({**files, "photom": str(folder / "photom.fits"), "area": None, "apcorr": None}, "test")


@pytest.mark.parametrize("name", CASES)
def test_line_and_continuum_of_a_simulated_source_come_back(name, tmp_path):
    case = CASES[name]
    ra, dec = pixel_to_sky(DISTORTION, POINTING, *case.place)
    source = Source(1, float(ra), float(dec), 4e-6, 0.5, 0.0, 1.0, 0.0, (case.line,))
    data = np.zeros(case.shape)
    disperse(data, [source], DISTORTION, POINTING, case.grism, case.passband, (0, 0))

    tree = specwcs_of(case.grism)
    disperser = nircam_disperser(tree, case.grism.name) if case.module else miri_disperser(tree)
    wcs = other_wcs_of(disperser, 512, velosys=None, bend=0)
    variance = np.full(case.shape, 1e-6, np.float32)
    image = Image(
        case.header, data.astype(np.float32), np.sqrt(2 * variance), np.zeros(case.shape, np.uint32), variance, variance,
        0 * variance, wcs=wcs,
    )  # fmt: skip
    references = write_references(tmp_path, case)
    # Where the simulator has it: far outside of the detector its inverse is not exact.
    place = map(float, sky_to_pixel(DISTORTION, POINTING, source.ra, source.dec))
    catalog = Catalog(catalog_of([Place(1, *place)], wcs))
    options = Extract2dOptions(extract_orders=[case.order], wfss_extract_half_height=28)
    slits = srctype.fn(extract_2d.fn(image, references, options, catalog), references, NoOptions())
    slits = photom.fn(pathloss.fn(slits, references, NoOptions()), references, PhotomOptions())
    (table,) = extract_1d.fn(slits, references, Extract1dOptions()).tables
    n = table.rows["N_ALONGDISP"][0]
    wavelength, flux = (table.rows[column][0][:n].astype(float) for column in ("WAVELENGTH", "FLUX"))
    assert table.cards["SPORDER"] == case.order

    line, pixels = case.line, np.abs(np.gradient(wavelength))
    edge = 5 * case.passband.edge
    inside = (wavelength > case.passband.blue + edge) & (wavelength < case.passband.red - edge)
    continuum = source.continuum_flux(wavelength)
    near = np.abs(wavelength - line.wavelength) < np.maximum(16 * pixels, 8 * line.fwhm)
    # A bin of counts sees the mean of the sensitivity within it, the calibration its value in the middle.
    np.testing.assert_allclose(flux[inside & ~near], continuum[inside & ~near], rtol=0.01)
    excess = (flux - continuum) * pixels
    total = excess[near].sum()
    centroid = (excess * wavelength)[near].sum() / total
    width = pixels[np.argmin(np.abs(wavelength - line.wavelength))]
    assert abs(centroid - line.wavelength) / width < 0.1
    rate = line_rate(line.flux, line.wavelength, case.passband, case.order, case.grism.efficiencies)
    sensitivity_there = sensitivity(case.passband, np.array([line.wavelength]), case.order, case.grism.efficiencies)[0]
    assert total == pytest.approx(rate / sensitivity_there, rel=0.02)


def test_the_zeroth_order_of_nircam_is_not_on_the_detector_and_its_modules_mirror_each_other():
    a, b = nircam_grism("GRISMR", "A"), nircam_grism("GRISMR", "B")
    assert set(a.traces) == {1, 2}
    ends = [np.ptp(grism.position(1, 1000.0, 1000.0, np.array([3.0, 4.0]))[0]) for grism in (a, b)]
    assert ends == pytest.approx([996.0, 996.0], abs=1)
    assert a.position(1, 1000.0, 1000.0, 5.0)[0] > a.position(1, 1000.0, 1000.0, 4.0)[0]
    assert b.position(1, 1000.0, 1000.0, 5.0)[0] < b.position(1, 1000.0, 1000.0, 4.0)[0]


def test_an_unknown_grism_or_module_is_refused():
    with pytest.raises(ValueError, match=r"expected GRISMR or GRISMC and module A or B, but got 'GR150R' and 'A'"):
        nircam_grism("GR150R", "A")


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ({"PUPIL": "CLEAR"}, r"jw_rate.fits, specwcs.asdf: expected PUPIL to be one of .*GRISMC.*but it is CLEAR"),
        ({"EXP_TYPE": "MIR_WFSS"}, r"jw_rate.fits, specwcs.asdf: expected FILTER to be P750L for MIRI.*it is F335M"),
    ],
)
def test_a_grism_that_the_instrument_does_not_have_is_named_with_the_file(tmp_path, cards, message):
    case = CASES["nrca row"]
    references = write_references(tmp_path, case)
    asdf.AsdfFile({"model": imaging_model()}).write_to(tmp_path / "distortion.asdf")
    files = {**references.files, "distortion": str(tmp_path / "distortion.asdf"), "filteroffset": None}
    image = blank(case, **cards)
    with pytest.raises(ValueError, match=message):
        assign_wcs.fn(image, References(files, "test"), AssignWcsOptions(sip_approx=False))


def test_an_exposure_without_a_specwcs_is_named(tmp_path):
    case = CASES["nrca row"]
    asdf.AsdfFile({"model": imaging_model()}).write_to(tmp_path / "distortion.asdf")
    files = {"distortion": str(tmp_path / "distortion.asdf"), "filteroffset": None, "specwcs": None}
    with pytest.raises(ValueError, match=r"jw_rate.fits: no SPECWCS .* \(NRC_WFSS, FILTER F335M, PUPIL GRISMR\)"):
        assign_wcs.fn(blank(case), References(files, "test"), AssignWcsOptions(sip_approx=False))


def test_a_filter_without_wavelengths_is_named_with_the_files(tmp_path):
    case = CASES["nrca row"]
    references = write_references(tmp_path, case)
    wcs = other_wcs_of(nircam_disperser(specwcs_of(case.grism), "GRISMR"), 512)
    catalog = Catalog(catalog_of([Place(1, *case.place)], wcs))
    image = blank(case, FILTER="F115W").with_(wcs=wcs)
    with pytest.raises(ValueError, match=r"jw_rate.fits, wavelengthrange.asdf: .* no orders for the filter F115W"):
        extract_2d.fn(image, references, Extract2dOptions(), catalog)
    image = blank(case).with_(wcs=wcs)
    with pytest.raises(ValueError, match=r"jw_rate.fits, wavelengthrange.asdf: .* no order 3 for the filter F335M"):
        extract_2d.fn(image, references, Extract2dOptions(extract_orders=[3]), catalog)


def imaging_model():
    return distortion(512, bend=0)


def blank(case: Case, **cards) -> Image:
    at = WFSS_POINTING
    pointing = {
        "V2_REF": at.v2_ref, "V3_REF": at.v3_ref, "RA_REF": at.ra_ref, "DEC_REF": at.dec_ref, "ROLL_REF": at.roll_ref,
        "VA_SCALE": at.va_scale,
    }  # fmt: skip
    plane = np.zeros(case.shape, np.float32)
    return Image(case.header.set(pointing | cards), plane, plane, plane.astype(np.uint32))


@pytest.mark.parametrize("name", ["nrca row", "miri"])
def test_stage_2_makes_spectra_of_an_exposure_and_a_list_of_positions(name, tmp_path, monkeypatch, without_server):
    case = CASES[name]
    cache = tmp_path / "crds"
    folder = cache / "references" / "jwst" / case.header["INSTRUME"].lower()
    folder.mkdir(parents=True)
    references = write_references(folder, case)
    asdf.AsdfFile({"model": imaging_model()}).write_to(folder / "distortion.asdf")
    rules = []
    for path in (*references.files.values(), str(folder / "distortion.asdf")):
        if path is not None:
            reftype, suffix = Path(path).name.split(".")
            target = f"jwst_{folder.name}_{reftype}_0001.{suffix}"
            Path(path).rename(folder / target)
            rules.append(Rule(reftype, target, {"META.EXPOSURE.TYPE": case.header["EXP_TYPE"]}))
    write_mappings(cache, {case.header["INSTRUME"]: rules})
    monkeypatch.setenv("CRDS_PATH", str(cache))
    for variable in ("CRDS_SERVER_URL", "CRDS_CONTEXT"):
        monkeypatch.delenv(variable, raising=False)

    identifiers = {
        "TELESCOP": "JWST", "PROGRAM": "01234", "OBSERVTN": "001", "VISIT": "001", "VISITGRP": "02", "SEQ_ID": "1",
        "ACT_ID": "01", "EXPOSURE": "1", "DATE-OBS": "2023-07-14", "TIME-OBS": "12:00:00", "DETECTOR": "NRCALONG",
        "MODULE": "A",
    }  # fmt: skip
    if not case.module:
        identifiers |= {"DETECTOR": "MIRIMAGE", "MODULE": None}
    image = blank(case, **identifiers)
    noise = np.random.default_rng(3).normal(0, 0.01, case.shape).astype(np.float32)
    variance = np.full(case.shape, 5e-5, np.float32)
    image = image.with_(data=noise, err=np.sqrt(2 * variance), var_poisson=variance, var_rnoise=variance)
    write_image(image, tmp_path / "jw01234001001_02101_00001_x_rate.fits")
    at = imaging_wcs(WFSS_POINTING, imaging_model(), case.shape)(*case.place, with_bounding_box=False)
    (tmp_path / "survey.csv").write_text(f"id,ra,dec,mag\n4711,{float(at[0]):.9f},{float(at[1]):.9f},21.5\n")
    members = [{"expname": "jw01234001001_02101_00001_x_rate.fits", "exptype": "science"}]
    association = {
        "asn_type": "spec2", "asn_rule": "x", "asn_id": "o001", "asn_pool": "none", "program": "01234",
        "products": [{"name": "jw01234001001_02101_00001_x", "members": members}],
    }  # fmt: skip
    (tmp_path / "spec2_asn.json").write_text(json.dumps(association))
    own = {"spec2": {"catalog": str(tmp_path / "survey.csv")}}
    spec2.fn(str(tmp_path / "spec2_asn.json"), str(tmp_path / "out"), own)
    with datamodels.open(tmp_path / "out" / "jw01234001001_02101_00001_x_cal.fits") as model:
        (slit,) = model.slits
        assert (slit.source_id, slit.meta.wcsinfo.dispersion_direction) == (4711, 1 if case.module else 2)
        assert slit.meta.bunit_data == "MJy/sr"
        assert model.meta.cal_step.pathloss == (None if case.module else "SKIPPED")
        middle = (slit.data.shape[1] // 2, slit.data.shape[0] // 2)
        width = np.abs(np.gradient(slit.wavelength, axis=1 if case.module else 0))
        assert slit.meta.wcs(*middle)[2] == pytest.approx(slit.wavelength[middle[::-1]], abs=float(width.max()))
    spectra = read_spectra(tmp_path / "out" / "jw01234001001_02101_00001_x_x1d.fits")
    assert spectra.tables[0].rows["SOURCE_ID"].tolist() == [4711]
    assert np.isfinite(spectra.tables[0].rows["FLUX"]).sum() > 150
