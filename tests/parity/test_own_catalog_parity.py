"""A catalog that was made of a user's list, as the official package reads it."""

import json
import subprocess

import numpy as np
import pytest

from infra.products.catalog import write_catalog
from infra.products.user_catalog import Listed
from tasks.field import complete

READ = """
import json, sys
from jwst.assign_wcs.util import get_object_info
print(json.dumps([[int(o.label), o.sky_centroid.ra.deg, o.sky_centroid.dec.deg, o.sky_bbox_ll.ra.deg, o.sky_bbox_ur.dec.deg,
                   bool(o.is_extended)] for o in get_object_info(sys.argv[1])]))
"""


def test_the_package_takes_the_catalog_that_was_derived(peer, tmp_path):
    ra, dec = np.array([53.16, 53.17]), np.array([-27.79, -27.8])
    nan = np.full(2, np.nan)
    sources = Listed("my.csv", np.array([1200, 7]), ra, dec, np.array([21.0, 22.5]), nan, np.array([True, False]))
    field = complete(sources, None, None, {"SCATFILE": "my.csv"}, "a_segm.fits")
    write_catalog(field.catalog, tmp_path / "a_cat.ecsv")
    done = subprocess.run([peer, "-c", READ, tmp_path / "a_cat.ecsv"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    half = 0.35 / 3600
    for k, (label, *numbers, extended) in enumerate(found):
        assert (label, extended) == ((1200, True), (7, False))[k]
        wanted = [ra[k], dec[k], ra[k] + half / np.cos(np.radians(dec[k])), dec[k] + half]
        assert numbers == pytest.approx(wanted, abs=1e-9)
