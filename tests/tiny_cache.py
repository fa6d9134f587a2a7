"""A hand-made reference cache for tests: a context of one instrument, with the files and rules that a test gives."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

CONTEXT = "jwst_0001.pmap"
DATES = ("META.OBSERVATION.DATE", "META.OBSERVATION.TIME")


def write_cache(
    folder: Path, rules: Mapping[str, Mapping | str], instrument: str = "NIRISS", config: Mapping | None = None
) -> Path:
    """Write the rules of a cache into ``folder``.

    ``rules`` maps a type to ``"N/A"``, or to (keys -> file): keys are the values of DETECTOR and SUBARRAY, or of those
    and a date from which the rule is valid.
    """
    mappings = folder / "mappings" / "jwst"
    mappings.mkdir(parents=True, exist_ok=True)
    name = instrument.lower()
    chosen = {}
    for reftype, matches in rules.items():
        if isinstance(matches, str):
            chosen[reftype] = matches
            continue
        entries = {}
        for (detector, subarray, *since), file in matches.items():
            date = since[0] if since else "2020-01-01 00:00:00"
            entries.setdefault((detector, subarray), {})[date] = file
        body = ",\n".join(f"    {key!r} : UseAfter({dates!r})" for key, dates in entries.items())
        chosen[reftype] = f"jwst_{name}_{reftype}_0001.rmap"
        header = {
            "mapping": "REFERENCE", "observatory": "JWST", "instrument": instrument, "filekind": reftype.upper(),
            "name": chosen[reftype], "derived_from": "none",
            "parkey": (("META.INSTRUMENT.DETECTOR", "META.SUBARRAY.NAME"), DATES),
        }  # fmt: skip
        _write(mappings / chosen[reftype], header, f"selector = Match({{\n{body}\n}})")
    imap = {
        "mapping": "INSTRUMENT", "observatory": "JWST", "instrument": instrument, "name": f"jwst_{name}_0001.imap",
        "derived_from": "none", "parkey": ("REFTYPE",),
    }  # fmt: skip
    _write(mappings / imap["name"], imap, f"selector = {chosen!r}")
    pmap = {
        "mapping": "PIPELINE", "observatory": "JWST", "name": CONTEXT, "derived_from": "none",
        "parkey": ("META.INSTRUMENT.NAME",),
    }  # fmt: skip
    _write(mappings / CONTEXT, pmap, f"selector = {{{instrument!r}: {imap['name']!r}}}")
    settings = {
        "observatory": "jwst", "operational_context": CONTEXT, "bad_files_list": [],
        "last_synced": "2026-01-01 00:00:00",
    }  # fmt: skip
    target = folder / "config" / "jwst" / "server_config"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(repr({**settings, **(config or {})}))
    references_folder(folder, instrument).mkdir(parents=True, exist_ok=True)
    return folder


def references_folder(cache: Path, instrument: str = "NIRISS") -> Path:
    """Where the cache keeps the reference files of an instrument."""
    return cache / "references" / "jwst" / instrument.lower()


def copy_cache(source: Path, target: Path) -> Path:
    """A copy of a real cache that can be written: the client may make folders in the cache that it reads."""
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for folder in [target, *(path for path in target.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    return target


def _write(path: Path, header: Mapping, selector: str) -> None:
    lines = ["header = {", *(f"    {key!r} : {value!r}," for key, value in header.items())]
    rest = ["}", "", *selector.splitlines()]
    digest = hashlib.sha1("\n".join([*lines, *rest, ""]).encode()).hexdigest()
    path.write_text("\n".join([*lines, f"    'sha1sum' : {digest!r},", *rest, ""]))
