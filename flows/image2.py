"""calwebb_image2: slopes of a direct image to calibrated surface brightness, with its place on the sky."""

from flows.stage import (
    Overrides,
    member_urls,
    open_association,
    prepare,
    runs,
    save,
    save_side,
    science_url,
    stage_flow,
)
from infra.monitoring import working_on
from infra.products.image import read_image
from infra.products.names import suffix_of
from tasks.assign_wcs import assign_wcs
from tasks.background import background
from tasks.flat_field import flat_field
from tasks.photom import photom
from tasks.products import load
from tasks.resample import resample

STEPS = (assign_wcs, flat_field, photom)
ALL_STEPS = (*STEPS, resample)

#: Modes whose images get a quick look, ``_i2d``.
MOSAICS = frozenset("FGS_IMAGE MIR_IMAGE NRC_IMAGE NIS_IMAGE".split())


@stage_flow("image2")
def image2(association: str, output: str, overrides: Overrides | None = None) -> list[str]:
    """Calibrate the images of a level 2 association (or of one ``_rate`` file); returns the ``_cal`` and ``_i2d`` written."""
    asn = open_association(association)
    made = []
    for product in asn.products:
        with working_on(product.name):
            science = science_url(association, product, output)
            image = load(science, read_image)
            backgrounds = member_urls(association, product, "background", output)
            steps = (background, *ALL_STEPS) if backgrounds else ALL_STEPS
            references, options = prepare(image.header, steps, overrides, "image2")
            if backgrounds:
                others = tuple(load(url, read_image) for url in backgrounds)
                image = background(image, references, options, others)
                made += save_side(image, science, output, references)
                image = image.with_(side={})
            for step in STEPS:
                image = step(image, references, options)
            integrations = suffix_of(science) == "rateints"
            made.append(
                save(image, output, f"{product.name}_{'calints' if integrations else 'cal'}.fits", references, asn)
            )
            if not integrations and image.header["EXP_TYPE"] in MOSAICS and runs("resample", options):
                mosaic = resample((image,), references, options)
                made.append(save(mosaic, output, f"{product.name}_i2d.fits", references, asn))
    return made
