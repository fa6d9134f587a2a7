"""Which images are of one exposure: detectors that observed together share their pointing and their sky."""

from collections.abc import Sequence

from infra.products.image import Image

_KEYS = ("PROGRAM", "OBSERVTN", "VISIT", "VISITGRP", "SEQ_ID", "ACT_ID", "EXPOSURE")


def group_exposures(images: Sequence[Image]) -> list[list[int]]:
    """Indices of the images of each exposure, in order; an image that does not tell its exposure is a group of its own."""
    groups: dict[tuple, list[int]] = {}
    for index, image in enumerate(images):
        key = tuple(image.header.get(name) for name in _KEYS)
        groups.setdefault((index,) if None in key else key, []).append(index)
    return list(groups.values())
