"""The slitless steps beside the official package, on the same files and the same machine: speed and memory; one table.

``CALWEAVE_PEER_PYTHON=... python tests/benchmarks/bench_wfss.py [--peer-sources 20] [--folder FOLDER] [--readme]``. Full frames
of NIRISS with 110 sources, made by a process of its own: grism exposures after assign_wcs, their catalog, direct image and
segmentation map. Stage 2 is measured from extract_2d to the written _cal and _x1d, stage 3 as a whole, with four exposures
in two grisms and pixel_replace on. Each measurement is a process, looked at from outside for its peak memory; CPU is user and
system time without the imports, ours the second of two runs in it. The official stage 3 takes one source after the other,
about 10 s for each: both are measured on ``--peer-sources`` of the sources, and ours on all of them as well. Last, ours alone
on 5000 sources. Writes ``benchmarks/wfss.md``; a bar that is missed makes the exit code 1.
"""

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_detector1 import GIB, REPOSITORY, measured_on, put_into_readme

sys.path.insert(0, str(REPOSITORY / "tests"))

SIZE, SOURCES, MANY = 2048, 110, 5000
GRISMS = {1: "GR150R", 2: "GR150R", 3: "GR150C", 4: "GR150C"}

PEER = """
import json, resource, sys, time

def now():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime, time.perf_counter()

from jwst.extract_2d import Extract2dStep
from jwst.srctype import SourceTypeStep
from jwst.wfss_contam import WfssContamStep
from jwst.photom import PhotomStep
from jwst.extract_1d import Extract1dStep
from jwst.pipeline import Spec3Pipeline
none = {"override_apcorr": "N/A", "override_psf": "N/A"}
start = now()
if sys.argv[1] == "spec3":
    Spec3Pipeline.call("spec3_asn.json", save_results=True, output_dir="peer",
                       steps={"extract_1d": {**none, "override_extract1d": "N/A"}, "pixel_replace": {"skip": False}})
else:
    slits = Extract2dStep.call("jw01234001001_02101_00001_nis_rate.fits", override_wavelengthrange="wavelengthrange.asdf")
    slits = SourceTypeStep.call(slits)
    if sys.argv[1] == "contaminated":
        slits = WfssContamStep.call(slits, skip=False, override_photom="photom.fits",
                                    override_wavelengthrange="wavelengthrange.asdf")
    slits = PhotomStep.call(slits, override_photom="photom.fits", override_area="N/A")
    slits.save("peer/jw01234001001_02101_00001_nis_cal.fits")
    Extract1dStep.call(slits, **none).save("peer/jw01234001001_02101_00001_nis_x1d.fits")
print(json.dumps([end - begin for begin, end in zip(start, now())]))
"""


def make(folder: Path, count: int, kept: int) -> None:
    """Noise with a catalog of random places (the steps do not care what is in the pixels), and all that goes with it.

    Of the four calibrated exposures there is a set with the first ``kept`` sources alone, and one with all.
    """
    from tiny_cache import write_cache
    from wfss_scene import POINTING, Place, catalog_of, distortion, wcs_of, write_model_references

    from calibration.wcs.imaging import imaging_wcs
    from infra.products.catalog import Catalog, write_catalog
    from infra.products.header import Header
    from infra.products.image import Image, Segmentation, write_image, write_segmentation
    from infra.products.slits import write_slits
    from infra.synthetic.crds_cache import known_types
    from tasks.extract_2d import Extract2dOptions, extract_2d
    from tasks.photom import photom
    from tasks.srctype import srctype
    from tasks.step import Options

    rng = np.random.default_rng(0)
    places = [
        Place(k + 1, *rng.uniform(100, SIZE - 100, 2), rng.uniform(2, 9), rng.uniform(18, 27), bool(k % 2))
        for k in range(count)
    ]
    references = write_model_references(folder)
    write_cache(folder / "crds", dict.fromkeys(known_types(), "N/A"))
    (folder / "peer").mkdir()
    direct, label = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.uint32)
    for place in places:
        x, y, half = int(place.x), int(place.y), int(place.half)
        box = slice(y - half, y + half + 1), slice(x - half, x + half + 1)
        direct[box] += 10 ** (0.4 * (22 - place.abmag))
        label[box] = place.label
    direct += rng.normal(0, 0.01, direct.shape).astype(np.float32)
    imaging = imaging_wcs(POINTING, distortion(SIZE), (SIZE, SIZE))
    basic = {"TELESCOP": "JWST", "INSTRUME": "NIRISS", "DETECTOR": "NIS", "PUPIL": "F200W", "BUNIT": "MJy/sr"}
    header = Header({**basic, "EXP_TYPE": "NIS_IMAGE", "FILTER": "CLEAR"})
    write_image(Image(header, direct, np.full_like(direct, 0.01), None, wcs=imaging), folder / "field_i2d.fits")
    write_segmentation(Segmentation(header, label, imaging), folder / "field_segm.fits")
    var = np.full((SIZE, SIZE), 2e-4, np.float32)
    options = Options()
    for number, grism in GRISMS.items() if count == SOURCES else [(1, GRISMS[1])]:
        wcs = wcs_of(grism, SIZE, turn=0.02)
        catalog = Catalog(catalog_of(places, wcs))
        write_catalog(catalog, folder / "field_cat.ecsv")
        noise = rng.normal(0, 0.02, (SIZE, SIZE)).astype(np.float32)
        dq = (rng.random(noise.shape) < 0.003).astype(np.uint32)
        noise[dq > 0] = np.nan
        name = f"jw01234001001_02101_0000{number}_nis"
        header = Header(
            {
                **basic, "EXP_TYPE": "NIS_WFSS", "FILTER": grism, "SUBARRAY": "FULL", "SUBSTRT1": 1, "SUBSTRT2": 1,
                "SUBSIZE1": SIZE, "SUBSIZE2": SIZE, "FASTAXIS": -2, "SLOWAXIS": -1, "EFFEXPTM": 100.0, "EFFINTTM": 50.0,
                "NINTS": 1, "NGROUPS": 5, "PROGRAM": "01234", "OBSERVTN": "001", "VISIT": "001", "VISITGRP": "02",
                "SEQ_ID": "1", "ACT_ID": "01", "EXPOSURE": str(number), "EXPMID": 60000.0, "DATE-OBS": "2023-07-14",
                "TIME-OBS": "12:00:00", "TARG_RA": 53.16, "TARG_DEC": -27.79, "BUNIT": "DN/s", "S_WCS": "COMPLETE",
                "SCATFILE": "field_cat.ecsv", "SEGMFILE": "field_segm.fits", "DIRIMAGE": "field_i2d.fits",
                "SPECSYS": "BARYCENT", "DISPAXIS": 2 if grism == "GR150R" else 1, "FILENAME": f"{name}_rate.fits",
                "S_REGION": "POLYGON ICRS  53.16 -27.79 53.17 -27.79 53.17 -27.78 53.16 -27.78",
            }
        )  # fmt: skip
        image = Image(header, noise, np.sqrt(2 * var), dq, var, var, 0 * var, wcs=wcs)
        write_image(image, folder / f"{name}_rate.fits")
        if count != SOURCES:
            continue
        for where, chosen in (("few", list(range(1, kept + 1))), ("all", None)):
            slits = extract_2d.fn(image, references, Extract2dOptions(source_ids=chosen), catalog)
            slits = photom.fn(srctype.fn(slits, references, options), references, options)
            (folder / where).mkdir(exist_ok=True)
            write_slits(slits, folder / where / f"{name}_cal.fits")
    members = [
        {"expname": f"few/jw01234001001_02101_0000{number}_nis_cal.fits", "exptype": "science"} for number in GRISMS
    ]
    association = {
        "asn_type": "spec3", "asn_rule": "x", "asn_id": "o001", "asn_pool": "none", "program": "01234",
        "products": [{"name": "jw01234-o001_t001_niriss_gr150-f200w", "members": members}],
    }  # fmt: skip
    (folder / "spec3_asn.json").write_text(json.dumps(association))


def stage2(folder: Path, contaminated: bool) -> None:
    from infra.products.catalog import read_catalog
    from infra.products.image import read_image, read_segmentation
    from infra.products.slits import write_slits
    from infra.products.spectrum import write_spectra
    from infra.references.content import References
    from tasks.extract_1d import extract_1d
    from tasks.extract_2d import extract_2d
    from tasks.photom import photom
    from tasks.srctype import srctype
    from tasks.step import Options
    from tasks.wfss_contam import WfssContamOptions, wfss_contam

    options = Options()
    files = {"wavelengthrange": str(folder / "wavelengthrange.asdf"), "photom": str(folder / "photom.fits")}
    references = References({**files, "area": None, "apcorr": None}, "test")
    name = "jw01234001001_02101_00001_nis"
    image, catalog = read_image(folder / f"{name}_rate.fits"), read_catalog(folder / "field_cat.ecsv")
    slits = srctype.fn(extract_2d.fn(image, references, options, catalog), references, options)
    if contaminated:
        direct, label = read_image(folder / "field_i2d.fits"), read_segmentation(folder / "field_segm.fits")
        slits = wfss_contam.fn(slits, references, WfssContamOptions(), direct, label)
    slits = photom.fn(slits, references, options)
    write_slits(slits, folder / f"{name}_cal.fits")
    write_spectra(extract_1d.fn(slits, references, options), folder / f"{name}_x1d.fits")


def stage3(folder: Path, which: str) -> None:
    from infra.products.slits import read_slits
    from infra.products.spectrum import write_spectra
    from infra.references.content import References
    from tasks.combine_1d import combine_1d
    from tasks.exp_to_source import exp_to_source
    from tasks.extract_1d import extract_1d
    from tasks.pixel_replace import PixelReplaceOptions, pixel_replace
    from tasks.step import Options

    options, references = Options(), References({"apcorr": None}, "test")
    exposures = tuple(read_slits(path) for path in sorted((folder / which).glob("*_cal.fits")))
    sources = pixel_replace.fn(exp_to_source.fn(exposures, references, options), references, PixelReplaceOptions())
    spectra = extract_1d.fn(sources, references, options)
    write_spectra(spectra, folder / "stage3_x1d.fits")
    write_spectra(combine_1d.fn(spectra, references, options), folder / "stage3_c1d.fits")


WORK: dict[str, Callable[[Path], None]] = {
    "plain": lambda folder: stage2(folder, contaminated=False),
    "contaminated": lambda folder: stage2(folder, contaminated=True),
    "spec3": lambda folder: stage3(folder, "few"),
    "spec3 of all": lambda folder: stage3(folder, "all"),
}


@dataclass(frozen=True)
class Run:
    """A process that ended: CPU and wall without imports [s], peak memory [GiB]."""

    cpu: float
    wall: float
    memory: float


def run(command: list[str], folder: Path) -> Run:
    """Run a process that prints its CPU and wall time last."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {"CRDS_PATH": str(folder / "crds"), "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu"}
    with (folder / "out.txt").open("w") as out, (folder / "errors.txt").open("w") as errors:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(
            f"{command[:2]} ended with {process.returncode}:\n{(folder / 'errors.txt').read_text()[-3000:]}"
        )
    cpu, wall = json.loads((folder / "out.txt").read_text().splitlines()[-1])
    return Run(cpu, wall, usage.ru_maxrss * 1024 / GIB)


def work(name: str, folder: Path) -> None:
    """One kind of work, twice; the second is counted."""
    logging.disable(logging.WARNING)
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        WORK[name](folder)
        after = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    cpu = sum(getattr(after[0], field) - getattr(before[0], field) for field in ("ru_utime", "ru_stime"))
    print(json.dumps([cpu, after[1] - before[1]]))


def measure(folder: Path, kept: int) -> tuple[list[str], bool]:
    """The lines of the report, and whether all bars are met."""
    peer = os.environ.get("CALWEAVE_PEER_PYTHON", "")
    rows, all_met = [], True
    for count in (SOURCES, MANY):
        home = folder / str(count)
        if not (home / "spec3_asn.json").exists():
            home.mkdir(parents=True, exist_ok=True)
            subprocess.run([sys.executable, __file__, "--make", str(home), str(count), str(kept)], check=True)

    def row(what: str, ours: Run, theirs: Run | None, bar: str, met: bool | None) -> None:
        nonlocal all_met
        all_met &= met is not False
        verdict = "" if met is None else "met" if met else "**missed**"
        other = ("", "", "", "") if theirs is None else (
            f"{theirs.cpu:.1f}", f"1 / {theirs.cpu / ours.cpu:.0f}", f"{theirs.wall:.1f}", f"{theirs.memory:.2f}")  # fmt: skip
        rows.append(
            f"| {what} | {ours.cpu:.2f} | {other[0]} | {other[1]} | {ours.wall:.2f} | {other[2]} | {ours.memory:.2f} | "
            f"{other[3]} | {bar} | {verdict} |"
        )
        print(rows[-1], flush=True)

    home = folder / str(SOURCES)
    for name, what, bar in (
        ("plain", f"spec2 from extract_2d, {SOURCES} sources", 20),
        ("contaminated", "the same with wfss_contam", 20),
        ("spec3", f"spec3 of four exposures, {kept} of the sources", 100),
    ):
        ours = run([sys.executable, __file__, "--work", name, str(home)], home)
        theirs = run([peer, "-c", PEER, name], home) if peer else None
        met = None if theirs is None else ours.cpu * bar <= theirs.cpu
        row(what, ours, theirs, f"1 / {bar}", met)
    whole = run([sys.executable, __file__, "--work", "spec3 of all", str(home)], home)
    row(f"spec3 of four exposures, all {SOURCES}", whole, None, "", None)
    many = run([sys.executable, __file__, "--work", "contaminated", str(folder / str(MANY))], folder / str(MANY))
    row(f"spec2 with wfss_contam, {MANY} sources", many, None, "120 s, 2 GiB", many.wall < 120 and many.memory < 2)
    lines = [
        f"{measured_on(peer)} CPU is user and system time with files in and out, without the imports; ours warm in a worker. "
        "The official spec3 takes one source after the other, so that its time grows with their number. "
        "`python tests/benchmarks/bench_wfss.py` repeats it.",
        "",
        "| | CPU [s] | `jwst` [s] | ratio | wall [s] | `jwst` [s] | memory [GiB] | `jwst` [GiB] | bar | |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *rows,
    ]
    return lines, all_met


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-sources", type=int, default=20, help="sources of stage 3 side by side")
    parser.add_argument("--folder", type=Path, help="where the exposures are, or are to be kept")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.make:
        make(Path(asked.make[0]), int(asked.make[1]), int(asked.make[2]))
        return 0
    if asked.work:
        work(asked.work[0], Path(asked.work[1]))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        lines, met = measure((asked.folder or Path(scratch)).resolve(), asked.peer_sources)
    text = "\n".join(lines)
    print(text)
    report = REPOSITORY / "benchmarks" / "wfss.md"
    report.parent.mkdir(exist_ok=True)
    report.write_text("# Slitless spectra beside the official package\n\n" + text + "\n")
    if asked.readme:
        put_into_readme("wfss", text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
