"""Runs source_catalog of the official package on a mosaic that our test made; by its interpreter.

Arguments: the folder of ``x_i2d.fits`` and the references, where its products go, and where ``empty_segm.fits`` and
``empty_cat.ecsv`` are, ours, which it must be able to open.
"""

import sys
from pathlib import Path

from astropy.table import QTable
from jwst.source_catalog import SourceCatalogStep
from stdatamodels.jwst import datamodels


def main(folder: Path) -> None:
    references = {
        "override_apcorr": str(folder / "apcorr.fits"),
        "override_abvegaoffset": str(folder / "abvegaoffset.asdf"),
    }
    for name, options in (("x", {}), ("blends", {"npixels": 6, "bkg_boxsize": 60, "snr_threshold": 2.0})):
        mosaic = datamodels.open(folder / "x_i2d.fits")
        mosaic.meta.filename = f"{name}_i2d.fits"
        SourceCatalogStep.call(mosaic, save_results=True, output_dir=str(folder), **references, **options)
    with datamodels.open(folder / "empty_segm.fits") as model:
        model.validate()
        assert not model.data.any()
        assert type(model).__name__ == "SegmentationMapModel"
    assert len(QTable.read(folder / "empty_cat.ecsv", format="ascii.ecsv")) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
