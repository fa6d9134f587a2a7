"""``calweave wfss``: what a user of slitless spectra does with the products of a run."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from associations.association import Association, read_association
from flows.graph import expand, read_headers
from flows.making import now
from flows.plan import survey
from flows.program import make_stale
from flows.stage import Overrides
from infra.products.header import ProductError
from infra.products.user_catalog import listed, read_user_catalog
from infra.sidecar import Record, read_records
from infra.storage.lock import locked
from infra.storage.store import (
    exists,
    fetch,
    fetched,
    folder_of,
    is_local,
    join,
    local_path,
    name_of,
    publish,
    read_text,
    stat_folder,
    write_text,
)
from tasks.options import OptionError, merge_overrides

log = logging.getLogger(__name__)

NAMED = 4  # sources in the name of a folder


def reextract(
    folder: str, sources: Sequence[int], output: str | None, overrides: Overrides, slots: int
) -> Mapping[str, Any]:
    """Make the spectra of a few sources of an earlier run anew; returns the record of it, as in ``run.json``.

    What it makes goes into a folder of its own, with records and a report of its own: products and records of the
    run stay as they are, and are told apart from these. The same steps run on the same inputs, on fewer sources.

    Parameters
    ----------
    folder : str
        URL of the output folder of the run.
    sources : sequence of int
        Numbers in its catalog.
    output : str or None
        URL of the folder to write; by default one in ``folder`` that is named by the sources.
    overrides : mapping
        Options that are to be other than those of the run.
    slots : int
        Products made at the same time.

    Raises
    ------
    ProductError
        If the folder has no slitless spectra, or its catalog not one of the sources.
    """
    begun = now(), time.monotonic()
    folder = folder.rstrip("/")
    sources = sorted(set(sources))
    if output is None:
        names = "-".join(map(str, sources[:NAMED]))
        more = f"-and-{len(sources) - NAMED}-more" if len(sources) > NAMED else ""
        output = join(folder, f"reextracted-{names}{more}")
    if output.rstrip("/") == folder:
        raise OptionError(f"--out {output} is the folder of the run, whose products must stay; choose another")
    with locked(folder), locked(output):
        records = {
            name: record
            for name, record in read_records(folder, stat_folder(folder)).items()
            if record.stage in ("spec2", "spec3") and record.state == "done"
        }
        first = [record for record in records.values() if record.stage == "spec2"]
        if not first:
            raise ProductError(
                f"{folder}: expected the products of a run with slitless spectra (records of spec2 in .calweave), but there "
                "are none; give the --out folder of `calweave run`"
            )
        associations = dict(_association(record, folder, output) for record in records.values())
        require_sources(sources, first, associations.values(), folder)
        merged = merge_overrides(first[0].overrides, {"extract_2d": {"source_ids": sources}}, overrides)
        if merged.get("wfss_contam", {}).get("polyfit_degree") is not None:
            log.warning(
                "the spectra of neighbours that are not extracted are not fitted: wfss_contam takes them as flat"
            )
        rates = [
            join(folder, name) for record in first for name in record.recipe["inputs"] if name.endswith("_rate.fits")
        ]
        headers = read_headers(filter(exists, rates[:1]))  # it tells which program this is
        scene = survey(expand({}, associations), associations, headers, output, merged, fetch=True)
        return make_stale(scene, list(associations), begun, slots)


def _association(record: Record, folder: str, output: str) -> tuple[str, Association]:
    """The association of a record, by a URL beside which, or in ``output``, its members are.

    One that was given with the raw exposures has its products in another folder: it is brought to ``output``, with what
    it needs of ``folder``.
    """
    name = name_of(record.target)
    url = join(folder, name)
    if exists(url):
        return url, read_association(read_text(url), name)
    if not exists(record.target):
        raise ProductError(
            f"{record.node}: its association {record.target} is no longer there, nor in {folder}; put it there"
        )
    association = read_association(read_text(record.target), name)
    url = write_text(join(output, name), association.to_json())
    if record.stage == "spec2":
        for member in dict.fromkeys(member.expname for member in association.members):
            places = [join(folder, member), join(folder_of(record.target), member)]
            place = next((place for place in places if exists(place)), None)
            if place is not None and not exists(join(output, member)):
                _bring(place, join(output, member))
    return url, association


def _bring(place: str, url: str) -> None:
    if is_local(place) and is_local(url):
        target = Path(local_path(url))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(Path(local_path(place)).resolve())
    else:
        publish(fetch(place), url)


def require_sources(
    sources: Sequence[int], records: Sequence[Record], associations: Iterable[Association], folder: str
) -> None:
    """See that the catalogs of a run have these sources.

    Raises
    ------
    ProductError
        Naming those that none has.
    """
    own = {name for record in records for name in record.products if name.endswith("_cat.ecsv")}
    members = {m.expname for association in associations for m in association.members if m.exptype == "sourcecat"}
    known: set[int] = set()
    names = sorted(own or members)
    for name in names:
        with fetched(join(folder, name)) as path:
            known |= set(read_user_catalog(path).label.tolist())
    absent = [number for number in sources if number not in known]
    if absent:
        raise ProductError(
            f"{names[0] if names else folder}: there is no source {listed(absent)}; its {len(known)} sources are "
            f"numbered {min(known, default=0)} to {max(known, default=0)}"
        )
