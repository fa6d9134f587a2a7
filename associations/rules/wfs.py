"""Wavefront sensing: pairs of images in and out of focus, calwebb_wfs-image3."""

from associations.constraints import none_of, one_of
from associations.rules.rule import HAS_SUBARRAY, IMAGE3_TYPES, LEVEL3_BASE, OPTICS, Level3Rule, Name
from associations.rules.spec3 import is_background

RULES = (
    Level3Rule(
        "Lv3WFSCMB",
        "wfs-image3",
        where=(
            one_of("exp_type", IMAGE3_TYPES),
            *LEVEL3_BASE,
            one_of("patttype", ["wfsc"]),
            none_of("dms_note", ["wfsc_los_jitter"]),
            HAS_SUBARRAY,
        ),
        key=(*OPTICS, "exp_type", "detector", "obs_id", "act_id"),
        loose=is_background,
        least=2,
        not_scopes=("group",),
        naming=Name.ACTIVITY,
    ),
)
