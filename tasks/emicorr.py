"""Remove interference of known frequency from MIRI ramps."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from calibration.ramps.emicorr import CLOCK, CLOCKS, Clock, remove_folded_interference, remove_interference
from infra.products.emi_waves import EmiWaves, read_waves
from infra.products.ramp import Ramp
from infra.references.content import ReferenceInvalid, References
from infra.storage.store import fetched, name_of
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)

#: Readout patterns that are known; those with R1 have a reset frame between integrations.
PATTERNS = ("FAST", "FASTR1", "SLOW", "SLOWR1")


class EmicorrOptions(BaseModel, frozen=True, extra="forbid"):
    """Which waves are taken out, and how they are fitted."""

    algorithm: Literal["joint", "sequential"] = Field(
        "joint",
        description="fit wave and ramps together, or fold what is left of the ramps by phase (10 groups or more)",
    )
    fit_ints_separately: bool = Field(
        False, description="fit height and phase for each integration by itself (joint only)"
    )
    nints_to_phase: int | None = Field(None, gt=0, description="integrations that are folded (sequential only)")
    use_n_cycles: int | None = Field(
        3, gt=0, description="fold as many integrations as have so many waves; none: all (sequential only)"
    )
    nbins: int | None = Field(None, gt=1, description="bins of the folded wave, at most 500 (sequential only)")
    scale_reference: bool = Field(True, description="scale the wave of the reference to what is seen (sequential only)")
    onthefly_corr_freq: tuple[float, ...] | None = Field(
        None, description="frequencies [Hz] to take out without a reference, as they are seen (sequential)"
    )
    user_supplied_reffile: str | None = Field(None, description="file to take in place of the EMICORR reference")
    save_intermediate_results: bool = Field(
        False, description="write the waves that were seen as an EMICORR reference, _emi_ref_waves (onthefly_corr_freq)"
    )


@dataclass(frozen=True)
class _Waves:
    """The waves of an exposure: name -> frequency [Hz] and shape, where it is known; and the clocks of its readout."""

    waves: Mapping[str, tuple[float, np.ndarray | None]]
    row: int
    frame: int


@step("emicorr", references=("emicorr",), options=EmicorrOptions, default=False)
def emicorr(ramp: Ramp, references: References, options: EmicorrOptions) -> Ramp:
    """Remove interference of known frequency from MIRI ramps."""
    pattern, nsamples = ramp.header.require("READPATT", "NSAMPLES")
    if pattern not in PATTERNS:
        raise StepSkipped(f"the readout {pattern} is none of {', '.join(PATTERNS)}")
    sequential = options.algorithm == "sequential" or options.onthefly_corr_freq is not None
    needed = 4 if sequential else 3
    if ramp.data.shape[1] < needed:
        raise StepSkipped(f"interference cannot be told from a slope with fewer than {needed} groups")
    if sequential and ramp.data.shape[1] < 10:
        log.warning("emicorr: algorithm=sequential is not reliable with fewer than 10 groups; joint is")
    waves = _waves(ramp, references, options)
    clock = Clock(waves.row, waves.frame if pattern.endswith("R1") else 0)
    data, side = ramp.data, dict(ramp.side)
    seen = {}
    for name, (frequency, wave) in waves.waves.items():
        if sequential:
            data, seen[name] = remove_folded_interference(
                data,
                frequency,
                clock,
                nsamples,
                _folded(ramp, options, frequency, waves.frame),
                options.nbins,
                wave,
                options.scale_reference,
                ramp.header.subarray.xsize // 4 + ramp.header.subarray.xstart - 1,
            )
            log.info("emicorr: %.6g Hz, %.3g DN rms", frequency, np.nanstd(seen[name]))
        else:
            assert wave is not None, "only waves on the fly have no shape"
            data, heights = remove_interference(
                data, ramp.pixeldq, wave, frequency, clock, nsamples, options.fit_ints_separately
            )
            log.info("emicorr: %.6g Hz, %.3g DN rms", frequency, np.abs(heights).mean() * wave.std())
    if options.onthefly_corr_freq is not None and options.save_intermediate_results:
        side["emi_ref_waves"] = EmiWaves(_reference(ramp, waves, seen))
    return ramp.with_(data=data, side=side)


def _waves(ramp: Ramp, references: References, options: EmicorrOptions) -> _Waves:
    subarray, pattern, detector = ramp.header.require("SUBARRAY", "READPATT", "DETECTOR")
    speed = pattern.removesuffix("R1")
    area = f"FULL_{speed}" if subarray == "FULL" else subarray
    if options.onthefly_corr_freq is not None:
        if area not in CLOCKS:
            raise StepSkipped(f"the clocks of the subarray {subarray} are not known, only of {', '.join(CLOCKS)}")
        return _Waves(
            {f"Hz{frequency:g}": (frequency, None) for frequency in options.onthefly_corr_freq}, *CLOCKS[area]
        )
    if options.user_supplied_reffile is not None:
        with fetched(options.user_supplied_reffile) as path:
            tree, file_name = read_waves(path), name_of(options.user_supplied_reffile)
    else:
        chosen = references.asdf("emicorr")
        if chosen is None:
            raise StepSkipped("no EMICORR reference file matches this exposure")
        tree, file_name = chosen, references.name("emicorr") or ""
    case = tree["subarray_cases"].get(area)
    names = case["freqs"].get(speed) if case is not None else None
    if names is not None and speed == "SLOW":
        names = names.get(detector)
    if case is None or not names:
        raise StepSkipped(
            f"the EMICORR reference file has no waves for the subarray {subarray} and the readout {pattern}"
        )
    return _Waves(
        {name: _wave(tree, name, file_name) for name in names}, int(case["rowclocks"]), int(case["frameclocks"])
    )


def _folded(ramp: Ramp, options: EmicorrOptions, frequency: float, frame: int) -> int:
    """How many integrations are folded."""
    nints, ngroups = ramp.data.shape[:2]
    if options.nints_to_phase is not None:
        return min(options.nints_to_phase, nints)
    if options.use_n_cycles is None:
        return nints
    return min(nints, math.ceil(options.use_n_cycles / (frequency * CLOCK * frame * ngroups)))


def _reference(ramp: Ramp, waves: _Waves, seen: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The tree of an EMICORR reference with the waves that were seen."""
    subarray, pattern, detector = ramp.header.require("SUBARRAY", "READPATT", "DETECTOR")
    speed = pattern.removesuffix("R1")
    freqs = {speed: {detector: list(seen)} if speed == "SLOW" else list(seen)}
    return {
        "frequencies": {
            name: {"frequency": waves.waves[name][0], "phase_amplitudes": wave} for name, wave in seen.items()
        },
        "subarray_cases": {
            f"FULL_{speed}" if subarray == "FULL" else subarray: {
                "rowclocks": waves.row, "frameclocks": waves.frame, "freqs": freqs
            }
        },
        "meta": {
            "reftype": "emicorr", "telescope": "JWST", "instrument": {"name": "MIRI"}, "pedigree": "GROUND",
            "author": "calweave", "description": f"waves seen in {ramp.header.get('FILENAME', 'an exposure')}",
            "useafter": f"{ramp.header.get('DATE-OBS', '2022-01-01')}T00:00:00",
        },
    }  # fmt: skip


def _wave(tree: Mapping[str, Any], name: str, file_name: str | None) -> tuple[float, np.ndarray]:
    entry = tree["frequencies"].get(name)
    if entry is None:
        raise ReferenceInvalid(
            f"{file_name}: its subarray_cases name the wave {name}, but its frequencies have only "
            f"{', '.join(tree['frequencies'])}; choose another reference file"
        )
    frequency, wave = float(entry["frequency"]), np.asarray(entry["phase_amplitudes"], np.float64)
    if not frequency > 0 or wave.ndim != 1 or wave.size < 2 or not np.isfinite(wave).all():
        raise ReferenceInvalid(
            f"{file_name}: the wave {name} must have a frequency above 0 and 2 or more finite values, but has {frequency} Hz "
            f"and an array of the shape {wave.shape}; choose another reference file"
        )
    return frequency, wave
