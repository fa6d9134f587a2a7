"""The world coordinates of an exposure of a moving target: the sky shifted so that the target stands still.

Each exposure knows where the target was in its middle. All are shifted to the mean of these places, by differences of right
ascension and declination, as the archive's files have it: a comet moves by arcminutes during an association, and the field
about it is small.
"""

import copy
from collections.abc import Sequence

import numpy as np
from astropy.modeling.models import Shift
from gwcs import WCS

FRAME = "moving_target"


def mean_place(ra: Sequence[float], dec: Sequence[float]) -> tuple[float, float]:
    """The mean right ascension (0..360) and declination [deg] of places near each other, also across the zero of the first."""
    first = float(ra[0])
    return float((first + np.mean([_turn(value - first) for value in ra])) % 360), float(np.mean(dec))


def moving_target_wcs(wcs: WCS, place: tuple[float, float], mean: tuple[float, float]) -> WCS:
    """The WCS with one more frame, ``moving_target``, in which what is at ``place`` stands at ``mean``.

    Parameters
    ----------
    wcs : gwcs.WCS
        From pixels to right ascension and declination [deg]; one that has the frame already gets it anew.
    place, mean : (float, float)
        Right ascension and declination [deg] of the target in the exposure, and those it is shifted to.
    """
    steps = [(step.frame, step.transform) for step in wcs.pipeline]
    if steps[-1][0].name == FRAME:
        del steps[-1]
    frame = copy.deepcopy(steps[-1][0])
    if frame.naxes != 2:
        raise ValueError(f"expected the WCS of an image, but its frame {frame.name} has {frame.naxes} axes")
    frame.name = FRAME
    shift = Shift(_turn(mean[0] - place[0])) & Shift(mean[1] - place[1])
    return WCS([*steps[:-1], (steps[-1][0], shift), (frame, None)])


def _turn(angle: float) -> float:
    """The angle in -180..180 degrees; itself where it is that already, without a loss of digits."""
    return angle - 360 * round(angle / 360)
