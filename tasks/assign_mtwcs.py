"""assign_mtwcs: exposures of a moving target, to be stacked on the target."""

import logging

from calibration.wcs.imaging import footprint, region
from calibration.wcs.moving_target import mean_place, moving_target_wcs
from infra.products.header import Header
from infra.products.image import Image
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


def is_moving_target(header: Header) -> bool:
    """Whether the telescope followed something that moves on the sky, as TARGTYPE tells."""
    return str(header.get("TARGTYPE", "")).upper() == "MOVING"


@step("assign_mtwcs")
def assign_mtwcs(images: tuple[Image, ...], references: References, options: object) -> tuple[Image, ...]:
    """Shift the sky of each exposure so that a moving target stands still."""
    if not is_moving_target(images[0].header):
        raise StepSkipped(f"the target is not moving: TARGTYPE is {images[0].header.get('TARGTYPE', 'not known')}")
    places = []
    for k, image in enumerate(images):
        name = image.header.get("FILENAME", f"image {k + 1}")
        missing = [key for key in ("MT_RA", "MT_DEC") if key not in image.header]
        if missing:
            log.warning("assign_mtwcs: the exposures will not be aligned on the target, %s has no MT_RA, MT_DEC", name)
            raise StepSkipped(f"{name} does not tell where its target was: missing {', '.join(missing)}")
        if image.wcs is None:
            raise ValueError(f"{name} has no WCS; run assign_wcs first")
        places.append((float(image.header["MT_RA"]), float(image.header["MT_DEC"])))
    mean = mean_place(*zip(*places, strict=True))
    log.info("assign_mtwcs: the target stands at %.6f %+.6f deg, the mean of %d exposures", *mean, len(images))
    return tuple(_shifted(image, place, mean) for image, place in zip(images, places, strict=True))


def _shifted(image: Image, place: tuple[float, float], mean: tuple[float, float]) -> Image:
    wcs = moving_target_wcs(image.wcs, place, mean)
    cards = {"MT_AVRA": mean[0], "MT_AVDEC": mean[1], "S_REGION": region(footprint(wcs, image.data.shape))}
    return image.with_(wcs=wcs, header=image.header.set(cards))
