"""Pack the references of a planned run into one folder, itself a reference cache, for a machine without network."""

import hashlib
import logging
import os
import pprint
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infra.references.client import OBSERVATORY, ReferenceCacheError, client_errors, context_name, crds_client
from infra.references.fetch import sha1_of
from infra.references.select import select_references

log = logging.getLogger(__name__)


def pack_references(
    requests: Iterable[tuple[Mapping[str, Any], Iterable[str]]], folder: str | Path, context: str | None = None
) -> Path:
    """Write all reference files that a run needs, and the rules that choose them, into one folder.

    With ``CRDS_PATH`` set to that folder and no server the same exposures get the same files. A list of sizes and SHA-1
    goes with them, so that they are checked again where they are used.

    Parameters
    ----------
    requests : iterable of (header, reference types)
        What is planned: for each exposure its header and the types that its steps (and their parameters) ask for.
    folder : path
        New or empty, or an earlier pack of the same context, to which is added.
    context : str, optional
        Name of the context.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ReferenceNotFound, ReferenceCacheError
        As ``select_references``; also if the folder holds something else, or cannot be written.
    """
    requests = [(header, list(reftypes)) for header, reftypes in requests]
    name = context_name(context)
    folder = Path(folder)
    config = folder / "config" / OBSERVATORY / "server_config"
    earlier = _earlier(folder, config, name)

    sources: dict[Path, Path] = {}
    instruments = set()
    for header, reftypes in requests:
        instruments.add(str(header["INSTRUME"]).lower())
        for path in select_references(header, reftypes, name).files.values():
            if path is not None:
                source = Path(path)
                sources[Path("references", OBSERVATORY, str(header["INSTRUME"]).lower(), source.name)] = source
    known = dict(earlier.get("download_metadata", {}))
    for target, source in sources.items():
        known[target.name] = {"size": str(source.stat().st_size), "sha1sum": sha1_of(source)}
    with crds_client() as crds:
        bad = crds.core.heavy_client.get_config_info(OBSERVATORY).bad_files_list
    try:
        for mapping in _mappings(name, instruments):
            sources[Path("mappings", OBSERVATORY, mapping.name)] = mapping
        for target, source in sources.items():
            _copy(source, folder / target)
        _write(config.with_name("ref_cache_subdir_mode"), "instrument\n")
        # Written last: a folder without it is no cache, so half a pack is never taken for a whole one.
        settings = {
            "observatory": OBSERVATORY,
            "operational_context": name,
            "latest_context": name,
            "bad_files_list": sorted(bad),
            "last_synced": "packed",
            "download_metadata": known,
        }
        _write(config, pprint.pformat(settings) + "\n")
    except OSError as error:
        raise ReferenceCacheError(
            f"cannot write the pack {folder}: {error.strerror} ({error.filename}); choose a folder "
            "that can be written, with room for the files"
        ) from error
    log.info("references: %d files packed in %s for %d exposures, context %s", len(known), folder, len(requests), name)
    return folder


def _earlier(folder: Path, config: Path, context: str) -> Mapping[str, Any]:
    """Settings of an earlier pack in this folder, nothing if it is new."""
    import ast

    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    try:
        settings = ast.literal_eval(config.read_text())
    except (OSError, ValueError, SyntaxError) as error:
        raise ReferenceCacheError(f"{folder} is not empty and is no pack of references; choose a new folder") from error
    if settings.get("last_synced") != "packed" or settings.get("operational_context") != context:
        raise ReferenceCacheError(
            f"{folder} is of {settings.get('operational_context')}, not a pack of {context}; choose a new folder"
        )
    return settings


def _mappings(context: str, instruments: Iterable[str]) -> list[Path]:
    """Files of the rules: the context, and all rules of these instruments."""
    with crds_client() as crds, client_errors(f"cannot read the rules of {context}"):
        rules = crds.get_pickled_mapping(context, cached=True)
        names = [context]
        for instrument in instruments:
            names += rules.get_imap(instrument).mapping_names()
        return [Path(crds.locate_mapping(name)) for name in sorted(set(names))]


def _copy(source: Path, target: Path) -> None:
    """Copy a file whole or not at all, unless it is there already."""
    if target.is_file() and target.stat().st_size == source.stat().st_size and sha1_of(target) == sha1_of(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, aside)
        if _sha1(aside) != sha1_of(source):
            raise ReferenceCacheError(f"{target} came out different from {source}; is the disk sound?")
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _sha1(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()
