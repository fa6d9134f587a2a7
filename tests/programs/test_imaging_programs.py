"""Small programs of direct images, one for each imager, from raw ramps to mosaic and catalog, against their truth.

The bounds follow from the noise: a star of 100 sigma has a position good to FWHM / 2.35 / 100, 0.01 to 0.02 pixel, some twenty
of them align an exposure within 0.004, and the total flux of one in an undersampled mosaic scatters by 2 per cent with its
place in the pixel.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from flows.program import calibrate
from infra.products.catalog import read_catalog
from infra.products.image import read_image, read_segmentation
from infra.synthetic.compare_imaging import ImagingComparison, compare_imaging
from infra.synthetic.imaging import write_imaging_program

SMALL = {"size": 256, "dithers": 3}
#: Preset -> its groups, the size of its pixels [mas], options of steps. FGS leaves all particles to stage 3.
PROGRAMS = {
    "nircam-imaging": (4, 30.9, {}),
    "niriss-imaging": (4, 65.6, {}),
    "miri-imaging": (12, 110.7, {}),
    "fgs-imaging": (4, 69.3, {"jump": {"skip": True}}),
}


@dataclass(frozen=True)
class Calibrated:
    """A calibrated program, and how its products compare with the truth; pixels are in mas."""

    preset: str
    program: Path
    products: Path
    states: set[str]
    comparison: ImagingComparison

    def one(self, pattern: str) -> Path:
        """The one product of that name."""
        (path,) = self.products.glob(pattern)
        return path


def calibrated(folder: Path, preset: str, options: dict, **parameters) -> Calibrated:
    """Simulate and calibrate a program; reports to no server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    program, products = folder / "program", folder / "products"
    write_imaging_program(program, preset, **parameters)
    with pytest.MonkeyPatch.context() as patch, temporary_settings(restore_defaults={PREFECT_API_URL}):
        patch.setenv("CRDS_PATH", str(program / "crds"))
        for name in ("CRDS_SERVER_URL", "CRDS_CONTEXT"):
            patch.delenv(name, raising=False)
        run = calibrate([str(program)], str(products), options, 2)
    states = {node["state"] for node in run["nodes"]}
    return Calibrated(preset, program, products, states, compare_imaging(products, program / "truth"))


@pytest.fixture(scope="module", params=PROGRAMS)
def done(request, tmp_path_factory) -> Calibrated:
    ngroups, _, options = PROGRAMS[request.param]
    return calibrated(tmp_path_factory.mktemp(request.param), request.param, options, ngroups=ngroups, **SMALL)


def test_every_product_of_the_program_is_there(done):
    assert done.states == {"done"}
    for pattern, count in (
        ("*_rate.fits", 3),
        ("*_cal.fits", 3),
        ("*_crf.fits", 3),
        ("*_i2d.fits", 4),
        ("*_cat.ecsv", 1),
    ):
        assert len(list(done.products.glob(pattern))) == count, pattern
    labels = set(map(int, read_catalog(done.one("*_cat.ecsv")).table["label"]))
    assert set(np.unique(read_segmentation(done.one("*_segm.fits")).data)) - {0} == labels


def test_every_step_that_an_imager_has_was_run(done):
    header = fits.getheader(done.one("*_00001_*_crf.fits"))
    steps = ["S_WCS", "S_FLAT", "S_PHOTOM", "S_TWKREG", "S_SKYMAT", "S_OUTLIR"]
    steps += ["S_RESET", "S_RSCD"] if done.preset == "miri-imaging" else ["S_SUPERB"]
    assert {step: header[step] for step in steps} == dict.fromkeys(steps, "COMPLETE")


def test_all_bright_stars_are_found_where_they_are(done):
    _, pixel, _ = PROGRAMS[done.preset]
    assert done.comparison.bright >= 5
    assert done.comparison.found == done.comparison.bright
    assert done.comparison.positions < 0.025 * pixel


def test_exposures_are_aligned_though_their_pointings_were_off(done):
    _, pixel, _ = PROGRAMS[done.preset]
    assert done.comparison.exposures == 3
    assert done.comparison.injected > 20
    assert done.comparison.aligned < 0.01 * pixel


def test_fluxes_of_stars_are_right(done):
    assert done.comparison.total == pytest.approx(1, abs=0.025)
    # The isophote of a faint star leaves out its wings.
    assert 0.92 < done.comparison.isophotal < 1.01


def test_skies_agree_and_what_particles_left_is_removed_and_nothing_else(done):
    assert done.comparison.sky < 0.3
    assert done.comparison.lost < 1e-4
    if "jump" in PROGRAMS[done.preset][2]:
        assert done.comparison.hits > 100
    assert done.comparison.removed >= 0.95 * done.comparison.hits


def test_surface_brightness_is_that_of_the_truth(done):
    path = done.one("*_00002_*_cal.fits")
    image = read_image(path)
    surface = fits.getdata(done.program / "truth" / path.name.replace("_cal", "_truth"), "SURFACE")
    good = np.isfinite(image.data) & (image.dq == 0)
    # The drift of the amplifier shifts all pixels of a cut-out, which has no reference pixels, by the same.
    deviation = image.data - surface
    deviation -= np.median(deviation[good])
    bright = good & (surface > np.median(surface) + 50 * np.median(image.err[good]))
    assert bright.sum() > 20
    assert np.sum(deviation[bright]) / np.sum(surface[bright] - np.median(surface)) == pytest.approx(0, abs=0.02)


def test_exposures_of_a_moving_target_are_stacked_on_it(tmp_path):
    done = calibrated(tmp_path, "moving-target", {}, size=160, dithers=3, ngroups=4)
    assert done.states == {"done"}
    assert done.comparison.found == 1
    # Nothing corrects the errors of the pointing, 2 mas: the mosaic shows the target within them.
    assert done.comparison.shift < 6
    assert done.comparison.aligned == pytest.approx(done.comparison.injected, abs=0.1)
    assert done.comparison.total == pytest.approx(1, abs=0.08)
    assert fits.getheader(done.one("*_00001_*_crf.fits"))["S_MTWCS"] == "COMPLETE"
