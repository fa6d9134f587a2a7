"""File names of products: their parts, and one product's name from another's.

Exposure: ``jw<ppppp><ooo><vvv>_<gg><s><aa>_<eeeee>[-seg<NNN>]_<detector>_<suffix>.fits``; target:
``jw<ppppp>-<o|c|a|r><NNN>_<target>_<instrument>_<optics>_<suffix>.fits`` (JWST pipeline documentation, "File naming").
"""

import re

SUFFIXES = (
    "uncal ramp rate rateints dark trapsfilled fitopt likely_chisq cal calints bsub crf crfints i2d s2d s3d x1d x1dints c1d "
    "cat segm psfstack psfalign psfsub ami-oi psf-ami-oi aminorm-oi phot whtlt wfscmb "
    "persistence output_pers mask flicker_bkg flicker_noise emi_ref_waves pctfrm_mask pctfrm_correction"
).split()

_SUFFIX = re.compile(rf"_({'|'.join(sorted(SUFFIXES, key=len, reverse=True))})$")


def base_of(name: str) -> str:
    """The name of a product without folder, extension and suffix: ``jw..._nis`` of ``jw..._nis_rate.fits``."""
    return _SUFFIX.sub("", stem_of(name))


def suffix_of(name: str) -> str | None:
    """The suffix of a product's name, ``rate`` of ``jw..._nis_rate.fits``; None where it has no known one."""
    found = _SUFFIX.search(stem_of(name))
    return found.group(1) if found else None


def stem_of(name: str) -> str:
    """The name without folder and extension."""
    return re.sub(r"\.(fits|fits\.gz|ecsv|asdf|json)$", "", name.rstrip("/").rsplit("/", 1)[-1])


def rename(name: str, suffix: str, extension: str = "fits") -> str:
    """The name of the product with another suffix: ``jw..._nis_cal.fits`` of ``.../jw..._nis_rate.fits``."""
    return f"{base_of(name)}_{suffix}.{extension}"
