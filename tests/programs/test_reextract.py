"""The spectra of a few sources made again, beside those of the run."""

import json

import numpy as np
import pytest
from small_program import SPEC2, SPEC3, states, tree

from flows.wfss import reextract
from infra.products.header import ProductError
from infra.products.slits import read_slits
from infra.products.spectrum import read_spectra
from tasks.options import OptionError

SPECTRA = {*SPEC2.values(), *SPEC3.values()}


def rows_of(folder, pattern):
    """(Name of the file, table, source) -> row, of the spectra of a folder."""
    return {
        (path.name, number, int(row["SOURCE_ID"])): row
        for path in sorted(folder.glob(pattern))
        for number, table in enumerate(read_spectra(path).tables)
        for row in table.rows
        if row["N_ALONGDISP"] > 0
    }


@pytest.fixture
def chosen(program):
    """Two sources that are not all of them: one with spectra in both grisms, if there is one."""
    numbers = sorted({number for _, _, number in rows_of(program.products, "*_c1d.fits")})
    assert len(numbers) > 2
    return numbers[:2]


def test_the_same_spectra_come_of_fewer_sources_and_the_run_stays_as_it_is(program, chosen):
    before = tree(program.products)
    page = (program.products / "report.html").read_bytes()
    run = reextract(str(program.products), chosen[::-1], None, {}, 2)
    assert set(states(run)) == SPECTRA
    assert run["program"] == "09801"
    folder = program.products / f"reextracted-{chosen[0]}-{chosen[1]}"
    for pattern in ("*_x1d.fits", "*_c1d.fits"):
        first, again = rows_of(program.products, pattern), rows_of(folder, pattern)
        assert again
        assert {key for key in first if key[2] in chosen} == set(again)
        for key, row in again.items():
            n = row["N_ALONGDISP"]
            for column in ("WAVELENGTH", "FLUX"):
                np.testing.assert_array_equal(row[column][:n], first[key][column][:n])
    for path in folder.glob("*_cal.fits"):
        assert {slit.source_id for slit in read_slits(path).slits} <= set(chosen)
    assert (folder / "report.html").exists()
    assert json.loads((folder / "run.json").read_text())["overrides"]["extract_2d"]["source_ids"] == chosen
    # Nothing of the run was touched, and it is as current as before.
    assert {name: value for name, value in tree(program.products).items() if name in before} == before
    assert (program.products / "report.html").read_bytes() == page
    assert set(states(program.run()).values()) == {"current"}
    # Nor is what was made once made again.
    assert {state for state in states(reextract(str(program.products), chosen, None, {}, 2)).values()} <= {
        "current",
        "empty",
    }


def test_options_go_over_those_of_the_run(program, chosen, tmp_path):
    options = {"extract_2d": {"wfss_extract_half_height": 3}}
    reextract(str(program.products), chosen[:1], str(tmp_path / "narrow"), options, 2)
    sizes = {
        min(slit.data.shape)
        for path in (tmp_path / "narrow").glob("*_cal.fits")
        for slit in read_slits(path).slits
        if not slit.extended
    }
    assert sizes <= {7}
    assert list((tmp_path / "narrow").glob("*_c1d.fits"))


def test_associations_that_were_given_with_the_exposures(program, chosen, tmp_path):
    for path in program.products.glob("*_asn.json"):
        path.rename(program.folder / path.name)
    for path in (program.products / ".calweave").glob("*.json"):
        record = json.loads(path.read_text())
        if record["target"].endswith("_asn.json"):
            record["target"] = str(program.folder / record["target"].rsplit("/", 1)[-1])
            path.write_text(json.dumps(record))
    run = reextract(str(program.products), chosen, str(tmp_path / "again"), {}, 2)
    assert set(states(run).values()) <= {"done", "empty"}
    assert rows_of(tmp_path / "again", "*_c1d.fits").keys() <= rows_of(program.products, "*_c1d.fits").keys()
    assert not list(program.products.glob("*_asn.json"))


def test_what_cannot_be_extracted_again_is_said(program, chosen, tmp_path, calweave):
    folder = str(program.products)
    with pytest.raises(ProductError, match=r"_cat\.ecsv: there is no source 98, 99; its \d+ sources are numbered 1 to"):
        reextract(folder, [99, chosen[0], 98], None, {}, 1)
    with pytest.raises(ProductError, match="expected the products of a run with slitless spectra"):
        reextract(str(tmp_path), [1], None, {}, 1)
    with pytest.raises(OptionError, match="whose products must stay"):
        reextract(folder, chosen, folder + "/", {}, 1)
    done = calweave("wfss", "reextract", folder, "--sources", "1,x", crds=program.crds)
    assert done.returncode
    assert "expected source numbers such as 12,57" in done.stderr + done.stdout
