"""calwebb_detector1: from raw ramps to slopes, for one exposure. Its variant for time series is calwebb_tso1."""

import difflib

from flows.blocks import calibrate, rescale
from flows.stage import Overrides, prepare, runs, save, save_side, stage_flow
from infra.machine import using
from infra.monitoring import working_on
from infra.products.header import Header, ProductError
from infra.products.names import base_of, rename
from infra.products.ramp import RampFile, open_ramp, raw_area
from infra.storage.store import fetched
from tasks.charge_migration import charge_migration
from tasks.clean_flicker_noise import clean_flicker_noise
from tasks.dark_current import dark_current
from tasks.dq_init import dq_init
from tasks.emicorr import emicorr
from tasks.firstframe import firstframe
from tasks.gain_scale import gain_scale
from tasks.group_scale import group_scale
from tasks.ipc import ipc
from tasks.jump import jump
from tasks.lastframe import lastframe
from tasks.linearity import linearity
from tasks.persistence import persistence
from tasks.picture_frame import picture_frame
from tasks.ramp_fit import ramp_fit
from tasks.refpix import refpix
from tasks.reset import reset
from tasks.rscd import rscd
from tasks.saturation import saturation
from tasks.superbias import superbias

NEAR_INFRARED = (
    group_scale, dq_init, saturation, ipc, superbias, refpix, linearity, dark_current, charge_migration, jump,
    picture_frame, clean_flicker_noise, persistence,
)  # fmt: skip
MIRI = (
    group_scale, dq_init, emicorr, saturation, ipc, firstframe, lastframe, reset, linearity, rscd, dark_current, refpix,
    charge_migration, jump, clean_flicker_noise, persistence,
)  # fmt: skip
NOT_FOR_TIME_SERIES = (ipc, firstframe, lastframe, rscd, persistence, charge_migration)

EXP_TYPES = frozenset(
    """FGS_IMAGE FGS_FOCUS FGS_SKYFLAT FGS_INTFLAT MIR_IMAGE MIR_LYOT MIR_4QPM MIR_TACQ MIR_TACONFIRM MIR_MRS
    MIR_LRS-FIXEDSLIT MIR_LRS-SLITLESS MIR_WFSS MIR_FLATIMAGE MIR_FLATMRS MIR_FLATIMAGE-EXT MIR_FLATMRS-EXT MIR_CORONCAL
    NRC_IMAGE NRC_CORON NRC_TSIMAGE NRC_TSGRISM NRC_WFSS NRC_TACQ NRC_TACONFIRM NRC_FOCUS NRC_FLAT NRC_LED NRC_GRISM
    NIS_IMAGE NIS_AMI NIS_WFSS NIS_SOSS NIS_TACQ NIS_TACONFIRM NIS_FOCUS NIS_LAMP NIS_EXTCAL
    NRS_IMAGE NRS_TACQ NRS_TACONFIRM NRS_BOTA NRS_TASLIT NRS_CONFIRM NRS_FOCUS NRS_MIMF NRS_WATA NRS_MSATA NRS_VERIFY
    NRS_FIXEDSLIT NRS_IFU NRS_MSASPEC NRS_BRIGHTOBJ NRS_AUTOWAVE NRS_AUTOFLAT NRS_LAMP
    FGS_DARK MIR_DARKALL MIR_DARKIMG MIR_DARKMRS NRC_DARK NIS_DARK NRS_DARK""".split()
)
#: Without these an exposure cannot be calibrated.
NEEDED = tuple(
    """INSTRUME EXP_TYPE DETECTOR DATE-OBS TIME-OBS READPATT NINTS NGROUPS NFRAMES GROUPGAP TFRAME TGROUP SUBARRAY SUBSTRT1
    SUBSTRT2 SUBSIZE1 SUBSIZE2 FASTAXIS SLOWAXIS""".split()
)

TSO_TYPES = ("NRC_TSIMAGE", "NRC_TSGRISM", "NRS_BRIGHTOBJ", "MIR_LRS-SLITLESS", "NIS_SOSS")


def steps_for(header: Header) -> tuple:
    """The steps before the slope fit, in order.

    Raises
    ------
    ProductError
        If a needed keyword is missing, or no steps are known for the exposure.
    """
    instrument, exp_type, *_ = header.require(*NEEDED)
    if exp_type not in EXP_TYPES:
        near = difflib.get_close_matches(str(exp_type), EXP_TYPES, 1)
        raise ProductError(
            f"{header.get('FILENAME', 'the exposure')}: EXP_TYPE {exp_type!r} has no ramps that detector1 knows"
            + (f"; did you mean {near[0]}?" if near else "")
            + " Correct the header, or use the pipeline of its kind (`calweave stage --help`)"
        )
    steps = MIRI if instrument == "MIRI" else NEAR_INFRARED
    if header.get("TSOVISIT", False) or exp_type in TSO_TYPES:
        return tuple(step for step in steps if step not in NOT_FOR_TIME_SERIES)
    return steps


def check_shape(file: RampFile) -> Header:
    """The header of an exposure, whose ramps are seen to have the shape that it tells.

    Raises
    ------
    ProductError
        If they have not.
    """
    shape = file.shape[1:]
    said = file.header.require("NGROUPS"), *raw_area(file.header).shape
    if said != shape:
        raise ProductError(
            f"{file.name}: expected {said} groups, rows and columns from NGROUPS, SUBSIZE2, SUBSIZE1 and READPATT, "
            f"but SCI has {shape}; correct the header, or fetch the exposure again"
        )
    return file.header


def all_steps(header: Header) -> tuple:
    """All steps of stage 1 for an exposure."""
    return (*steps_for(header), ramp_fit, gain_scale)


@stage_flow("detector1")
def detector1(
    exposure: str, output: str, overrides: Overrides | None = None, memory: float | None = None, cores: int = 1
) -> list[str]:
    """Calibrate the ramps of one ``_uncal`` exposure; returns the ``_rate`` (and ``_rateints``) that it wrote.

    It takes no more than ``memory`` [byte] beside the program itself (None: what the exposure needs), and ``cores``.
    Without the slope fit (``ramp_fit.skip``) it writes the corrected ramps, ``_ramp``; with it only where
    ``detector1.save_calibrated_ramp`` asks for them.
    """
    with working_on(base_of(exposure)), using(cores), fetched(exposure) as path, open_ramp(path) as file:
        header = check_shape(file)
        references, options = prepare(header, all_steps(header), overrides, "detector1")
        ramp = calibrate(file, steps_for(header), references, options, memory)
        beside = save_side(ramp, exposure, output, references)
        if not runs("ramp_fit", options):
            return [save(ramp, output, rename(exposure, "ramp"), references), *beside]
        made = []
        if options.of("detector1").values.save_calibrated_ramp:
            made.append(save(ramp, output, rename(exposure, "ramp"), references))
        rates = ramp_fit(ramp, references, options)
        beside += save_side(rates[0], exposure, output, references)
        for rate, suffix in zip(rates, ("rate", "rateints"), strict=True):
            if rate is not None:
                rate = rescale(gain_scale, rate, references, options)
                made.append(save(rate, output, rename(exposure, suffix), references))
        return made + beside
