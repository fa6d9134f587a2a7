"""calwebb_image3: calibrated images of one field to a mosaic, the catalog of its sources and their map."""

import logging
from collections.abc import Sequence

from flows.stage import Overrides, candidate_name, member_urls, open_association, prepare, runs, save, stage_flow
from infra.monitoring import working_on
from infra.products.header import ProductError
from infra.products.image import Image, read_image
from infra.products.names import rename
from tasks.assign_mtwcs import assign_mtwcs, is_moving_target
from tasks.outlier_detection import outlier_detection
from tasks.products import load, load_later
from tasks.resample import output_grid, resample
from tasks.skymatch import skymatch
from tasks.source_catalog import source_catalog
from tasks.step import Options
from tasks.tweakreg import tweakreg

log = logging.getLogger(__name__)

#: The stars are aligned, or the moving target, for which they are trails.
ALL_STEPS = (assign_mtwcs, tweakreg, skymatch, outlier_detection, resample, source_catalog)

#: So many images are in memory together; of more each is read where it is needed.
KEPT = 4
#: What a pixel of the mosaic takes (its planes, and what catalogs need), and one of an exposure (its planes, its place) [byte].
OF_MOSAIC, OF_EXPOSURE = 80, 90


@stage_flow("image3")
def image3(association: str, output: str, overrides: Overrides | None = None, memory: float | None = None) -> list[str]:
    """Make the mosaic of a level 3 association; returns the ``_crf``, ``_i2d``, ``_cat.ecsv`` and ``_segm`` written.

    It takes no more than ``memory`` [byte] beside the program itself (None: what the mosaic needs); however many exposures
    there are, four at most are in memory.
    """
    asn = open_association(association)
    made = []
    for product in asn.products:
        with working_on(product.name):
            urls = member_urls(association, product, "science", output)
            images = tuple(load(url, read_image) if len(urls) <= KEPT else load_later(url) for url in urls)
            references, options = prepare(images[0].header, ALL_STEPS, overrides, "image3")
            align = assign_mtwcs if is_moving_target(images[0].header) else tweakreg
            images = align(images, references, options)
            used = [k for k, image in enumerate(images) if not is_left_out(image)]
            for k in set(range(len(images))) - set(used):
                log.warning("image3: %s is left out of the mosaic; its _crf is what it was", urls[k].rsplit("/", 1)[-1])
            mosaicked = tuple(images[k] for k in used)
            check_memory(mosaicked, options, memory, product.name)
            for step in (skymatch, outlier_detection):
                mosaicked = step(mosaicked, references, options)
            done = dict(enumerate(images)) | dict(zip(used, mosaicked, strict=True))
            for k, url in enumerate(urls):
                made.append(save(done[k], output, candidate_name(rename(url, "crf"), asn), references, asn))
            if not runs("resample", options):
                continue
            mosaic = resample(mosaicked, references, options)
            del images, mosaicked, done
            made.append(save(mosaic, output, f"{product.name}_i2d.fits", references, asn))
            if not runs("source_catalog", options):
                continue
            # What the catalog is made of; the other planes are in the file.
            mosaic = mosaic.with_(con=None, var_poisson=None, var_rnoise=None, var_flat=None)
            catalog, segmentation = source_catalog(mosaic, references, options)
            catalog_name = f"{product.name}_cat.ecsv"
            segmentation = segmentation.with_(header=segmentation.header.set(SCATFILE=catalog_name))
            made.append(save(segmentation, output, f"{product.name}_segm.fits", references, asn))
            made.append(save(catalog, output, catalog_name, references, asn))
    return made


def is_left_out(image: Image) -> bool:
    """Whether the alignment found that the stars of an image are elsewhere than those of the others."""
    return bool(image.recipe.get("alignment", {}).get("left_out"))


def check_memory(images: Sequence[Image], options: Options, memory: float | None, name: str) -> None:
    """Say so before the work where a mosaic is larger than the memory that it may take.

    Raises
    ------
    ProductError
    """
    if memory is None or not runs("resample", options):
        return
    nx, ny = output_grid(images, options.of("resample").values).wcs.pixel_shape
    largest = max(image.data.shape[0] * image.data.shape[1] for image in images)
    needed = OF_MOSAIC * nx * ny + OF_EXPOSURE * largest * min(len(images), KEPT)
    if needed > memory:
        raise ProductError(
            f"{name}: a mosaic of {nx} x {ny} pixels needs {needed / 1e9:.2f} GB beside the program; give at least "
            f"--memory {(needed + 0.3e9) / 1e9 + 0.01:.2f}GB, run fewer products at a time, or make it coarser or smaller "
            "(resample.pixel_scale, resample.output_shape)"
        )
