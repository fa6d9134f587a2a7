"""Images of a target or a mosaic: calwebb_image3."""

from associations.constraints import is_set, is_unset, one_of
from associations.rules.rule import HAS_SUBARRAY, IMAGE3_TYPES, LEVEL3_BASE, OPTICS, Level3Rule

_IMAGE = (
    one_of("exp_type", IMAGE3_TYPES),
    *LEVEL3_BASE,
    is_unset("tso"),
    is_unset("haswfsc"),
    HAS_SUBARRAY,
)
_KEY = (*OPTICS, "exp_type", "visitype")

RULES = (
    Level3Rule("Lv3Image", "image3", where=(*_IMAGE, is_unset("bkgdtarg")), key=_KEY),
    Level3Rule(
        "Lv3ImageBackground", "image3", where=(*_IMAGE, is_set("bkgdtarg")), key=(*_KEY, "bkgdtarg"), auxiliary=True
    ),
    Level3Rule(
        "Lv3ImageMosaic",
        "image3",
        where=(*_IMAGE, is_unset("bkgdtarg")),
        key=_KEY,
        target=False,
        scopes=("mosaic",),
    ),
)
