"""The official package reads every association that we write, and makes the same ones of the same pools.

Compared are types, product names, members and roles; rules, numbers, versions and notes may differ.
"""

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from tiny_pools import direct, exposure, grism, pool_text

from associations.association import Association, read_association
from associations.edit import add_members, associate_files
from associations.generator import Options, generate
from associations.pool import read_pool

HELPER = Path(__file__).with_name("peer_associations.py")
EVERY_COLUMN = dict.fromkeys(
    """obs_id act_id module channel grating band fxd_slit patttype numdthpt patt_num subpxpts is_psf is_imprt bkgdtarg
    tsovisit msametfl msastate opmode lamp nints exposerr dms_note""".split(),
    "null",
)
BACKGROUND = (("c1001", "background"),)
IFU = {"exp_type": "nrs_ifu", "instrume": "nirspec", "filter": "f100lp", "grating": "g140h", "pupil": "null"}
MIRI = {"instrume": "miri", "pupil": "null"}
POOLS = {
    "slitless": (
        direct(1, 1, expspcin="1"),
        *(grism(1, n, expspcin="2") for n in (2, 3)),
        direct(1, 4, expspcin="3"),
        *(grism(1, n, filter="gr150r", expspcin="4") for n in (5, 6)),
        direct(1, 7, expspcin="5"),
        direct(2, 1, candidates=(("c1002", "mosaic"),), pupil="f115w"),
        direct(3, 1, candidates=(("c1002", "mosaic"),), pupil="f115w", targetid="2"),
    ),
    "background": (
        *(exposure(1, n, "nrs1", BACKGROUND, **IFU, dithptin=str(n), patttype="cycling") for n in (1, 2)),
        *(exposure(1, n, "nrs1", BACKGROUND, **IFU, dithptin=str(n - 2), patttype="cycling", is_imprt="t") for n in (3, 4)),
        exposure(2, 1, "nrs1", BACKGROUND, **IFU, patttype="cycling", bkgdtarg="t", targetid="2"),
    ),
    "slit": (
        exposure(1, 1, "mirimage", **MIRI, exp_type="mir_tacq", filter="f560w", pntgtype="target_acquisition"),
        *(
            exposure(1, n, "mirimage", **MIRI, exp_type="mir_lrs-fixedslit", filter="p750l",
                     patttype="along-slit-nod", patt_num=str(n - 1))
            for n in (2, 3)
        ),
        exposure(2, 1, "mirimage", **MIRI, exp_type="mir_image", filter="f770w", tsovisit="t", nints="10"),
    ),
}  # fmt: skip


def run(peer: str, *arguments: str | Path) -> dict:
    done = subprocess.run([peer, HELPER, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def products(associations: list[Association]) -> Counter:
    return Counter(
        (association.asn_type, product.name, tuple(sorted(member.key for member in product.members)))
        for association in associations
        for product in association.products
    )


@pytest.mark.parametrize("name", POOLS)
def test_the_official_generator_makes_the_same_products(name, peer, tmp_path):
    rows = sorted(({**EVERY_COLUMN, **row} for row in POOLS[name]), key=lambda row: row["filename"])
    text = pool_text(*rows)
    (tmp_path / "a_pool.csv").write_text(text)
    run(peer, "generate", tmp_path / "a_pool.csv", tmp_path)
    theirs = [read_association(file.read_text(), file.name) for file in tmp_path.glob("*_asn.json")]
    ours = generate(read_pool(text, "a_pool.csv"))
    assert len(ours) > 4
    assert products(ours) == products(theirs)


def test_the_official_loader_reads_every_file(peer, tmp_path):
    rows = [row for pool in POOLS.values() for row in pool]
    pool = read_pool(pool_text(*({**EVERY_COLUMN, **row} for row in rows)), "a_pool.csv")
    made = [*generate(pool, Options(version_id="20260101", code_version="1")), *generate(pool, Options(merge=True))]
    made.append(associate_files(["a_cal.fits", "b_cal.fits"], "list3_asn.json", product="all", asn_type="image3"))
    made.append(associate_files(["a_rate.fits"], "list2_asn.json", level=2))
    made.append(add_members(made[0], ["c_rate.fits"], "background").with_(file_name="edited_asn.json"))
    for association in made:
        (tmp_path / association.file_name).write_text(association.to_json())
    found = run(peer, "load", *sorted(tmp_path.glob("*_asn.json")))
    expected = {
        association.file_name: {
            product.name: [list(member.key) for member in product.members] for product in association.products
        }
        for association in made
    }
    assert len(found) > 30
    assert found == expected
