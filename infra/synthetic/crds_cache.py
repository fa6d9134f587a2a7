"""A CRDS cache made by hand, which the real client reads without a server.

The layout and the few keys that the client needs are in the design notes on references: a pipeline mapping, one mapping per
instrument, one per reference type, and ``config/jwst/server_config``. Every type that the client knows of is there, at least as
``N/A``: it raises on a type that it does not find.
"""

import ast
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTEXT = "jwst_0001.pmap"
USE_AFTER = "2022-01-01 00:00:00"

# Types that steps ask for, beyond those in the client's own list.
_MORE_TYPES = (
    "bkg psf emicorr fringefreq mrsptcorr mrsxartcorr pictureframe sirskernel pastasoss nrm "
    "specprofile speckernel cubepar wavecorr barshadow msaoper psfmask tsophot reset rscd"
).split()
_STEPS = (
    "alignrefs amianalyze amiaverage aminormalize assignmtwcs assignwcs background badpixselfcal barshadow "
    "chargemigration cleanflickernoise combine1d cubebuild cubeskymatch darkcurrent dqinit emicorr extract1d extract2d "
    "firstframe flatfield fringe gainscale groupscale guidercds hlsp imprint ipc jump klip lastframe linearity "
    "masterbackground masterbackgroundmos mrsimatch msaflagopen nscleanstep outlierdetection pathloss persistence "
    "photom pictureframe pixelreplace rampfit refpix resample resamplespec reset residualfringe rscd saturation skymatch "
    "sourcecatalog sourcetype spectralleak stackrefs straylight superbias targcentroid tsophotometry tweakreg "
    "undersamplecorrection wavecorr wfscombine wfsscontam whitelight"
).split()
_PIPELINES = "ami3 coron3 dark detector1 guider image2 image3 spec2 spec3 tso3".split()


@dataclass(frozen=True)
class Rule:
    """Which exposures a reference file is for.

    Parameters
    ----------
    reftype
        Type, lower case.
    filename
        File name, or "N/A".
    match
        Parameter such as ``META.EXPOSURE.TYPE`` -> value or values (``A|B``). All rules of one type name the same parameters.
    """

    reftype: str
    filename: str
    match: Mapping[str, str]


def write_mappings(folder: Path, rules: Mapping[str, Sequence[Rule]]) -> None:
    """Write the mappings and the configuration of a cache.

    Parameters
    ----------
    folder
        Root of the cache, the CRDS_PATH.
    rules
        Instrument, upper case -> its rules.
    """
    mappings = folder / "mappings" / "jwst"
    mappings.mkdir(parents=True, exist_ok=True)
    instruments = {}
    for instrument, of_instrument in sorted(rules.items()):
        selector = {reftype: "N/A" for reftype in known_types()}
        for reftype in sorted({rule.reftype for rule in of_instrument}):
            selector[reftype] = f"jwst_{instrument.lower()}_{reftype}_0001.rmap"
            _write_rmap(
                mappings / selector[reftype], instrument, reftype, [r for r in of_instrument if r.reftype == reftype]
            )
        instruments[instrument] = f"jwst_{instrument.lower()}_0001.imap"
        header = {"mapping": "INSTRUMENT", "instrument": instrument, "parkey": ("REFTYPE",)}
        _write_mapping(mappings / instruments[instrument], header, _format_dict(selector))
    header = {"mapping": "PIPELINE", "parkey": ("META.INSTRUMENT.NAME",)}
    _write_mapping(mappings / CONTEXT, header, _format_dict(instruments))
    config = folder / "config" / "jwst"
    config.mkdir(parents=True, exist_ok=True)
    # The client would write this note itself, which a read-only cache does not let it.
    (config / "ref_cache_subdir_mode").write_text("instrument")
    (config / "server_config").write_text(
        f"{{'observatory': 'jwst', 'operational_context': '{CONTEXT}', 'bad_files_list': [], "
        "'last_synced': '2026-01-01 00:00:00'}\n"
    )


def add_context(folder: Path, changes: Mapping[str, str]) -> str:
    """Add a context that chooses other files, and make it the operational one; returns its name.

    Parameters
    ----------
    folder
        Root of a cache that ``write_mappings`` wrote.
    changes
        File name -> the name of the one that takes its place.

    Raises
    ------
    ValueError
        If the operational context chooses none of a name.
    """
    mappings, config = folder / "mappings" / "jwst", folder / "config" / "jwst" / "server_config"
    settings = ast.literal_eval(config.read_text())
    before = settings["operational_context"]
    number = int(before.removeprefix("jwst_").removesuffix(".pmap")) + 1
    left = set(changes)

    def renew(name: str) -> str:
        """The next version of a mapping, where it or one that it names changes; its name, or the old one."""
        text = (mappings / name).read_text()
        others = {other: renew(other) for other in set(re.findall(r"'([^']+\.[ir]map)'", text)) if other != name}
        changed = {old: new for old, new in {**others, **changes}.items() if old != new and f"'{old}'" in text}
        if not changed:
            return name
        left.difference_update(changed)
        new_name = re.sub(r"_\d+(\.[a-z]map)$", rf"_{number:04d}\1", name)
        for old, new in {**changed, name: new_name}.items():
            text = text.replace(f"'{old}'", f"'{new}'")
        _write_signed(mappings / new_name, [line for line in text.split("\n") if "'sha1sum'" not in line])
        return new_name

    context = renew(before)
    if left:
        raise ValueError(f"expected files that {before} chooses, but it chooses no {', '.join(sorted(left))}")
    config.write_text(repr({**settings, "operational_context": context}) + "\n")
    return context


def known_types() -> list[str]:
    """Reference types, lower case: the client's own list, and what steps ask for besides."""
    from crds.jwst import TYPES

    types = {name.lower() for name in TYPES.filekinds if name != "all"} | set(_MORE_TYPES)
    types |= {f"pars-{step}step" for step in _STEPS} | {f"pars-{name}pipeline" for name in _PIPELINES}
    return sorted(types)


def _write_rmap(path: Path, instrument: str, reftype: str, rules: Sequence[Rule]) -> None:
    parameters = tuple(rules[0].match)
    for rule in rules:
        if tuple(rule.match) != parameters:
            raise ValueError(f"all rules for {reftype} must match {parameters}, but one matches {tuple(rule.match)}")
    header = {
        "mapping": "REFERENCE",
        "instrument": instrument,
        "filekind": reftype,
        "parkey": (parameters, ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")),
    }
    lines = ["Match({"]
    for rule in rules:
        key = tuple(rule.match.values())
        value = "'N/A'" if rule.filename == "N/A" else f"UseAfter({{'{USE_AFTER}': '{rule.filename}'}})"
        lines.append(f"    {key!r}: {value},")
    lines.append("})")
    _write_mapping(path, header, "\n".join(lines))


def _format_dict(entries: Mapping[str, str]) -> str:
    return "\n".join(["{", *(f"    {key!r}: {value!r}," for key, value in entries.items()), "}"])


def _write_mapping(path: Path, header: dict, selector: str) -> None:
    entries = {**header, "observatory": "JWST", "name": path.name, "derived_from": "none"}
    lines = ["header = {", *(f"    {key!r}: {value!r}," for key, value in entries.items())]
    _write_signed(path, [*lines, "}", "", *f"selector = {selector}".split("\n"), ""])


def _write_signed(path: Path, lines: Sequence[str]) -> None:
    """Write a mapping with its checksum, which is taken over all lines but its own; the last line is empty."""
    digest = hashlib.sha1("".join(line + "\n" for line in lines[:-1]).encode()).hexdigest()
    end = lines.index("}")
    path.write_text("\n".join([*lines[:end], f"    'sha1sum': '{digest}',", *lines[end:]]))
