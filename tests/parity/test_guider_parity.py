"""Every guider mode is calibrated as by the official pipeline (jwst 3.0.0): rates, errors, flags and telemetry."""

import numpy as np
import pytest
from astropy.io import fits
from carried_parity import load, run_peer, write_cache
from stdatamodels.jwst import datamodels

from infra.products.guider import read_guider, write_guider
from infra.references.content import References
from infra.synthetic import reference_files
from tasks.dq_init import dq_init
from tasks.flat_field import flat_field
from tasks.guider_cds import guider_cds
from tasks.step import STEPS

#: EXP_TYPE -> shape (nints, ngroups, ny, nx) and corner on the detector.
MODES = {
    "FGS_ID-IMAGE": ((2, 2, 48, 64), (850, 1000)),
    "FGS_ID-STACK": ((2, 2, 48, 64), (850, 1000)),
    "FGS_ACQ1": ((6, 2, 128, 128), (887, 1022)),
    "FGS_ACQ2": ((5, 2, 32, 32), (900, 1000)),
    "FGS_TRACK": ((12, 2, 32, 32), (900, 1000)),
    "FGS_FINEGUIDE": ((9, 11, 8, 8), (900, 1000)),
}
TABLES = {
    "FGS_TRACK": ("pointing_table", "centroid_table", "track_sub_table"),
    "FGS_FINEGUIDE": ("pointing_table", "centroid_table"),
    "FGS_ID-STACK": ("planned_star_table", "flight_star_table", "pointing_table"),
}


def write_raw(path, exp_type, rng):
    """A raw file, written with the official data models: a star that brightens from read to read, and telemetry."""
    (nints, ngroups, ny, nx), (x, y) = MODES[exp_type]
    star = 4000 * np.exp(-0.5 * ((np.arange(ny)[:, None] - ny / 2) ** 2 + (np.arange(nx) - nx / 2) ** 2) / 2)
    reads = 9000 + star * np.arange(1, ngroups + 1)[:, None, None] + rng.normal(0, 12, (nints, ngroups, ny, nx))
    reads[0, 1:, 3, 3] += 5000  # a particle, in one integration
    model = datamodels.GuiderRawModel()
    model.data = np.rint(reads).astype(np.uint16)
    model.meta.instrument.name, model.meta.instrument.detector = "FGS", "GUIDER2"
    model.meta.exposure.type = exp_type
    model.meta.exposure.readpatt = exp_type.removeprefix("FGS_").split("-")[0]
    model.meta.exposure.nints, model.meta.exposure.ngroups = nints, ngroups
    model.meta.exposure.group_time, model.meta.exposure.frame_time = 0.364, 0.364
    model.meta.observation.date, model.meta.observation.time = "2022-04-27", "00:30:00.000"
    model.meta.subarray.name = f"{nx}X{ny}"
    model.meta.subarray.xstart, model.meta.subarray.ystart = x, y
    model.meta.subarray.xsize, model.meta.subarray.ysize = nx, ny
    model.meta.subarray.fastaxis, model.meta.subarray.slowaxis = 2, -1
    for name in TABLES.get(exp_type, ()):
        table = np.zeros(5, model.get_dtype(name))
        for column in table.dtype.names:
            if table[column].dtype.kind in "if":
                table[column] = rng.integers(0, 100, 5)
        setattr(model, name, table)
    model.save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("guider_parity")
    rng = np.random.default_rng(12)
    (folder / "references").mkdir()
    rules = reference_files.write_guider(folder / "references", rng)
    files = {rule.reftype: str(folder / "references" / rule.filename) for rule in rules}
    crds = write_cache(folder / "crds", {("FGS", "GUIDER2"): files})
    jobs = []
    for exp_type in MODES:
        path = folder / f"jw_{exp_type.lower()}_uncal.fits"
        write_raw(path, exp_type, rng)
        jobs.append(
            {
                "name": exp_type,
                "step": "guider",
                "exposure": str(path),
                "options": {"save_results": True},
                "references": {},
            }
        )
    run_peer(peer, folder, crds, jobs)
    return folder, References(files, "jwst_0001.pmap")


@pytest.mark.parametrize("exp_type", MODES)
def test_a_mode_is_calibrated_as_by_the_official_pipeline(made, exp_type, tmp_path):
    folder, references = made
    guider = read_guider(folder / f"jw_{exp_type.lower()}_uncal.fits")
    for task in (dq_init, guider_cds, flat_field):
        guider = task.fn(guider, references, STEPS[task.name].options())
    theirs = load(folder, exp_type)
    assert guider.data.shape == theirs["data"].shape
    np.testing.assert_allclose(guider.data, theirs["data"], rtol=3e-7, atol=1e-3)
    np.testing.assert_array_equal(guider.dq, theirs["dq"])
    np.testing.assert_allclose(guider.err, theirs["err"], rtol=1e-5)
    if exp_type.startswith("FGS_ID"):
        assert guider.data[0, 3, 3] < 100 / 0.364, "the smaller difference is without the particle"
    write_guider(guider, tmp_path / "mine_cal.fits")
    (path,) = (folder / exp_type).glob("*_cal.fits")
    with fits.open(tmp_path / "mine_cal.fits") as mine, fits.open(path) as others:
        assert [hdu.name for hdu in mine] == [hdu.name for hdu in others]
        assert sum(isinstance(hdu, fits.BinTableHDU) for hdu in mine) == 1 + len(TABLES.get(exp_type, ()))
        for hdu in mine[1:-1]:
            if isinstance(hdu, fits.BinTableHDU):
                assert np.array_equal(hdu.data, others[hdu.name].data), hdu.name
