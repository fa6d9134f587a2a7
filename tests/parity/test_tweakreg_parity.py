"""Exposures are aligned as the official step (jwst 3.0.0) aligns them on the same files, within 2 mas, and nearer to the truth.

Its positions of stars are moments in a few pixels. With a hundred stars they leave it 0.3 to 2 mas off in the middle of an
image, and more at the corners, which a rotation moves; ours are within 1 mas of the truth there.
"""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from imaging_scene import START, distortion, make_scene, pointing

from calibration.wcs.imaging import imaging_wcs
from infra.products.image import read_image, write_image
from infra.references.content import References
from infra.synthetic.crds_cache import write_mappings
from tasks.tweakreg import TweakregOptions, tweakreg

SIZE = 320
DITHERS = ((0.0, 0.0), (1.23, 0.71), (-0.66, 1.37))
ERRORS = ((0.0, 0.0), (0.12, -0.09, 0.03), (-0.02, 0.025))
# The stars of the scene are some 1.5 arcsec apart.
OPTIONS = {"minobj": 10, "tolerance": 0.3, "separation": 0.5}


def halves(image, said):
    """An image as two detectors see it, side by side, in one exposure."""
    half = SIZE // 2
    for k, columns in enumerate((slice(0, half), slice(half, SIZE))):
        planes = {
            name: getattr(image, name)[:, columns].copy()
            for name in ("data", "err", "dq", "var_poisson", "var_rnoise", "var_flat")
        }
        start = START + k * half
        header = image.header.set(
            FILENAME=image.header["FILENAME"].replace("nis", f"nis{k}"), SUBSTRT1=start, SUBSIZE1=half
        )
        wcs = imaging_wcs(said, distortion(), (SIZE, half), (start, START))
        yield image.with_(header=header, wcs=wcs, **planes)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory, peer):
    """The images of each case, and as the official step aligned them."""
    folder = tmp_path_factory.mktemp("tweakreg")
    scene = make_scene(SIZE, DITHERS, ERRORS, count=160, star=0.5)
    pairs = [half for image, at in zip(scene.images, DITHERS, strict=True) for half in halves(image, pointing(*at))]
    Table({"RA": scene.field.ra, "DEC": scene.field.dec}).write(folder / "stars.ecsv", format="ascii.ecsv")
    catalog = {"abs_refcat": str(folder / "stars.ecsv")} | {f"abs_{key}": value for key, value in OPTIONS.items()}
    cases = {
        "iraf": (scene.images, OPTIONS),
        "detectors": (pairs, OPTIONS),
        "catalog": (scene.images, OPTIONS | catalog),
    }
    for image in (*scene.images, *pairs):
        write_image(image, folder / image.header["FILENAME"])
    written = {
        name: {"files": [image.header["FILENAME"] for image in images], "options": options}
        for name, (images, options) in cases.items()
    }
    (folder / "jobs.json").write_text(json.dumps(written))
    write_mappings(folder / "crds", {"NIRISS": []})
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {"CRDS_PATH": str(folder / "crds"), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
    command = [peer, Path(__file__).with_name("peer_tweakreg.py"), folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.stderr or done.stdout)[-3000:]
    pointings = {image.header["EXPOSURE"]: at for image, at in zip(scene.images, scene.pointings, strict=True)}
    return {
        name: (images, options, [read_image(folder / f"{name}_{k}.fits") for k in range(len(images))], pointings)
        for name, (images, options) in cases.items()
    }


@pytest.mark.parametrize("case", ["iraf", "detectors", "catalog"])
def test_exposures_are_aligned_as_the_official_step_does(case, jobs):
    images, options, theirs, pointings = jobs[case]
    ours = tweakreg.fn(tuple(images), References({}, "none"), TweakregOptions(**options))
    for before, one, other in zip(images, ours, theirs, strict=True):
        ny, nx = before.data.shape
        grid = np.meshgrid(np.linspace(0, nx - 1, 5), np.linspace(0, ny - 1, 5))
        assert one.wcs.available_frames == other.wcs.available_frames
        apart = distance(one.wcs, other.wcs, grid)
        assert apart[2, 2] < 2
        assert apart.max() < 3
        real = imaging_wcs(
            pointings[before.header["EXPOSURE"]], distortion(), before.data.shape, (before.header["SUBSTRT1"], START)
        )
        assert distance(one.wcs, real, grid).max() < 1


def distance(one, other, grid):
    """How far apart [mas] two WCS see pixels."""
    (ra, dec), (there, up) = (each(*grid) for each in (one, other))
    return 3.6e6 * np.hypot((ra - there) * np.cos(np.radians(dec)), dec - up)
