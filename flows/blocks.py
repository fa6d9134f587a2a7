"""Exposures of any size in the memory that they are given: their integrations go through the steps in blocks.

Most steps of stage 1 treat each integration by itself: all of them take one block, then the next, and what comes out is
kept in scratch files. Those in ``WHOLE`` look at all integrations of a pixel, or of the exposure; they get the exposure as
it is on disk, and read it by rows or by integrations. The products do not depend on the blocks, and neither do the record
and the log: one entry and one line for each step.

An exposure that fits in memory is one block, and nothing of this happens.
"""

import logging
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from flows.stage import runs
from infra.machine import give_memory_back
from infra.monitoring import one_line_each
from infra.products.header import ProductError
from infra.products.image import Image
from infra.products.ramp import Ramp, RampFile, raw_area
from infra.products.stored import Stored, store
from infra.references.content import References
from tasks.step import Options

log = logging.getLogger(__name__)

#: Steps that need all integrations together.
WHOLE = frozenset({"emicorr", "rscd", "jump", "picture_frame", "clean_flicker_noise", "persistence", "ramp_fit"})
#: Those that do with IRS2 readout: a reference pixel that is bad in one integration is used in none.
WHOLE_OF_IRS2 = WHOLE | {"refpix"}

#: What a step holds of each sample of a block [byte]: signal (float32) and flags, before and after, and of flags a copy.
SAMPLE = 12
#: Of each ramp while slopes are fitted: five planes of its integration.
RAMP = 24
#: Of each pixel: reference arrays, pixel flags, the planes of a rate and what is being written of it.
PIXEL = 64
#: The program itself, with all that it has loaded once an exposure is through [byte].
PROGRAM = 0.3e9
#: Arrays of one integration that are on disk, by integration.
_BY_INTEGRATION = ("data", "groupdq", "zeroframe", "refout")
_PLANES = ("data", "err", "dq", "var_poisson", "var_rnoise")


def calibrate(
    file: RampFile, steps: Sequence[Any], references: References, options: Options, memory: float | None
) -> Ramp:
    """The ramps of an exposure after ``steps``.

    Parameters
    ----------
    memory : float or None
        What this exposure may take [byte]; None for no limit.

    Raises
    ------
    ProductError
        If one integration alone needs more.
    """
    give_memory_back()
    nints = file.shape[0]
    block = integrations_at_once(file.shape, memory, file.name)
    if block >= nints:
        ramp = file.read()
        for step in steps:
            ramp = step(ramp, references, options)
        return ramp
    log.info("in blocks of %d of %d integrations, for less than %.2g GB", block, nints, (memory or 0) / 1e9)
    height = _rows_at_once(file.shape, memory)
    source: RampFile | Ramp = file
    together = WHOLE if raw_area(file.header) == file.header.subarray else WHOLE_OF_IRS2
    for is_whole, some in groupby(steps, lambda step: step.name in together and runs(step.name, options)):
        if not is_whole or isinstance(source, RampFile):
            source = _stream(source, nints, [] if is_whole else list(some), references, options, block, height)
        for step in some if is_whole else ():
            source = step(source, references, options)
    assert isinstance(source, Ramp)
    return source


def integrations_at_once(shape: tuple[int, ...], memory: float | None, name: str) -> int:
    """How many integrations of an exposure (nints, ngroups, ny, nx) fit in ``memory`` [byte], all of them at most.

    Raises
    ------
    ProductError
        If not one does.
    """
    nints, ngroups, ny, nx = shape
    if memory is None:
        return nints
    fixed, of_one = PIXEL * ny * nx, ngroups * ny * nx * SAMPLE
    if fixed + nints * ny * nx * max(ngroups * SAMPLE, ngroups * 6 + RAMP) <= memory:
        return nints
    if fixed + of_one > memory:
        raise ProductError(
            f"{name}: one integration of {ngroups} groups of {ny} x {nx} pixels needs {(fixed + of_one) / 1e9:.2f} GB beside "
            f"the program; give at least --memory {(fixed + of_one + PROGRAM) / 1e9 + 0.01:.2f}GB, or run fewer at a time"
        )
    return int((memory - fixed) // of_one)


def _rows_at_once(shape: tuple[int, ...], memory: float | None) -> int:
    nints, ngroups, ny, nx = shape
    of_row = nints * nx * (ngroups * 6 + RAMP)
    # What blocks left behind in the heap, and a strip before and after, take the rest.
    return ny if memory is None else max(1, min(ny, int(0.25 * (memory - PIXEL * ny * nx) // of_row)))


def _stream(
    source: RampFile | Ramp, nints: int, steps: list, references: References, options: Options, block: int, height: int
) -> Ramp:
    """All integrations through some steps, block by block; the result is on disk."""
    whole: Ramp | None = None
    start = source.header.get("INTSTART")
    with one_line_each():
        for first in range(0, nints, block):
            last = min(first + block, nints)
            ramp = source.read(first, last) if isinstance(source, RampFile) else _cut(source, first, last)
            # Some references tell the first integrations of an exposure from the others.
            ramp = ramp.with_(header=ramp.header.set(INTSTART=(start or 1) + first))
            for step in steps:
                ramp = step(ramp, references, options)
            ramp = ramp.with_(header=ramp.header.set(INTSTART=start))
            if whole is None:
                whole = ramp.with_(**{name: _room_for(getattr(ramp, name), nints, height) for name in _BY_INTEGRATION})
            elif (ramp.header, ramp.recipe) != (whole.header, whole.recipe):
                raise RuntimeError(
                    f"integrations {first + 1} to {last} left another record than those before them; a step whose record "
                    "depends on the data must be named in flows.blocks.WHOLE"
                )
            else:
                whole = whole.with_(pixeldq=whole.pixeldq | ramp.pixeldq)
            for name in _BY_INTEGRATION:
                if (stored := getattr(whole, name)) is not None:
                    stored[first:last] = getattr(ramp, name)
            log.debug("integrations %d to %d of %d", first + 1, last, nints)
    assert whole is not None
    return whole


def _room_for(array: np.ndarray | None, nints: int, height: int) -> Stored | None:
    return None if array is None else store((nints, *array.shape[1:]), array.dtype, height)


def _cut(ramp: Ramp, first: int, last: int) -> Ramp:
    arrays = {name: getattr(ramp, name) for name in _BY_INTEGRATION}
    return ramp.with_(**{name: None if array is None else array[first:last] for name, array in arrays.items()})


def rescale(step: Any, rate: Image, references: References, options: Options) -> Image:
    """One step on the rates of an exposure: integration by integration where they are on disk."""
    if not isinstance(rate.data, Stored):
        return step(rate, references, options)
    done: Image | None = None
    planes = {name: getattr(rate, name) for name in _PLANES}
    with one_line_each():
        for i in range(rate.data.shape[0]):
            one = rate.with_(**{name: plane[i : i + 1] for name, plane in planes.items()})
            done = step(one, references, options)
            if done.recipe[step.name]["status"] == "SKIPPED":
                break
            for name, plane in planes.items():
                plane[i : i + 1] = getattr(done, name)
    assert done is not None
    return done.with_(**planes)
