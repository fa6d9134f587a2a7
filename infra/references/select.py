"""Choose the reference files of an exposure by its keywords, with the rules of a CRDS context."""

import logging
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra.products.header import keyword_of, keywords
from infra.references.client import (
    OBSERVATORY,
    ReferenceCacheError,
    client_errors,
    client_state,
    context_name,
    crds_client,
    has_server,
    single_flight_with_server,
)
from infra.references.content import ReferenceNotFound, References
from infra.references.fetch import fetch_references, sha1_of

log = logging.getLogger(__name__)

#: Types of one variant of a step, which the other one does without: contexts made for that one do not have them.
OPTIONAL = frozenset({"trapdensity", "trappars", "persat", "pastasoss"})


def select_references(header: Mapping[str, Any], reftypes: Iterable[str], context: str | None = None) -> References:
    """Choose, fetch and check the reference files of an exposure.

    This is for the process that plans a run: the files are then on this machine, and workers only read them.

    Parameters
    ----------
    header : mapping
        FITS keyword -> value of the exposure.
    reftypes : iterable of str
        Reference types, such as ``"saturation"`` or ``"pars-jumpstep"``.
    context : str, optional
        Name of the context; default ``CRDS_CONTEXT``, else the latest one.

    Returns
    -------
    References
        With None for each type that is not applicable to this exposure.

    Raises
    ------
    ReferenceNotFound
        If no rule of the context fits the exposure.
    ReferenceCacheError
        If there is no cache, or a file cannot be had or is damaged.
    """
    name = context_name(context)
    parameters = crds_parameters(header)
    chosen = choose_references(header, reftypes, name)
    paths = fetch_references((file for file in chosen.values() if file is not None), name, parameters)
    files = {reftype: None if file is None else paths[file] for reftype, file in chosen.items()}
    return References(files, name, {file: sha1_of(path) for file, path in paths.items()})


def choose_references(header: Mapping[str, Any], reftypes: Iterable[str], context: str) -> dict[str, str | None]:
    """Names of the reference files that the rules choose, None where a type is not applicable; no file is fetched.

    A parameter reference (``pars-*``), or one of ``OPTIONAL``, that the context does not have is not applicable, not missing.

    Raises
    ------
    ReferenceNotFound
        Naming each type without a match, and the keywords that did not match.
    """
    reftypes = list(dict.fromkeys(reftypes))
    parameters = crds_parameters(header)
    if not reftypes:
        return {}
    with (
        crds_client() as crds,
        single_flight_with_server(),
        client_errors(f"cannot choose reference files in {context}"),
    ):
        _require_rules(crds, context, header)
        found = crds.getrecommendations(parameters, reftypes, context, observatory=OBSERVATORY)
        chosen: dict[str, str | None] = {}
        problems = []
        for reftype in reftypes:
            file = found.get(reftype, "NOT FOUND n/a")  # the client leaves out a type that the rules omit
            if file.upper() in ("N/A", "NOT FOUND N/A"):
                chosen[reftype] = None
            elif not file.startswith("NOT FOUND"):
                chosen[reftype] = file
            elif reftype.startswith("pars-") or (
                reftype in OPTIONAL and not _has_rules(crds, context, reftype, parameters)
            ):
                chosen[reftype] = None
            else:
                problems.append(_explain(crds, context, reftype, parameters, file.removeprefix("NOT FOUND ")))
    if problems:
        raise ReferenceNotFound(
            f"{header.get('FILENAME', 'the exposure')}: {'; '.join(problems)}. Check these keywords, or choose another "
            "context with CRDS_CONTEXT"
        )
    return chosen


def crds_parameters(header: Mapping[str, Any]) -> dict[str, Any]:
    """The exposure's keywords under the names of the CRDS rules: ``{"META.INSTRUMENT.NAME": "NIRISS", ...}``."""
    known = keywords()
    return {known[key].path.upper(): value for key, value in header.items() if key in known}


def _require_rules(crds: Any, context: str, header: Mapping[str, Any]) -> None:
    """Fail early, in one line, where the client would print a traceback."""
    if "INSTRUME" not in header:
        raise ReferenceNotFound(
            f"{header.get('FILENAME', 'the exposure')}: keyword INSTRUME is missing, which chooses the reference files"
        )
    instrument = header["INSTRUME"]
    if not has_server():
        try:
            crds.get_pickled_mapping(context, cached=True).get_imap(instrument)
        except crds.core.exceptions.CrdsUnknownInstrumentError as error:
            raise ReferenceNotFound(f"the context {context} has no rules for INSTRUME={instrument}") from error
        except OSError as error:
            raise ReferenceCacheError(
                f"the cache does not hold {error.filename}, a part of {context}; copy it there, or set CRDS_SERVER_URL"
            ) from error


def _has_rules(crds: Any, context: str, reftype: str, parameters: Mapping[str, Any]) -> bool:
    rules = crds.get_pickled_mapping(context, cached=True)
    return reftype in rules.get_imap(parameters["META.INSTRUMENT.NAME"]).selections


def _explain(crds: Any, context: str, reftype: str, parameters: Mapping[str, Any], reason: str) -> str:
    """One sentence: which type, which context, the exposure's values, and which of them no rule takes."""
    rules = crds.get_pickled_mapping(context, cached=True)
    imap = rules.get_imap(parameters["META.INSTRUMENT.NAME"])
    kind = reftype.upper()
    if reftype.lower() not in imap.selections:
        return f"{context} has no rules at all for {kind} of {imap.instrument.upper()}"
    mapping = imap.get_rmap(reftype)
    values = []
    for key in (key for keys in mapping.parkey for key in ((keys,) if isinstance(keys, str) else keys)):
        keyword = keyword_of(key.lower())
        if keyword is not None:
            values.append(f"{keyword}={parameters[key]}" if key in parameters else f"{keyword} missing")
    mismatches = []
    conditioned = crds.core.utils.condition_header(dict(parameters))
    for key, accepted in mapping.selector.get_parkey_map().items():
        keyword = keyword_of(key.lower())
        if keyword is None or not accepted or {"*", "ANY", "N/A"} & set(accepted):
            continue
        if key not in conditioned:
            mismatches.append(f"{keyword} is missing (rules: {_few(accepted)})")
        elif str(conditioned[key]) not in set(map(str, accepted)):
            mismatches.append(f"{keyword}={parameters[key]} is none of {_few(accepted)}")
    why = (
        ", ".join(mismatches)
        or f"no rule has these values together, or none begins so early ({' '.join(reason.split())})"
    )
    return f"no {kind} reference file in {context} ({mapping.basename}) for {', '.join(values)}: {why}"


def _few(values: Iterable[Any], limit: int = 12) -> str:
    values = [str(value) for value in values]
    return ", ".join(values[:limit]) + (f", ... ({len(values)} in all)" if len(values) > limit else "")


def selection_key(header: Mapping[str, Any], reftypes: Iterable[str], context: str) -> tuple:
    """What the rules for these types look at: two exposures with the same key get the same reference files.

    The keywords that any of the rules names, as the client conditions them, and between which two dates of use
    (``USEAFTER``) of these rules the exposure was taken. So a program of thousands of exposures asks the rules only
    for the few kinds of exposure that it has.
    """
    parameters = crds_parameters(header)
    instrument = str(parameters.get("META.INSTRUMENT.NAME", ""))
    moment = f"{parameters.get('META.OBSERVATION.DATE')} {parameters.get('META.OBSERVATION.TIME')}"
    reftypes = tuple(sorted(set(reftypes)))
    with crds_client() as crds, single_flight_with_server(), client_errors(f"cannot read the rules of {context}"):
        _require_rules(crds, context, header)
        names, dates = _looked_at(crds, context, instrument, reftypes, client_state())
        conditioned = crds.core.utils.condition_header({name: parameters[name] for name in names if name in parameters})
    return (context, reftypes, tuple(sorted(conditioned.items())), bisect_right(dates, moment))


@lru_cache(maxsize=256)
def _looked_at(
    crds: Any, context: str, instrument: str, reftypes: tuple[str, ...], state: object
) -> tuple[tuple[str, ...], list[str]]:
    """The parameters that the rules for these types name, without the date, and all their dates of use in order."""
    imap = crds.get_pickled_mapping(context, cached=True).get_imap(instrument)
    names, dates = {"META.INSTRUMENT.NAME"}, set()
    for reftype in reftypes:
        if str(imap.selections.get(reftype)).upper() in ("NONE", "N/A", "OMIT"):
            continue
        rules = imap.get_rmap(reftype)
        names.update(rules.get_required_parkeys())
        dates.update(_DATE.findall(Path(crds.locate_mapping(rules.basename)).read_text()))
    return tuple(sorted(names - {"META.OBSERVATION.DATE", "META.OBSERVATION.TIME"})), sorted(dates)


_DATE = re.compile(r"'(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)'")
