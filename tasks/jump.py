"""Flag the groups that cosmic rays hit."""

import logging

import numpy as np
from pydantic import BaseModel, Field

from calibration.ramps.jump import Aftermath, Detection, count_usable_differences, flag_bad_gain, flag_jumps
from calibration.ramps.large_events import Snowballs, flag_snowballs
from calibration.ramps.showers import Showers, flag_showers
from infra.products.ramp import Ramp
from infra.references.content import ReferenceNotFound, References
from tasks.step import StepSkipped, step

log = logging.getLogger(__name__)


class JumpOptions(BaseModel, frozen=True, extra="forbid"):
    """When a difference of groups is a jump, and what is flagged with it."""

    rejection_threshold: float = Field(4.0, gt=0, description="threshold with 4 or more differences [sigma]")
    three_group_rejection_threshold: float = Field(6.0, gt=0, description="threshold with 2 differences [sigma]")
    four_group_rejection_threshold: float = Field(5.0, gt=0, description="threshold with 3 differences [sigma]")
    flag_4_neighbors: bool = Field(True, description="flag the four neighbours of a jump")
    max_jump_to_flag_neighbors: float = Field(1000.0, description="largest jump whose neighbours are flagged [sigma]")
    min_jump_to_flag_neighbors: float = Field(10.0, description="smallest jump whose neighbours are flagged [sigma]")
    after_jump_flag_dn1: float = Field(0.0, ge=0, description="jumps from here on spoil later groups [DN]")
    after_jump_flag_time1: float = Field(0.0, ge=0, description="for this long [s]")
    after_jump_flag_dn2: float = Field(
        0.0, ge=0, description="second limit: jumps from here on spoil later groups [DN]"
    )
    after_jump_flag_time2: float = Field(0.0, ge=0, description="for this long [s]")
    min_diffs_single_pass: int = Field(10, ge=2, description="differences from which on all are tested at once")
    minimum_groups: int = Field(3, ge=2, description="least number of usable groups, but for clipping")
    minimum_sigclip_groups: int = Field(
        100, ge=2, description="integrations from which on differences are clipped over integrations"
    )
    only_use_ints: bool = Field(
        True, description="clip a difference among the same one of all integrations; else all together, by groups"
    )
    expand_large_events: bool = Field(False, description="flag the reach of snowballs; near infrared")
    min_jump_area: float = Field(5.0, ge=0, description="least area of the jumps of a snowball, holes included [pixel]")
    min_sat_area: float = Field(1.0, ge=0, description="least area of its saturated core [pixel]")
    expand_factor: float = Field(2.0, gt=0, description="how much wider than its jumps a snowball is flagged")
    use_ellipses: bool = Field(False, description="obsolete, without effect: ellipses are always used")
    sat_required_snowball: bool = Field(True, description="a snowball has a saturated core, but near an edge")
    min_sat_radius_extend: float = Field(
        2.5, ge=0, description="cores are enlarged when their minor axis, from end to end, is longer [pixel]"
    )
    sat_expand: int = Field(2, ge=0, description="how far cores are enlarged on each side [pixel]")
    edge_size: int = Field(25, ge=0, description="nearer to an edge of the area read, no core is needed [pixel]")
    mask_snowball_core_next_int: bool = Field(True, description="flag cores in the next integration too")
    snowball_time_masked_next_int: int = Field(4000, ge=0, description="for this long [s]")
    find_showers: bool = Field(False, description="flag the reach of showers; MIRI")
    max_shower_amplitude: float = Field(4.0, ge=0, description="a change of the rate above this is no shower [DN/s]")
    extend_snr_threshold: float = Field(1.2, gt=0, description="least mean signal to noise of the pixels of a shower")
    extend_min_area: int = Field(90, ge=0, description="least area above that [pixel]")
    extend_inner_radius: float = Field(1.0, ge=0, description="inner radius of the ring of neighbours [pixel]")
    extend_outer_radius: float = Field(2.6, ge=0, description="by how much its outer radius is larger [pixel]")
    extend_ellipse_expand_ratio: float = Field(1.1, gt=0, description="how much wider a shower is flagged")
    time_masked_after_shower: float = Field(15.0, ge=0, description="how long after it groups are flagged [s]")
    max_extended_radius: int = Field(200, ge=0, description="cut of the half axes of what is flagged [pixel]")


@step("jump", references=("gain", "readnoise"), options=JumpOptions)
def jump(ramp: Ramp, references: References, options: JumpOptions) -> Ramp:
    """Flag the groups that cosmic rays hit."""
    _, ngroups, ny, nx = ramp.data.shape
    if ngroups < 3:
        raise StepSkipped("jumps cannot be told with fewer than 3 groups")
    subarray = ramp.header.subarray
    gain, readnoise = references.array("gain", "SCI", subarray), references.array("readnoise", "SCI", subarray)
    if gain is None or readnoise is None:
        raise ReferenceNotFound("jump needs a GAIN and a READNOISE reference file, but none matches this exposure")
    group_time = ramp.header.require("TGROUP")
    aftermaths = tuple(
        Aftermath(height * float(np.nanmedian(gain)), int(time // group_time))
        for height, time in (
            (options.after_jump_flag_dn1, options.after_jump_flag_time1),
            (options.after_jump_flag_dn2, options.after_jump_flag_time2),
        )
        if time >= group_time
    )
    detection = Detection(
        options.rejection_threshold,
        options.four_group_rejection_threshold,
        options.three_group_rejection_threshold,
        options.min_diffs_single_pass,
        options.minimum_sigclip_groups,
        options.only_use_ints,
        options.minimum_groups,
        options.flag_4_neighbors,
        options.min_jump_to_flag_neighbors,
        options.max_jump_to_flag_neighbors,
    )
    groupdq, hits = flag_jumps(
        ramp.data, ramp.groupdq, gain, readnoise, ramp.header.require("NFRAMES"), detection, aftermaths
    )
    events = 0
    if options.expand_large_events:
        groupdq, events = flag_snowballs(groupdq, _snowballs(options, group_time))
        log.info("jump: %d snowballs", events)
    if options.find_showers:
        showers = _showers(options, group_time)
        groupdq, found = flag_showers(
            ramp.data, groupdq, ramp.pixeldq, gain, readnoise, ramp.header.require("NFRAMES"), showers
        )
        events += found
        log.info("jump: %d showers", found)
    differences = count_usable_differences(groupdq)
    # Hits per 1000 pixels and second: PRIMECRS.
    rate = 1000 * hits / (group_time * differences * ny * nx) if differences > 0 else None
    log.info("jump: %d hits in %d differences of groups", hits, differences)
    header = ramp.header.set(PRIMECRS=rate)
    if (options.expand_large_events or options.find_showers) and differences > 0:
        # Large events per million pixels and second.
        header = header.set(EXTNCRS=1e6 * events / (group_time * differences * ny * nx))
    return ramp.with_(header=header, groupdq=groupdq, pixeldq=flag_bad_gain(ramp.pixeldq, gain))


def _snowballs(options: JumpOptions, group_time: float) -> Snowballs:
    masked = options.snowball_time_masked_next_int if options.mask_snowball_core_next_int else 0
    return Snowballs(
        options.min_jump_area,
        options.min_sat_area,
        options.expand_factor,
        options.sat_required_snowball,
        options.edge_size,
        options.min_sat_radius_extend,
        options.sat_expand,
        options.max_extended_radius,
        int(masked // group_time),
    )


def _showers(options: JumpOptions, group_time: float) -> Showers:
    return Showers(
        options.extend_snr_threshold,
        options.extend_min_area,
        options.extend_inner_radius,
        options.extend_outer_radius,
        options.extend_ellipse_expand_ratio,
        int(options.time_masked_after_shower // group_time),
        options.max_shower_amplitude * group_time,
        options.max_extended_radius,
        options.minimum_sigclip_groups,
    )
