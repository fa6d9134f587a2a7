"""CPU of the slitless steps on a full frame with 110 sources, step by step: ``python tests/benchmarks/bench_wfss.py``.

Stage 3 takes four such exposures in two grisms. The official package (3.0.0) takes some 60 s for stage 2 of one exposure,
and some 1000 s for stage 3.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from wfss_scene import Place, catalog_of, wcs_of, write_references  # noqa: E402

from infra.products.catalog import Catalog  # noqa: E402
from infra.products.header import Header  # noqa: E402
from infra.products.image import Image  # noqa: E402
from infra.products.slits import read_slits, write_slits  # noqa: E402
from infra.products.spectrum import write_spectra  # noqa: E402
from tasks.combine_1d import combine_1d  # noqa: E402
from tasks.exp_to_source import exp_to_source  # noqa: E402
from tasks.extract_1d import extract_1d  # noqa: E402
from tasks.extract_2d import extract_2d  # noqa: E402
from tasks.photom import photom  # noqa: E402
from tasks.pixel_replace import PixelReplaceOptions, pixel_replace  # noqa: E402
from tasks.srctype import srctype  # noqa: E402
from tasks.step import Options  # noqa: E402

SIZE, SOURCES = 2048, 110
EXPOSURES = (("GR150R", 1), ("GR150R", 2), ("GR150C", 3), ("GR150C", 4))


def make_exposure(grism: str, number: int) -> tuple[Image, Catalog]:
    """Noise, and a catalog of random places: the steps do not care what is in the pixels."""
    wcs = wcs_of(grism, SIZE)
    noise = np.random.default_rng(number).normal(0, 0.02, (SIZE, SIZE)).astype(np.float32)
    var = np.full((SIZE, SIZE), 2e-4, np.float32)
    header = Header(
        {
            "INSTRUME": "NIRISS", "EXP_TYPE": "NIS_WFSS", "FILTER": grism, "PUPIL": "F200W", "BUNIT": "DN/s",
            "EFFEXPTM": 100.0, "EXPMID": 60000.0, "EXPOSURE": str(number), "FILENAME": f"jw_{number}_rate.fits",
        }
    )  # fmt: skip
    rng = np.random.default_rng(0)
    places = [
        Place(k + 1, *rng.uniform(0, SIZE, 2), rng.uniform(2, 9), rng.uniform(18, 27), bool(k % 2))
        for k in range(SOURCES)
    ]
    image = Image(header, noise, np.sqrt(2 * var), np.zeros((SIZE, SIZE), np.uint32), var, var, 0 * var, wcs=wcs)
    return image, Catalog(catalog_of(places, wcs))


def main() -> None:
    """Print CPU seconds of each step."""
    options = Options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        references = write_references(folder)
        last = time.process_time()

        def lap(label: str) -> None:
            nonlocal last
            now = time.process_time()
            print(f"{label:30s} {now - last:7.3f} s")
            last = time.process_time()

        for grism, number in EXPOSURES:
            image, catalog = make_exposure(grism, number)
            lap("(making the exposure)")
            slits = extract_2d.fn(image, references, options, catalog)
            lap(f"extract_2d, {len(slits.slits)} slits")
            slits = photom.fn(srctype.fn(slits, references, options), references, options)
            lap("srctype, photom")
            write_slits(slits, folder / f"jw_{number}_cal.fits")
            lap("write _cal")
            write_spectra(extract_1d.fn(slits, references, options), folder / f"jw_{number}_x1d.fits")
            lap("extract_1d, write _x1d")
        print("stage 3")
        exposures = tuple(read_slits(folder / f"jw_{number}_cal.fits") for _, number in EXPOSURES)
        lap("read _cal")
        sources = pixel_replace.fn(exp_to_source.fn(exposures, references, options), references, PixelReplaceOptions())
        lap("exp_to_source, pixel_replace")
        spectra = extract_1d.fn(sources, references, options)
        lap("extract_1d")
        write_spectra(combine_1d.fn(spectra, references, options), folder / "jw_c1d.fits")
        lap("combine_1d, write _c1d")


if __name__ == "__main__":
    main()
