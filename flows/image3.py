"""calwebb_image3: calibrated images of one field to a mosaic, the catalog of its sources and their map."""

from flows.stage import Overrides, candidate_name, member_urls, open_association, prepare, runs, save, stage_flow
from infra.monitoring import working_on
from infra.products.image import read_image
from infra.products.names import rename
from tasks.assign_mtwcs import assign_mtwcs, is_moving_target
from tasks.outlier_detection import outlier_detection
from tasks.products import load, load_later
from tasks.resample import resample
from tasks.skymatch import skymatch
from tasks.source_catalog import source_catalog
from tasks.tweakreg import tweakreg

#: The stars are aligned, or the moving target, for which they are trails.
ALL_STEPS = (assign_mtwcs, tweakreg, skymatch, outlier_detection, resample, source_catalog)

#: So many images are in memory together; of more each is read where it is needed.
KEPT = 4


@stage_flow("image3")
def image3(association: str, output: str, overrides: Overrides | None = None) -> list[str]:
    """Make the mosaic of a level 3 association; returns the ``_crf``, ``_i2d``, ``_cat.ecsv`` and ``_segm`` written."""
    asn = open_association(association)
    made = []
    for product in asn.products:
        with working_on(product.name):
            urls = member_urls(association, product, "science", output)
            images = tuple(load(url, read_image) if len(urls) <= KEPT else load_later(url) for url in urls)
            references, options = prepare(images[0].header, ALL_STEPS, overrides, "image3")
            aligned = assign_mtwcs if is_moving_target(images[0].header) else tweakreg
            for step in (aligned, skymatch, outlier_detection):
                images = step(images, references, options)
            for image, url in zip(images, urls, strict=True):
                name = candidate_name(rename(url, "crf"), asn)
                made.append(save(image, output, name, references, asn))
            if not runs("resample", options):
                continue
            mosaic = resample(images, references, options)
            made.append(save(mosaic, output, f"{product.name}_i2d.fits", references, asn))
            if not runs("source_catalog", options):
                continue
            catalog, segmentation = source_catalog(mosaic, references, options)
            catalog_name = f"{product.name}_cat.ecsv"
            segmentation = segmentation.with_(header=segmentation.header.set(SCATFILE=catalog_name))
            made.append(save(segmentation, output, f"{product.name}_segm.fits", references, asn))
            made.append(save(catalog, output, catalog_name, references, asn))
    return made
