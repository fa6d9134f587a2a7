"""Runs the steps of image2 of the official package on files that our test made; by its interpreter.

Argument: the folder of two lists. ``cases.json``: the name of a ``_rate`` file, the reference files by type, the background
exposures, and whether all steps are to be run or assign_wcs alone. ``real.json``: real products with a WCS. What is made goes
there, too.
"""

import json
import sys
import warnings
from pathlib import Path

import asdf
import numpy as np
from jwst.assign_mtwcs import AssignMTWcsStep
from jwst.assign_wcs import AssignWcsStep
from jwst.background import BackgroundStep
from jwst.flatfield import FlatFieldStep
from jwst.photom import PhotomStep
from jwst.resample import ResampleStep
from stdatamodels.jwst import datamodels


def main(folder: Path) -> None:
    for case in json.loads((folder / "cases.json").read_text()):
        references = case["references"]

        def named(*types: str, references: dict = references) -> dict:
            return {f"override_{reftype}": references[reftype] or "N/A" for reftype in types}

        image = str(folder / case["rate"])
        base = image.rsplit("_", 1)[0]
        if case["backgrounds"]:
            names = [str(folder / name) for name in case["backgrounds"]]
            image = BackgroundStep.call(
                image, names, save_combined_background=True, output_dir=str(folder), **case["background_options"]
            )
        image = AssignWcsStep.call(image, **named("distortion", "filteroffset"))
        write_geometry(image, base)
        if case["calibrated"]:
            image = FlatFieldStep.call(image, **named("flat"))
            image = PhotomStep.call(image, **named("photom", "area"))
            image.save(f"{base}_peer_cal.fits")
        if case["mosaic"]:
            ResampleStep.call(image).save(f"{base}_peer_i2d.fits")

    for k, path in enumerate(json.loads((folder / "real.json").read_text())):
        write_positions(path, folder / f"real_{k}.npz")
    moving = sorted(folder.glob("fgs_*_peer_cal.fits"))
    images = AssignMTWcsStep.call([str(path) for path in moving])
    with images:
        for k, (image, path) in enumerate(zip(images, moving, strict=True)):
            write_geometry(image, str(path).replace("_peer_cal.fits", "_moved"))
            images.shelve(image, k, modify=False)


def write_positions(path: str, target: Path) -> None:
    """Where a grid of pixels of a real product looks, and where that leads back to."""
    with warnings.catch_warnings(action="ignore"):
        if path.endswith(".asdf"):
            with asdf.open(path, lazy_load=False, memmap=False) as file:
                wcs = file.tree["wcs"]
        else:
            with datamodels.open(path) as model:
                wcs = model.meta.wcs
    (x0, x1), (y0, y1) = wcs.bounding_box.bounding_box(order="F")
    x, y = np.meshgrid(np.linspace(x0, x1, 15), np.linspace(y0, y1, 15))
    world = wcs(x, y, with_bounding_box=False)
    np.savez(target, x=x, y=y, world=world, back=wcs.invert(*world, with_bounding_box=False))


def write_geometry(image, base: str) -> None:
    """Where a grid of pixels looks, where that leads back to, and the keywords."""
    ny, nx = image.data.shape[-2:]
    x, y = np.meshgrid(np.linspace(-0.5, nx - 0.5, 17), np.linspace(-0.5, ny - 0.5, 17))
    ra, dec = image.meta.wcs(x, y, with_bounding_box=False)
    back = image.meta.wcs.invert(ra, dec, with_bounding_box=False)
    np.savez(f"{base}_geometry.npz", x=x, y=y, ra=ra, dec=dec, back=back)
    box = image.meta.wcs.bounding_box.bounding_box(order="F")
    info = dict(image.meta.wcsinfo.instance)
    Path(f"{base}_geometry.json").write_text(json.dumps({"box": box, "wcsinfo": info}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
