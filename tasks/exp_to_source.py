"""exp_to_source: the slits of several exposures, sorted by source."""

import logging

from infra.products.header import Header
from infra.products.slits import Slit, SlitSet
from infra.references.content import References
from tasks.step import step

log = logging.getLogger(__name__)


@step("exp_to_source")
def exp_to_source(exposures: tuple[SlitSet, ...], references: References, options: object) -> tuple[SlitSet, ...]:
    """One set of slits per source, out of one per exposure; each slit keeps the keywords of its exposure."""
    by_source: dict[int, list[Slit]] = {}
    for exposure in exposures:
        for slit in exposure.slits:
            header = Header({**exposure.header.cards, **slit.header.cards}, exposure.header.unknown)
            by_source.setdefault(slit.source_id, []).append(slit.with_(header=header))
    if not by_source:
        names = ", ".join(str(exposure.header.get("FILENAME")) for exposure in exposures) or "no exposure"
        raise ValueError(
            f"there is no spectrum in {names}; give _cal products of grism exposures with extracted sources"
        )
    header = exposures[0].header.set(FILENAME=None)
    recipe = {"exposures": {str(one.header.get("FILENAME")): dict(one.recipe) for one in exposures}}
    log.info(
        "exp_to_source: %d spectra of %d sources from %d exposures",
        sum(map(len, by_source.values())),
        len(by_source),
        len(exposures),
    )
    return tuple(SlitSet(header, tuple(by_source[number]), recipe) for number in sorted(by_source))
