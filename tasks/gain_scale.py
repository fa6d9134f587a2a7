"""Bring count rates of a non-standard gain setting to the standard DN."""

import logging

from calibration.ramps.gain_scale import rescale_rates
from infra.products.image import Image
from infra.references.content import References
from tasks.step import NoOptions, StepSkipped, step

log = logging.getLogger(__name__)


@step("gain_scale", references=("gain",))
def gain_scale(rate: Image, references: References, options: NoOptions) -> Image:
    """Bring count rates of a non-standard gain setting to the standard DN."""
    about = references.header("gain")
    # The reference knows better than the exposure, as in the official pipeline.
    factor = about.get("GAINFACT") if about is not None else None
    if factor is None:
        factor = rate.header.get("GAINFACT")
    if factor is None:
        raise StepSkipped("the GAIN reference file has no GAINFACT")
    data, err, var_poisson, var_rnoise = rescale_rates(
        rate.data, rate.err, rate.var_poisson, rate.var_rnoise, float(factor)
    )
    log.info("gain_scale: rates times %g", factor)
    return rate.with_(
        header=rate.header.set(GAINFACT=float(factor)),
        data=data,
        err=err,
        var_poisson=var_poisson,
        var_rnoise=var_rnoise,
    )
