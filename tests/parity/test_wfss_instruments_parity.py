"""Slitless spectra of NIRCam and MIRI against the official package, from assign_wcs to photom, on the same files.

The bars are those of the mode: positions within 1e-3 pixel, boxes within 1 pixel, the same sources and orders, wavelengths
within 0.1 of a spectral pixel (here within 1e-3, where the package does not interpolate).

Where we differ on purpose: the package looks wavelengths of the prism of MIRI up between 10 places along the trace, and is
off by up to 0.9 pixels where the dispersion is uneven; we solve for them. Looked up between the same places, ours are the
same.
"""

import json
import os
import subprocess
from pathlib import Path

import asdf
import numpy as np
import pytest
from stdatamodels.jwst import datamodels
from wfss_scene import POINTING, VELOSYS, Place, catalog_of, distortion, miri_specwcs, nircam_specwcs

from infra.products.catalog import Catalog, read_catalog, write_catalog
from infra.products.header import Header
from infra.products.image import Image, read_image, write_image
from infra.products.slits import read_slits, write_slits
from infra.references.content import References
from infra.synthetic.crds_cache import CONTEXT, write_mappings
from tasks.assign_wcs import AssignWcsOptions, assign_wcs
from tasks.extract_2d import Extract2dOptions, extract_2d
from tasks.pathloss import pathloss
from tasks.photom import PhotomOptions, photom
from tasks.srctype import srctype
from tasks.step import NoOptions

SIZE = 256
CASES = {
    "nrca_r": ("NIRCAM", "GRISMR", nircam_specwcs("GRISMR")),
    "nrca_c": ("NIRCAM", "GRISMC", nircam_specwcs("GRISMC", newer=True)),
    "miri": ("MIRI", "P750L", miri_specwcs()),
}
WAVES = {"NIRCAM": np.linspace(3.0, 4.0, 60), "MIRI": np.linspace(4.5, 13.5, 60)}
RANGES = {"NIRCAM": (3.1, 3.98), "MIRI": (5.0, 13.0)}
#: um per pixel in the middle.
PIXEL = {"NIRCAM": 2.6 / 2590, "MIRI": 10 / 310}
OPTIONS = {
    "nrca_r": {"extract_orders": [1, 2], "source_ids": [1, 2, 3, 4, 6, 8, 9]},
    "nrca_c": {"wfss_mmag_extract": 24.5, "wfss_extract_half_height": None},
    "miri": {"wfss_nbright": 5},
}

PEER = """
import json, sys
from jwst.assign_wcs import AssignWcsStep
from jwst.extract_2d import Extract2dStep
from jwst.pathloss import PathLossStep
from jwst.photom import PhotomStep
from jwst.srctype import SourceTypeStep
for name, options in json.loads(sys.argv[1]).items():
    files = {key: f"{name}_{key}.asdf" for key in ("specwcs", "distortion")}
    image = AssignWcsStep.call(
        f"{name}_rate.fits", override_filteroffset="N/A", sip_approx=False,
        **{f"override_{key}": value for key, value in files.items()},
    )
    image.save(f"peer/{name}_wcs.fits")
    slits = Extract2dStep.call(image, override_wavelengthrange=f"{name}_wavelengthrange.asdf", **options)
    slits = SourceTypeStep.call(slits)
    if name == "miri":
        slits = PathLossStep.call(slits)
    slits = PhotomStep.call(slits, override_photom=f"{name}_photom.fits", override_area="N/A")
    slits.save(f"peer/{name}_cal.fits")
# What the package makes of our own file.
slits = PhotomStep.call("miri_extract2d.fits", override_photom="miri_photom.fits", override_area="N/A")
slits.save("peer/ours_cal.fits")
"""


def header_of(name: str, instrument: str, grism: str) -> Header:
    cards = {
        "TELESCOP": "JWST", "INSTRUME": instrument, "SUBARRAY": "FULL", "SUBSTRT1": 1, "SUBSTRT2": 1, "SUBSIZE1": SIZE,
        "SUBSIZE2": SIZE, "FASTAXIS": 1, "SLOWAXIS": 2, "EFFEXPTM": 100.0, "EFFINTTM": 50.0, "NINTS": 1, "NGROUPS": 5,
        "PROGRAM": "01234", "OBSERVTN": "001", "VISIT": "001", "VISITGRP": "02", "SEQ_ID": "1", "ACT_ID": "01",
        "EXPOSURE": "1", "EXPMID": 60000.0, "DATE-OBS": "2023-07-14", "TIME-OBS": "12:00:00", "BUNIT": "DN/s",
        "SCATFILE": f"{name}_cat.ecsv", "FILENAME": f"{name}_rate.fits", "VELOSYS": VELOSYS, "WCSAXES": 2,
        "V2_REF": POINTING.v2_ref, "V3_REF": POINTING.v3_ref, "RA_REF": POINTING.ra_ref, "DEC_REF": POINTING.dec_ref,
        "ROLL_REF": POINTING.roll_ref, "V3I_YANG": 0.0, "VPARITY": -1, "VA_SCALE": POINTING.va_scale,
        "TARG_RA": 53.16, "TARG_DEC": -27.79,
        "S_REGION": "POLYGON ICRS  53.16 -27.79 53.17 -27.79 53.17 -27.78 53.16 -27.78",
    }  # fmt: skip
    if instrument == "NIRCAM":
        cards |= {"EXP_TYPE": "NRC_WFSS", "FILTER": "F335M", "PUPIL": grism, "DETECTOR": "NRCALONG"}
        return Header(cards | {"MODULE": "A", "CHANNEL": "LONG"})
    return Header(cards | {"EXP_TYPE": "MIR_WFSS", "FILTER": grism, "DETECTOR": "MIRIMAGE"})


def places(name: str) -> list[Place]:
    """Sources whose spectra are on the detector, at each of its edges, and off it."""
    # Along the dispersion, the direct images of what is on the detector are where the trace puts them.
    low, high = {"nrca_r": (0, 1000), "nrca_c": (0, 1000), "miri": (-150, 450)}[name]
    rng = np.random.default_rng(12)
    along, across = rng.uniform(low, high, 9), rng.uniform(-12, SIZE + 12, 9)
    if name == "nrca_r":
        along[:2] = -2100, -3700  # those of order 2
    across[3:6] = -3, SIZE + 2, SIZE + 80
    return [
        Place(k + 1, *((x, y) if name.endswith("_r") else (y, x)), rng.uniform(2, 8), rng.uniform(20, 26), bool(k % 2))
        for k, (x, y) in enumerate(zip(along, across, strict=True))
    ]


def write_references(folder: Path, name: str) -> References:
    """The references of one exposure, in the forms of the observatory."""
    instrument, grism, tree = CASES[name]
    about = {
        "author": "test", "date": "2023-01-01", "description": "test", "title": "test", "pedigree": "DUMMY",
        "useafter": "2022-01-01T00:00:00", "telescope": "JWST", "instrument": {"name": instrument},
        "exposure": {"type": "NRC_WFSS" if instrument == "NIRCAM" else "MIR_WFSS"}, "origin": "test",
    }  # fmt: skip
    header = header_of(name, instrument, grism)
    filter_ = header["FILTER"]
    orders = tree["orders"]
    ranges = {
        "wavelengthrange": [[order, filter_, *RANGES[instrument]] for order in orders],
        "extract_orders": [[filter_, orders[:1]]],
        "order": orders,
        "waverange_selector": [filter_],
    }
    trees = {"specwcs": tree, "distortion": {"model": distortion(SIZE)}, "wavelengthrange": ranges}
    for key, content in trees.items():
        meta = about | {"reftype": key}
        if key == "specwcs":
            meta |= {"input_units": "micron", "output_units": "micron"}
        asdf.AsdfFile({"meta": meta, **content}).write_to(folder / f"{name}_{key}.asdf")
    n = WAVES[instrument].size
    model = {"NIRCAM": datamodels.NrcWfssPhotomModel, "MIRI": datamodels.MirWfssPhotomModel}[instrument]()
    dtype = model.get_dtype("phot_table")
    dtype = [(one, dtype[one].base, (n,)) if one in ("wavelength", "relresponse", "reluncertainty") else (one, dtype[one])
             for one in dtype.names]  # fmt: skip
    shared = n, WAVES[instrument], 1 + 0.3 * np.sin(WAVES[instrument]), 0 * WAVES[instrument]
    if instrument == "NIRCAM":
        rows = [(filter_, grism, order, 0.3 / order, 0.01, *shared) for order in orders]
        rows.append((filter_, "CLEAR", 1, 9.0, 0.01, *shared))
    else:
        rows = [(filter_, subarray, 0.4, 0.01, *shared) for subarray in ("SUB64", "FULL")]
    model.phot_table = np.array(rows, dtype)
    model.meta.instance.update(about | {"reftype": "photom"})
    model.meta.photometry.pixelarea_steradians, model.meta.photometry.pixelarea_arcsecsq = 1e-13, 0.0042
    model.save(folder / f"{name}_photom.fits")
    files = {key: str(folder / f"{name}_{key}.asdf") for key in trees} | {"photom": str(folder / f"{name}_photom.fits")}
    return References({**files, "area": None, "filteroffset": None}, CONTEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, peer):
    """What both made of the same files: ours in the folder, theirs in ``peer/``."""
    folder = tmp_path_factory.mktemp("instruments")
    for name, (instrument, grism, _) in CASES.items():
        references = write_references(folder, name)
        rng = np.random.default_rng(5)
        data = rng.normal(1, 0.1, (SIZE, SIZE)).astype(np.float32)
        dq = (rng.random(data.shape) < 0.005).astype(np.uint32)
        data[dq > 0] = np.nan
        var = np.where(dq > 0, np.nan, 0.01).astype(np.float32)
        image = Image(header_of(name, instrument, grism), data, np.sqrt(2 * var), dq, var, var, 0 * var)
        write_image(image, folder / f"{name}_rate.fits")
        image = assign_wcs.fn(read_image(folder / f"{name}_rate.fits"), references, AssignWcsOptions(sip_approx=False))
        write_image(image, folder / f"{name}_wcs.fits")
        write_catalog(Catalog(catalog_of(places(name), image.wcs)), folder / f"{name}_cat.ecsv")
        catalog = read_catalog(folder / f"{name}_cat.ecsv")
        slits = extract_2d.fn(image, references, Extract2dOptions(**OPTIONS[name]), catalog)
        slits = srctype.fn(slits, references, NoOptions())
        if name == "miri":
            write_slits(slits, folder / "miri_extract2d.fits")
            slits = pathloss.fn(slits, references, NoOptions())
        write_slits(photom.fn(slits, references, PhotomOptions()), folder / f"{name}_cal.fits")
    # The references are named; the client wants a cache all the same.
    write_mappings(folder / "crds", {"NIRCAM": [], "MIRI": []})
    (folder / "peer").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {"CRDS_PATH": str(folder / "crds"), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
    command = [peer, "-c", PEER, json.dumps(OPTIONS)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def slits_of(folder, name):
    """Our slits and theirs, by source and order."""
    sets = read_slits(folder / f"{name}_cal.fits"), read_slits(folder / "peer" / f"{name}_cal.fits")
    return tuple({(slit.source_id, slit.order): slit for slit in one.slits} for one in sets)


@pytest.mark.parametrize("name", CASES)
def test_positions_are_the_same(folder, name):
    ours, theirs = read_image(folder / f"{name}_wcs.fits"), read_image(folder / "peer" / f"{name}_wcs.fits")
    assert ours.header["DISPAXIS"] == theirs.header["DISPAXIS"]
    assert ours.wcs.available_frames == theirs.wcs.available_frames
    instrument, _, tree = CASES[name]
    for order in tree["orders"]:
        for wavelength in RANGES[instrument]:
            for source in ((53.161, -27.791), (53.158, -27.789)):
                one, other = (
                    np.array(image.wcs.get_transform("world", "grism_detector")(*source, wavelength, order), float)
                    for image in (ours, theirs)
                )
                np.testing.assert_allclose(one.ravel(), other.ravel(), atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_sources_orders_and_boxes_are_the_same(folder, name):
    ours, theirs = slits_of(folder, name)
    assert list(ours) == list(theirs)
    assert 2 <= len(ours) < 9
    assert {order for _, order in ours} == ({1, 2} if name == "nrca_r" else {1})
    for key, slit in ours.items():
        for card in ("SLTSTRT1", "SLTSTRT2", "SLTSIZE1", "SLTSIZE2"):
            assert abs(slit.header[card] - theirs[key].header[card]) <= 1
        for card in ("SLTNAME", "SRCTYPE", "BUNIT", "DISPAXIS", "SPECSYS"):
            assert slit.header[card] == theirs[key].header[card]
        for card in ("SRCXPOS", "SRCYPOS", "SRCRA", "SRCDEC", "PHOTMJSR", "PHOTUJA2", "PIXAR_SR"):
            assert slit.header[card] == pytest.approx(theirs[key].header[card], rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_wavelengths_flags_and_calibrated_pixels_are_the_same(folder, name):
    ours, theirs = slits_of(folder, name)
    pixel = PIXEL[CASES[name][0]]
    for key, slit in ours.items():
        other = theirs[key]
        assert slit.data.shape == other.data.shape, "the boxes are the same here"
        wavelength = looked_up(slit) if name == "miri" else slit.wavelength
        np.testing.assert_allclose(wavelength, other.wavelength, atol=1e-3 * pixel)
        assert (slit.dq == other.dq).mean() > (0.98 if name == "miri" else 1 - 1e-9)
        both = (slit.dq & 1 == 0) & (other.dq & 1 == 0)
        if name != "miri":
            np.testing.assert_allclose(slit.data[both], other.data[both], rtol=0.005)
            np.testing.assert_allclose(slit.err[both], other.err[both], rtol=0.005)


def looked_up(slit):
    """The wavelengths of a cutout of MIRI, looked up between 10 places along the trace."""
    (along,), t = miri_specwcs()["dispy"], np.linspace(0, 1, 10)
    x0, y0 = slit.header["SRCXPOS"], slit.header["SRCYPOS"]
    offset = sum(model(x0, y0) * t**k for k, model in enumerate(along))[::-1]
    wanted = slit.header["SLTSTRT2"] - 1 + np.arange(slit.data.shape[0]) - y0
    k = np.clip(np.searchsorted(offset, wanted), 1, 9)
    share = (wanted - offset[k - 1]) / (offset[k] - offset[k - 1])
    found = (4 + 10 * (t[::-1][k - 1] * (1 - share) + t[::-1][k] * share)) / (1 + VELOSYS / 299_792_458.0)
    return np.broadcast_to(found[:, None], slit.data.shape)


def test_the_package_does_nothing_for_path_loss_either(folder):
    headers = [read_slits(place / "miri_cal.fits").header for place in (folder, folder / "peer")]
    assert [header["S_PTHLOS"] for header in headers] == ["SKIPPED", "SKIPPED"]


def test_the_package_calibrates_our_cutouts_as_we_do(folder):
    ours, theirs = (read_slits(folder / path).slits for path in ("miri_cal.fits", "peer/ours_cal.fits"))
    assert [slit.source_id for slit in ours] == [slit.source_id for slit in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.data, other.data, rtol=1e-4)
        np.testing.assert_array_equal(one.dq, other.dq)
