"""Runs image2 and image3 of the official package on files that our test made; by its interpreter.

Arguments: the folder of the ``_rate`` files, where products go too; a JSON file with the reference files by type.
"""

import json
import sys
from pathlib import Path

from jwst.assign_wcs import AssignWcsStep
from jwst.flatfield import FlatFieldStep
from jwst.outlier_detection import OutlierDetectionStep
from jwst.photom import PhotomStep
from jwst.resample import ResampleStep
from jwst.skymatch import SkyMatchStep
from jwst.source_catalog import SourceCatalogStep
from jwst.tweakreg import TweakRegStep


def main(folder: Path, references: dict) -> None:
    def named(*types: str) -> dict:
        return {f"override_{reftype}": references[reftype] or "N/A" for reftype in types}

    cals = []
    for path in sorted(folder.glob("*_rate.fits")):
        image = AssignWcsStep.call(str(path), **named("distortion"))
        image = FlatFieldStep.call(image, **named("flat"))
        image = PhotomStep.call(image, **named("photom", "area"))
        image.save(str(path).replace("_rate", "_peer_cal"))
        single = ResampleStep.call(image.copy())
        single.save(str(path).replace("_rate", "_peer_single"))
        cals.append(image)
    images = TweakRegStep.call(cals, minobj=10, tolerance=0.2, separation=0.4)
    with images:
        for k, image in enumerate(images):
            image.save(str(folder / f"tweaked_{k}.fits"))
            images.shelve(image, k, modify=False)
    images = SkyMatchStep.call(images)
    images = OutlierDetectionStep.call(images)
    with images:
        for k, image in enumerate(images):
            image.save(str(folder / f"peer_{k}_crf.fits"))
            images.shelve(image, k, modify=False)
    mosaic = ResampleStep.call(images)
    mosaic.save(str(folder / "peer_i2d.fits"))
    SourceCatalogStep.call(
        str(folder / "peer_i2d.fits"), save_results=True, output_dir=str(folder), **named("apcorr", "abvegaoffset")
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
