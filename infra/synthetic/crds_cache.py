"""A CRDS cache made by hand, which the real client reads without a server.

The layout and the few keys that the client needs are in the design notes on references: a pipeline mapping, one mapping per
instrument, one per reference type, and ``config/jwst/server_config``. Every type that the client knows of is there, at least as
``N/A``: it raises on a type that it does not find.
"""

import hashlib
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
    tail = ["}", "", f"selector = {selector}", ""]
    # The checksum is taken over all lines but its own.
    digest = hashlib.sha1(
        "".join(line + "\n" for line in "\n".join(lines + tail).split("\n")[:-1]).encode()
    ).hexdigest()
    path.write_text("\n".join([*lines, f"    'sha1sum': '{digest}',", *tail]))
