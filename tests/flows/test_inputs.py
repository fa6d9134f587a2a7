"""What a run may be given: a folder, a pool, associations, an object store; and a field without sources."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from infra.products.catalog import Catalog, read_catalog, write_catalog
from infra.products.image import read_image
from infra.products.ramp import read_ramp
from infra.synthetic.program import write_program


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "program"
    write_program(folder, size=64, ngroups=3, grism_ngroups=3, dithers=1, grism_dithers=1)
    return folder


def image_association(folder: Path, program: Path) -> Path:
    (raw,) = (path for path in program.glob("uncal/*") if fits.getval(path, "EXP_TYPE") == "NIS_IMAGE")
    shutil.copy(raw, folder)
    rate = raw.name.replace("uncal", "rate")
    product = {"name": rate.removesuffix("_rate.fits"), "members": [{"expname": rate, "exptype": "science"}]}
    path = folder / "jw09801-o001_image2_00001_asn.json"
    path.write_text(json.dumps({"asn_type": "image2", "asn_id": "o001", "products": [product]}))
    return path


def test_an_association_runs_with_the_exposures_beside_it(calweave, program, tmp_path):
    path = image_association(tmp_path, program)
    done = calweave("run", path, "--out", tmp_path / "out", crds=program / "crds")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name.rsplit("_", 1)[1] for p in (tmp_path / "out").glob("*.fits")) == [
        "cal.fits",
        "i2d.fits",
        "rate.fits",
    ]
    (cal,) = (tmp_path / "out").glob("*_cal.fits")
    assert read_image(cal).header["ASNTABLE"] == path.name


def test_a_step_that_is_left_out_leaves_out_its_product(calweave, program, tmp_path):
    path = image_association(tmp_path, program)
    raw = next(tmp_path.glob("*_uncal.fits"))
    words = ("--out", tmp_path, "-p", "ramp_fit.skip=true")
    assert calweave("stage", "detector1", raw, *words, crds=program / "crds").returncode == 0
    (ramp,) = tmp_path.glob("*_ramp.fits")
    assert read_ramp(ramp).header["S_DARK"] == "COMPLETE"
    done = calweave("run", path, "--out", tmp_path / "out", "-p", "resample.skip=true", crds=program / "crds")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name.rsplit("_", 1)[1] for p in (tmp_path / "out").glob("*.fits")) == ["cal.fits", "rate.fits"]


def test_stage_products_on_an_object_store_equal_those_on_disk(calweave, program, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    (raw,) = (path for path in program.glob("uncal/*") if fits.getval(path, "EXP_TYPE") == "NIS_IMAGE")
    store.put_file(str(raw), f"/in/{raw.name}")
    for source, out in ((str(raw), str(tmp_path)), (f"memory://in/{raw.name}", "memory://out")):
        done = calweave("stage", "detector1", source, "--out", out, crds=program / "crds")
        assert done.returncode == 0, done.stderr
    rate = raw.name.replace("uncal", "rate")
    store.get_file(f"/out/{rate}", str(tmp_path / "stored.fits"))
    difference = fits.FITSDiff(tmp_path / rate, tmp_path / "stored.fits", ignore_keywords=["DATE"])
    assert difference.identical, difference.report()


def test_a_field_without_sources_ends_with_64(calweave, demo_run, tmp_path):
    catalog = next(demo_run.products.glob("*_cat.ecsv"))
    association = sorted(demo_run.products.glob("*_spec2_00001_asn.json"))[0]
    for path in (*demo_run.products.glob("*_i2d.fits"), *demo_run.products.glob("*_segm.fits"), association):
        shutil.copy(path, tmp_path)
    for path in demo_run.products.glob("*_rate.fits"):
        shutil.copy(path, tmp_path)
    write_catalog(Catalog(read_catalog(catalog).table[:0]), tmp_path / catalog.name)
    done = calweave("stage", "spec2", tmp_path / association.name, "--out", tmp_path / "out", crds=demo_run.crds)
    assert done.returncode == 64, done.stderr
    assert catalog.name in done.stderr or "no source" in done.stderr
    assert not list((tmp_path / "out").glob("*.fits"))


def test_every_value_of_a_calibrated_image_is_finite_or_flagged(demo_run):
    for path in demo_run.products.glob("*_cal.fits"):
        if fits.getval(path, "EXP_TYPE") == "NIS_IMAGE":
            image = read_image(path)
            assert ((image.dq & 1) != 0)[~np.isfinite(image.data)].all()
