"""Names of members, products and association files."""

import re
from collections.abc import Iterable, Sequence

from associations.candidates import Scope
from associations.exposure import IMAGE2_NONSCIENCE_TYPES, IMAGE2_TYPES, SPEC2_TYPES, Exposure
from associations.rules.rule import Level2Rule, Level3Rule, Name

_RAW = re.compile(r"^(.*)_uncal(\.[^/]+)$")
_SUFFIX = re.compile(r"_(?:uncal|ramp|rate|rateints|cal|calints|crf|crfints|x1d|x1dints|bsub|bsubints|i2d|s2d|s3d)$")

_CALIBRATED = IMAGE2_TYPES | IMAGE2_NONSCIENCE_TYPES | SPEC2_TYPES


def is_raw(filename: str) -> bool:
    """Whether the name is that of a raw exposure; of others the suffix is not replaced."""
    return _RAW.match(filename) is not None


def stage1_member(exposure: Exposure, rule: Level2Rule) -> str:
    """The file of an exposure that a level 2 association names: ``rate``, or ``rateints`` where integrations count."""
    return _with_suffix(exposure["filename"], "rateints" if _keeps_integrations(exposure, rule) else "rate")


def stage2_member(exposure: Exposure, role: str, rule: Level3Rule) -> str:
    """The file of an exposure that a level 3 association names: ``cal``, of a background ``x1d``, and per integration."""
    if role == "background":
        suffix = "x1d"
    else:
        suffix = "cal" if exposure["exp_type"] in _CALIBRATED else "rate"
    return _with_suffix(exposure["filename"], suffix + ("ints" if _keeps_integrations(exposure, rule) else ""))


def _keeps_integrations(exposure: Exposure, rule: Level2Rule | Level3Rule) -> bool:
    coronagraphic = exposure["n_coron"] and rule.keeps_coronagraphic_integrations
    return bool(exposure["n_tso"] or exposure["n_ami"] or coronagraphic)


def _with_suffix(filename: str, suffix: str) -> str:
    found = _RAW.match(filename)
    return filename if found is None else f"{found[1]}_{suffix}{found[2]}"


def level2_product(expname: str) -> str:
    """The product of a science member: its name without extension and suffix."""
    return _SUFFIX.sub("", expname.rpartition(".")[0] or expname)


def target_name(exposure: Exposure, scope: Scope, has_target: bool = True) -> str:
    """``t001``; ``t000`` where the target does not count, as in mosaics and pure parallels."""
    if not has_target or scope.kind == "direct_image":
        return "t000"
    return f"t{exposure['targetid'] or '0':0>3}"


def level3_product(rule: Level3Rule, scope: Scope, exposures: Sequence[Exposure]) -> str:
    """The product of a group of exposures.

    Parameters
    ----------
    exposures : sequence
        The first is one that began the group: program, instrument and target are its.
    """
    first = exposures[0]
    target = target_name(first, scope, rule.target)
    instrument = first["instrume"]
    optics = _joined((e[column] for e in exposures for column in rule.optics), "clear")
    slits = _joined((e["fxd_slit"] for e in exposures), "")
    subarray = "" if first["subarray"] in (None, "full") else first["subarray"]
    start = f"{_start(first, scope)}_"
    match rule.naming:
        case Name.INSTRUMENT:
            return f"{start}{target}_{instrument}"
        case Name.PATH:
            return f"{start}{target}_{instrument}_{optics}"
        case Name.SLIT_SOURCE:
            words = (f"{target}-{{source_id}}_{instrument}_{optics}", "{slit_name}", subarray)
            return start + "-".join(filter(None, words))
        case Name.SOURCE:
            return start + "-".join(filter(None, (f"{{source_id}}_{instrument}_{optics}", slits, subarray)))
        case Name.IMAGE3:
            return start + "-".join(filter(None, (f"{target}_{instrument}_{optics}", subarray, "image3")))
    name = start + "-".join(filter(None, (f"{target}_{instrument}_{optics}", slits, subarray)))
    if rule.naming is Name.ACTIVITY:
        name += f"-{first['detector']}_{{suffix}}-{first['act_id'] or '':0>2}"
    return name


def direct_image_product(image: Exposure, scope: Scope) -> str:
    """The level 3 product that a direct image of a slitless exposure goes into.

    The peer leaves the subarray out of it but for NIRISS, and names a product that nothing makes. In flight the others read
    the whole detector.
    """
    columns = ("elem1",) if image["instrume"] == "miri" else ("elem1", "elem2")
    name = f"{_start(image, scope)}_{target_name(image, scope)}_{image['instrume']}_"
    name += _joined((image[column] for column in columns), "clear")
    if scope.kind != "direct_image" and image["subarray"] not in (None, "full"):
        name += f"-{image['subarray']}"
    return name


def _start(exposure: Exposure, scope: Scope) -> str:
    return f"jw{exposure['program']:0>5}-{scope.id}"


def _joined(values: Iterable[str | None], nothing: str) -> str:
    return "-".join(sorted({value for value in values if value})) or nothing


def file_name(program: str, scope_id: str, version_id: str | None, asn_type: str, number: int) -> str:
    """``jw{program}-{candidate}[_{version}]_{type}_{number}_asn.json``."""
    words = (f"jw{program:0>5}-{scope_id}", version_id, asn_type, f"{number:05}", "asn.json")
    return "_".join(word for word in words if word).lower()
