"""Persistence: flag the groups in which charge may come out of traps, or subtract it by a model of the traps.

The first is that of the official pipeline 3.0, and runs where ``persistence_time`` is set; the second that of Build 7.1, where
it is not and the references TRAPDENSITY, TRAPPARS and PERSAT are given. Either goes from exposure to exposure of a detector:
what one writes, the next one reads (``persistence_array_file``, ``input_trapsfilled``).
"""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration import dq
from calibration.ramps.persistence import flag_persistence
from calibration.ramps.traps import Clocking, TrapFamilies, correct_persistence, release
from calibration.subarrays import Subarray
from infra.products.header import ProductError
from infra.products.persistence import (
    SuspectPixels,
    Suspects,
    TrapsFilled,
    read_suspects,
    read_traps_filled,
    suspects_after,
)
from infra.products.ramp import Ramp
from infra.references.content import References
from infra.storage.store import exists, fetched
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

DAY = 86_400.0  # [s]
EPOCH = 40_587.0  # [MJD], 1970-01-01
TRAP_REFERENCES = ("trapdensity", "trappars", "persat")


class PersistenceOptions(BaseModel, frozen=True, extra="forbid"):
    """What fills traps, for how long they empty, and what goes from exposure to exposure."""

    persistence_time: int | None = Field(None, gt=0, description="how long a pixel stays suspect [s]; flags pixels")
    dn_threshold: float | None = Field(None, gt=0, description="signal that fills traps without saturation [DN]")
    persistence_array_file: str | None = Field(
        None, description="suspect pixels after the exposure before; none there: no pixel is suspect"
    )
    save_persistence: bool | str | None = Field(
        None,
        description="write suspect pixels for the exposure after: true, _persistence.asdf; or the name of an ASDF file, "
        "which keeps those of other detectors. With the trap model: true, what was subtracted, _output_pers",
    )
    persistence_dnu: bool = Field(False, description="do not use the groups that are flagged")
    input_trapsfilled: str | None = Field(
        None, description="filled traps after the exposure before, _trapsfilled (trap model); none: no trap is filled"
    )
    flag_pers_cutoff: float | None = Field(
        40.0, description="flag pixels of which so much or more is subtracted [DN] (trap model)"
    )
    save_trapsfilled: bool = Field(True, description="write filled traps for the exposure after (trap model)")


@step("persistence", references=TRAP_REFERENCES, options=PersistenceOptions, default=False)
def persistence(ramp: Ramp, references: References, options: PersistenceOptions) -> Ramp:
    """Flag the groups in which charge may come out of traps, or subtract it by a model of the traps."""
    if options.persistence_time is not None:
        return _flag(ramp, options, options.persistence_time)
    missing = [reftype.upper() for reftype in TRAP_REFERENCES if references.files.get(reftype) is None]
    if missing:
        raise StepSkipped(
            f"persistence_time is not set, and for the trap model there is no reference file {', '.join(missing)}"
        )
    return _subtract(ramp, references, options)


def _flag(ramp: Ramp, options: PersistenceOptions, window: int) -> Ramp:
    header = ramp.header
    detector, group_time = header.require("DETECTOR", "TGROUP")
    area, starts = header.subarray, _starts(ramp)
    before = _suspects(options.persistence_array_file, detector, window)
    groupdq, until = flag_persistence(
        ramp.data,
        ramp.groupdq,
        starts,
        group_time,
        window,
        options.dn_threshold,
        options.persistence_dnu,
        None if before is None else before.cut(area),
    )
    seen = np.zeros(area.shape, np.bool_)
    for i in range(groupdq.shape[0]):
        seen |= (groupdq[i] & dq.GROUP["PERSISTENCE"]).any(axis=0)
    pixels = np.count_nonzero(seen)
    log.info(
        "persistence: %d pixels are suspect for %d s, %d of them still after the exposure",
        pixels,
        window,
        np.count_nonzero(until),
    )
    side = dict(ramp.side)
    if options.save_persistence:
        others = None if before is None else before.outside(area, starts[-1])
        mine = suspects_after(until, area, header.get("FILENAME", ""), window, others)
        if options.save_persistence is True:
            side["persistence"] = SuspectPixels({detector: mine})
        else:
            url = options.save_persistence.removesuffix(".asdf") + ".asdf"
            side[url] = SuspectPixels({**_read_suspects(url).detectors, detector: mine})
    return ramp.with_(groupdq=groupdq, side=side)


def _suspects(url: str | None, detector: str, window: int) -> Suspects | None:
    """Suspect pixels of the exposure before, where it left some."""
    if url is None:
        return None
    suspects = _read_suspects(url).detectors.get(detector)
    if suspects is None:
        log.info("persistence: %s has no suspect pixels of %s", url, detector)
    elif suspects.pers_time != window:
        log.warning(
            "persistence: the suspect pixels of %s are those of a persistence_time of %d s, not %d; they are not used",
            url,
            suspects.pers_time,
            window,
        )
        return None
    return suspects


def _read_suspects(url: str) -> SuspectPixels:
    """Suspect pixels of a file, which the first exposure of a run does not find."""
    if not exists(url):
        return SuspectPixels({})
    with fetched(url) as path:
        return read_suspects(path)


def _subtract(ramp: Ramp, references: References, options: PersistenceOptions) -> Ramp:
    header = ramp.header
    frame_time, group_time, start = header.require("TFRAME", "TGROUP", "EXPSTART")
    area = header.subarray
    table = references.table("trappars", "TRAPPARS")
    density, saturation = references.array("trapdensity", "SCI", area), references.array("persat", "SCI", area)
    assert table is not None, "the caller has seen that there are references"
    assert density is not None, "the caller has seen that there are references"
    assert saturation is not None, "the caller has seen that there are references"
    if references.has("trapdensity", "DQ"):
        density = np.where((references.dq("trapdensity", area) & dq.PIXEL["DO_NOT_USE"]) != 0, np.float32(0), density)
    families = TrapFamilies(
        *(np.array(table[name], np.float64) for name in ("capture0", "capture1", "capture2", "decay_param"))
    )
    around, filled = area, np.zeros((len(families.decay), *area.shape))
    if options.input_trapsfilled is not None:
        around, filled = _widen(_traps_before(options.input_trapsfilled, header["DETECTOR"], start, families), area)
    here = np.s_[
        :,
        area.ystart - around.ystart : area.ystart - around.ystart + area.ysize,
        area.xstart - around.xstart : area.xstart - around.xstart + area.xsize,
    ]
    data, after, largest, subtracted = correct_persistence(
        ramp.data,
        ramp.groupdq,
        filled[here],
        density,
        saturation,
        families,
        Clocking(
            group_time,
            _resets(header.get("NRSTSTRT")) * frame_time,
            _resets(header.get("NRESETS")) * frame_time,
        ),
        wanted=options.save_persistence is True,
    )
    pixeldq = ramp.pixeldq
    flagged = np.zeros(largest.shape, np.bool_)
    if options.flag_pers_cutoff is not None:
        flagged = largest >= options.flag_pers_cutoff
        pixeldq = np.where(flagged, pixeldq | dq.PIXEL["PERSISTENCE"], pixeldq)
    log.info(
        "persistence: %.3g DN subtracted where it is most, %d pixels flagged", largest.max(), np.count_nonzero(flagged)
    )
    side = dict(ramp.side)
    if options.save_trapsfilled:
        # Around the area of this exposure traps empty, as within it.
        seconds = (_end(ramp) - start) * DAY
        filled = release(filled, families, seconds)
        filled[here] = after
        cards = {
            "SUBSTRT1": around.xstart, "SUBSTRT2": around.ystart, "SUBSIZE1": around.xsize, "SUBSIZE2": around.ysize,
            "EXPEND": _end(ramp),
        }  # fmt: skip
        side["trapsfilled"] = TrapsFilled(header.set(cards), filled.astype(np.float32), ramp.recipe)
    if subtracted is not None:
        side["output_pers"] = Ramp(header, subtracted, pixeldq, ramp.groupdq, recipe=ramp.recipe)
    return ramp.with_(data=data, pixeldq=pixeldq, side=side)


def _resets(number: int | None) -> int:
    return 1 if number is None else int(number)


def _traps_before(url: str, detector: str, start: float, families: TrapFamilies) -> TrapsFilled:
    """Filled traps of the exposure before, as they are at the start of this one [MJD]."""
    with fetched(url) as path:
        traps = read_traps_filled(path)
    theirs, end = traps.header.require("DETECTOR", "EXPEND")
    if theirs != detector:
        raise ProductError(f"{url} has the filled traps of {theirs}, but the exposure is of {detector}; name its own")
    if len(traps.data) != len(families.decay):
        raise ProductError(
            f"{url} has {len(traps.data)} trap families, but the TRAPPARS reference has {len(families.decay)}; "
            "make it anew with this reference"
        )
    if end > start:
        raise ProductError(
            f"{url} is of an exposure that ended at MJD {end}, after this one began ({start}); name one from before"
        )
    return traps.with_(data=release(traps.data.astype(np.float64), families, (start - end) * DAY))


def _widen(traps: TrapsFilled, area: Subarray) -> tuple[Subarray, np.ndarray]:
    """The area that covers both, and the filled traps in it; none where they are not known."""
    of = traps.header.subarray
    x, y = min(of.xstart, area.xstart), min(of.ystart, area.ystart)
    right, top = (
        max(of.xstart + of.xsize, area.xstart + area.xsize),
        max(of.ystart + of.ysize, area.ystart + area.ysize),
    )
    around = Subarray(x, y, right - x, top - y)
    filled = np.zeros((len(traps.data), *around.shape))
    filled[:, of.ystart - y : of.ystart - y + of.ysize, of.xstart - x : of.xstart - x + of.xsize] = traps.data
    return around, filled


def _starts(ramp: Ramp) -> np.ndarray:
    """Start of each integration [s since 1970-01-01 UTC]: as its table says, else evenly from the start of the exposure."""
    nints = ramp.data.shape[0]
    if ramp.int_times is not None and len(ramp.int_times) >= nints:
        # A segment of a long exposure has the times of all integrations, or its own.
        first = ramp.header.get("INTSTART", 1) - 1 if len(ramp.int_times) > nints else 0
        times = np.asarray(ramp.int_times["int_start_MJD_UTC"], np.float64)[first : first + nints]
        if len(times) == nints:
            return (times - EPOCH) * DAY
    start, duration = ramp.header.require("EXPSTART", "EFFINTTM")
    return (start - EPOCH) * DAY + np.arange(nints) * duration


def _end(ramp: Ramp) -> float:
    """End of the exposure [MJD]: as its header says, else a last integration after its start."""
    end = ramp.header.get("EXPEND")
    if end is not None:
        return float(end)
    return float(_starts(ramp)[-1] + ramp.data.shape[1] * ramp.header["TGROUP"]) / DAY + EPOCH
