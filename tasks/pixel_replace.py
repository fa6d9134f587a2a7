"""pixel_replace: estimates for missing pixels of the cutouts."""

import logging
from typing import Literal

from pydantic import BaseModel, Field

from calibration.spectra.photom import Cutout
from calibration.spectra.pixel_replace import fit_profiles, replace_pixels
from infra.products.slits import SlitSet
from infra.references.content import References
from tasks.step import step

log = logging.getLogger(__name__)


class PixelReplaceOptions(BaseModel, frozen=True, extra="forbid"):
    """How missing pixels are estimated."""

    algorithm: Literal["mingrad", "fit_profile"] = Field(
        "mingrad",
        description="from the pair of neighbours that differ least, or from the profile of the columns beside",
    )
    n_adjacent_cols: int = Field(3, ge=1, description="fit_profile: columns at either side that make the profile")


@step("pixel_replace", options=PixelReplaceOptions, default=False)
def pixel_replace(
    sources: tuple[SlitSet, ...], references: References, options: PixelReplaceOptions
) -> tuple[SlitSet, ...]:
    """Fill in pixels that have no value, from their neighbours."""
    total = 0
    done = []
    for source in sources:
        slits = []
        for slit in source.slits:
            cutout = Cutout(slit.data, slit.err, slit.dq, slit.var_poisson, slit.var_rnoise, slit.var_flat)
            if options.algorithm == "fit_profile":
                cutout, count = fit_profiles(cutout, slit.axis, options.n_adjacent_cols)
            else:
                cutout, count = replace_pixels(cutout)
            total += count
            slits.append(slit.with_(**vars(cutout)))
        done.append(source.with_(slits=tuple(slits)))
    log.info("pixel_replace: estimated %d pixels in %d sources", total, len(sources))
    return tuple(done)
