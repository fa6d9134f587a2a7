"""The story of a product, ``calweave explain``, and the proof of it, ``calweave reproduce``: made again, bit for bit."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from astropy.io import fits
from rich.console import Console
from rich.markup import escape

from flows.graph import Node
from flows.making import Job, make
from flows.plan import MADE
from infra.errors import one_line
from infra.products.catalog import read_catalog
from infra.products.fits import read_fits, read_header
from infra.products.header import ProductError
from infra.provenance import code_of
from infra.sidecar import Record, read_records, sha256_of
from infra.storage.store import (
    exists,
    fetched,
    folder_of,
    is_local,
    join,
    local_path,
    name_of,
    read_text,
    stat_folder,
)

log = logging.getLogger(__name__)


def tell_story(url: str, console: Console) -> None:
    """Print what made a product, of what, by which steps with which options and reference files, and whether it is current.

    Raises
    ------
    ProductError
        If it is no product, or there is none.
    """
    name = name_of(url)
    records = records_beside(url)
    record = record_of(name, records)
    recipe, made_of, lines = _inside(url)
    console.print(f"[bold]{escape(name)}[/]", highlight=False)
    for line in lines:
        console.print(f"  {line}", highlight=False, soft_wrap=True)
    if record is not None:
        memory = f", {record.peak_memory_bytes / 1e9:.2f} GB" if record.peak_memory_bytes else ""
        cost = f"{record.seconds:.1f} s ({record.cpu_seconds:.1f} s of CPU{memory})"
        console.print(
            f"  made by {record.stage} for {record.node} in {cost}, attempt {record.attempts}, ended {record.ended}",
            highlight=False,
            soft_wrap=True,
        )
    inputs = made_of.get("inputs") or ({} if record is None else record.recipe["inputs"])
    if inputs:
        console.print("of", highlight=False)
    for member, content in inputs.items():
        console.print(f"  {escape(member)}  {_origin(content, records)}", highlight=False, soft_wrap=True)
    for member in made_of.get("left_out", ()):
        console.print(
            f"  [yellow]without {escape(member)}[/], which did not come to be", highlight=False, soft_wrap=True
        )
    if recipe:
        console.print("by", highlight=False)
    for step, entry in recipe.items():
        if isinstance(entry, Mapping) and "status" in entry:
            console.print(f"  {_step(step, entry)}", highlight=False, soft_wrap=True)
    console.print(_currency(url, name, record), highlight=False, soft_wrap=True)


def _inside(url: str) -> tuple[Mapping[str, Any], Mapping[str, Any], list[str]]:
    """What a product itself tells: its recipe, what it is made of, and lines from its header."""
    with fetched(url) as path:
        if name_of(url).endswith(".ecsv"):
            catalog = read_catalog(path)
            return catalog.recipe, catalog.table.meta.get("calweave_made_of", {}), [f"{len(catalog.table)} sources"]
        contents = read_fits(path)
    header = contents.header
    what = (
        header.get("INSTRUME"),
        header.get("EXP_TYPE"),
        header.get("FILTER"),
        header.get("PUPIL"),
        header.get("TARGNAME"),
    )
    lines = [" ".join(str(value) for value in what if value)]
    lines.append(f"{header.get('CAL_VER')}, reference files of {header.get('CRDS_CTX')}, written {header.get('DATE')}")
    return contents.recipe, contents.made_of, lines


def _origin(content: str | None, records: Mapping[str, Record]) -> str:
    if content is None:
        return "(unknown)"
    if not content.startswith(MADE):
        return f"SHA-256 {content[:12]}"
    maker = next((r for r in records.values() if r.fingerprint == content.removeprefix(MADE)), None)
    return f"of {maker.node}" if maker is not None else "of a node that was made anew since"


def _step(name: str, entry: Mapping[str, Any]) -> str:
    words = [f"{name}: {entry['status'].lower()}"]
    if entry.get("reason"):
        words.append(f"({entry['reason']})")
    if entry.get("options"):
        words.append(" ".join(f"{key}={value}" for key, value in entry["options"].items()))
    for reference, sha1 in entry.get("references", {}).items():
        words.append(f"[{reference} {sha1[:8]}]")
    return escape("  ".join(words))


def _currency(url: str, name: str, record: Record | None) -> str:
    """Whether the product is current, for the inputs and options of the last run of its folder."""
    if record is None:
        return "[yellow]there is no record of it[/] beside it, so whether it is current cannot be told"
    page = join(folder_of(url), "run.json")
    if not exists(page):
        return "[yellow]there is no run.json[/] beside it, so whether it is current cannot be told"
    from flows.program import make_plan

    run = json.loads(read_text(page))
    try:
        plan = make_plan(run["inputs"], folder_of(url), run.get("overrides", {}), 1, product=name)
    except Exception as error:
        if not one_line(error)[0]:
            raise
        return f"[yellow]whether it is current cannot be told:[/] {escape(one_line(error)[1])}"
    reasons: list[str] = next((node["reasons"] for node in plan["nodes"] if node["name"] == record.node), [])
    return f"[red]it is not current:[/] {escape('; '.join(reasons))}" if reasons else "[green]it is current[/]"


def records_beside(url: str) -> dict[str, Record]:
    """The records of the folder that a product is in."""
    folder = folder_of(url)
    return read_records(folder, stat_folder(folder))


def record_of(name: str, records: Mapping[str, Record]) -> Record | None:
    """The record that tells of a product."""
    return next((record for record in records.values() if name in record.products), None)


def reproduce(url: str, console: Console) -> bool:
    """Make a product again from its recorded inputs, in a temporary folder; whether every bit of it is the same.

    Raises
    ------
    ProductError
        If there is no record of it, or an input is no longer what it was.
    """
    name = name_of(url)
    records = records_beside(url)
    record = record_of(name, records)
    if record is None:
        raise ProductError(
            f"{name}: there is no record of it in {join(folder_of(url), '.calweave')}; only products of `calweave run` can be "
            "made again"
        )
    if dict(record.recipe["code"]) != dict(code_of(f"flows.{record.stage}")):
        console.print("[yellow]the code is not the one that made it[/]: what comes may differ", soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="calweave-") as folder, _as_then(url):
        inputs, output = Path(folder) / "in", Path(folder) / "out"
        inputs.mkdir()
        raw = _stage_inputs(url, record, records, inputs)
        target = inputs / name_of(record.target)
        node = Node(record.node, record.stage, str(target), reads=dict.fromkeys(record.recipe["inputs"]))
        outcome = make(Job(node, str(output), record.overrides, record.recipe, raw=raw))
        if outcome.state == "failed":
            raise ProductError(f"{name} could not be made again: {outcome.error}")
        made = output / name
        if not made.is_file():
            raise ProductError(f"{name} was not made again, but {', '.join(outcome.products) or 'nothing'}")
        with fetched(url) as path:
            same = sha256_of(path) == sha256_of(made)
            if same:
                console.print(f"{name}: the same, bit for bit ({made.stat().st_size} bytes)", soft_wrap=True)
            else:
                console.print(f"[red]{name}: not the same[/]", soft_wrap=True)
                if name.endswith(".fits"):
                    console.print(escape(fits.FITSDiff(path, made).report()), highlight=False, soft_wrap=True)
    return same


def _stage_inputs(url: str, record: Record, records: Mapping[str, Record], folder: Path) -> dict[str, str]:
    """Put what a node reads into ``folder``, each file as it was; returns where the raw inputs are, by name."""
    raw = {}
    for member, content in record.recipe["inputs"].items():
        places = [join(folder_of(url), member), join(folder_of(record.target), member)]
        if member == name_of(record.target):
            places = [record.target]
        place = next((place for place in places if exists(place)), None)
        if place is None:
            raise ProductError(f"{record.node}: its input {member} is no longer there ({' or '.join(places)})")
        with fetched(place) as path:
            if content.startswith(MADE):
                maker = next((r for r in records.values() if r.fingerprint == content.removeprefix(MADE)), None)
                expected = None if maker is None else maker.products.get(member)
                same = expected is not None and sha256_of(path) == expected.sha256
            else:
                same = sha256_of(path) == content
                raw[member] = str(folder / member)
            if not same:
                raise ProductError(
                    f"{record.node}: its input {member} is no longer what it was made of; run again, and then reproduce"
                )
            _put(place, path, folder / member)
    if name_of(record.target) not in record.recipe["inputs"]:
        with fetched(record.target) as path:
            _put(record.target, path, folder / name_of(record.target))
    return raw


def _put(place: str, path: str, target: Path) -> None:
    if is_local(place):
        target.symlink_to(Path(local_path(place)).resolve())
    else:
        shutil.copyfile(path, target)


@contextmanager
def _as_then(url: str) -> Iterator[None]:
    """The date and the context of a product, for those that are made within."""
    wanted = {}
    if name_of(url).endswith(".fits"):
        with fetched(url) as path:
            header = read_header(path)
        moment = datetime.fromisoformat(str(header.require("DATE"))).replace(tzinfo=UTC)
        wanted["SOURCE_DATE_EPOCH"] = f"{moment.timestamp():.3f}"
        if header.get("CRDS_CTX"):
            wanted["CRDS_CONTEXT"] = str(header.get("CRDS_CTX"))
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
