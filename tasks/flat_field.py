"""flat_field: divide by the response of the pixels."""

import logging

import numpy as np

from calibration.images.flat_field import NO_FLAT_FIELD, divide_flat, divide_flat_of_guider
from infra.products.guider import Guider
from infra.products.image import Image
from infra.references.content import References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


@step("flat_field", references=("flat",))
def flat_field(product: Image | Guider, references: References, options: object) -> Image | Guider:
    """Divide by the response of each pixel; add the uncertainty of the flat to the errors."""
    if references.path("flat") is None:
        raise StepSkipped("no FLAT reference file matches this exposure")
    area = product.header.subarray
    flat = references.array("flat", "SCI", area)
    flat_err = references.array("flat", "ERR", area)
    flat_dq = references.dq("flat", area)

    if isinstance(product, Guider):
        err = np.zeros_like(product.data) if product.err is None else product.err
        data, err, dq = divide_flat_of_guider(product.data, err, product.dq, flat, flat_err, flat_dq)
        return product.with_(data=data, err=err, dq=dq)

    if product.var_poisson is None or product.var_rnoise is None:
        raise ValueError(
            f"{product.header.get('FILENAME', 'the image')} has no variances VAR_POISSON and VAR_RNOISE, of which "
            "its errors are made; give a product of stage 1"
        )
    done = divide_flat(product.data, product.dq, product.var_poisson, product.var_rnoise, flat, flat_err, flat_dq)
    log.info(
        "flat_field: the median response is %.3f; %d pixels have none",
        # Of one pixel in 49: all of them take as long as the division.
        np.nanmedian(flat[::7, ::7]),
        np.count_nonzero(done.dq.reshape(-1, *flat.shape)[0] & NO_FLAT_FIELD),
    )
    return product.with_(
        data=done.data,
        err=done.err,
        dq=done.dq,
        var_poisson=done.var_poisson,
        var_rnoise=done.var_rnoise,
        var_flat=done.var_flat,
    )
