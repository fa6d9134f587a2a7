"""``calweave asn``: make, explain, compare, edit and look at associations.

Exit codes: 0 done, 1 error (of ``diff``: they differ), 2 wrong usage.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from astropy.io import fits
from cyclopts import App, Parameter
from rich.console import Console
from rich.tree import Tree

from associations.association import Association, AssociationError, read_association
from associations.differences import Change, find_differences
from associations.edit import add_members, associate_files, choose_members, remove_members
from associations.explain import explain as explain_exposure
from associations.explain import find_orphans
from associations.generator import Options, evaluate
from associations.picture import COLOURS, draw_program
from associations.pool import COLUMNS, Pool, PoolError, make_pool, read_pool
from infra.monitoring import show_logs
from infra.products.fits import read_header
from infra.products.header import Header, ProductError, parse_cards
from infra.provenance import calweave_version
from infra.storage.store import (
    exists,
    fetch,
    folder_of,
    is_local,
    join,
    listing,
    local_path,
    name_of,
    publish,
    read_text,
    require_writable,
    write_text,
    writing,
)
from tasks.options import OptionError

log = logging.getLogger(__name__)

DONE, DIFFERENT = 0, 1

app = App(name="asn", help="Make, explain, compare, edit and look at associations.")
console = Console(stderr=True)
page = Console()

Out = Annotated[
    str, Parameter(name=["-o", "--out"], help="folder or URL for the associations; made if it is not there")
]
Ids = Annotated[
    list[str],
    Parameter(
        name=["-i", "--ids"], negative="", consume_multiple=True, help="only these candidates, such as o001 c1001"
    ),
]
PoolFile = Annotated[str, Parameter(help="a pool: a table of exposures, as `calweave asn pool` writes it")]
Roles = Annotated[
    list[str], Parameter(name=["-t", "--role"], negative="", help="members of this role; may be repeated")
]


@app.command
def generate(
    pool: PoolFile,
    /,
    *,
    out: Out = ".",
    ids: Ids = (),  # type: ignore[assignment]
    discover: Annotated[bool, Parameter(negative="", help="only associations that no candidate plans")] = False,
    all_candidates: Annotated[bool, Parameter(negative="", help="only associations of candidates")] = False,
    dms: Annotated[
        bool,
        Parameter(
            name=["--DMS"],
            negative="",
            help="with --ids: background candidates that share exposures compete, as in the archive",
        ),
    ] = False,
    merge: Annotated[bool, Parameter(negative="", help="one level 2 association for each candidate and type")] = False,
    level: Annotated[Literal[2, 3] | None, Parameter(help="only associations of this level")] = None,
    version_id: Annotated[str | None, Parameter(help="text for the version; 'now' for the time (UTC)")] = None,
    save_orphans: Annotated[
        bool, Parameter(negative="", help="write orphaned.csv: the exposures that are in no association")
    ] = False,
    delimiter: Annotated[str, Parameter(name=["-d", "--delimiter"], help="what stands between the columns")] = "|",
    dry_run: Annotated[bool, Parameter(negative="", help="write nothing, list what would be written")] = False,
) -> int:
    """Make the associations of a pool, and write each into its file; prints their names."""
    _start()
    if sum((bool(ids), discover, all_candidates)) > 1:
        raise OptionError("--ids, --discover and --all-candidates exclude each other; give one of them")
    if dms and not ids:
        raise OptionError("--DMS chooses what competes with the candidates of --ids; give these too")
    table = _read_pool(pool, delimiter)
    if version_id == "now":
        version_id = datetime.now(UTC).strftime("%Y%m%dt%H%M%S")
    if version_id is not None and not version_id.replace("-", "").replace(".", "").isalnum():
        raise OptionError(
            f"--version-id becomes a part of file names: expected letters, digits, - and ., not {version_id!r}"
        )
    options = Options(
        ids=tuple(ids) or None,
        candidates=not discover,
        discover=not all_candidates,
        with_backgrounds=dms,
        levels=(2, 3) if level is None else (level,),
        merge=merge,
        version_id=version_id,
        code_version=calweave_version(),
    )
    outcome = evaluate(table, options)
    orphans = find_orphans(table, outcome)
    if not dry_run:
        require_writable(out)
        for association in outcome.associations:
            write_text(join(out, association.file_name), association.to_json())
        if save_orphans:
            lost = set(orphans)
            rows = tuple(row for row in table.rows if row["filename"] in lost)
            write_text(join(out, "orphaned.csv"), Pool("orphaned.csv", table.columns, rows).to_text())
    for association in outcome.associations:
        print(association.file_name if dry_run else join(out, association.file_name))
    counts = f"{len(table.rows)} exposures, {len(outcome.associations)} associations, {len(orphans)} exposures in none"
    console.print(f"{counts}{'; nothing written' if dry_run else ''}", highlight=False)
    return DONE


@app.command
def pool(
    inputs: Annotated[list[str], Parameter(name="input", help="exposures (_uncal.fits), or folders of them")],
    /,
    *,
    out: Annotated[str, Parameter(name=["-o", "--out"], help="the pool; one that is there grows by the new exposures")],
    candidate: Annotated[
        list[str], Parameter(negative="", help="ID:TYPE, a candidate of the new exposures, such as c1001:background")
    ] = (),  # type: ignore[assignment]
    set_: Annotated[
        list[str],
        Parameter(
            name="--set", negative="", help="COLUMN=VALUE for the new exposures, such as pntgtype=target_acquisition"
        ),
    ] = (),  # type: ignore[assignment]
) -> int:
    """Make a pool from the headers of exposures, or add exposures to it; files that it has already are not read again."""
    _start()
    candidates = [_split(word, ":", "--candidate", "ID:TYPE, such as c1001:background") for word in candidate]
    values = dict(_split(word, "=", "--set", "COLUMN=VALUE, such as is_imprt=t") for word in set_)
    unknown = sorted(set(values) - set(COLUMNS))
    if unknown:
        raise OptionError(f"--set: {', '.join(unknown)} is no column that the rules use; they use {', '.join(COLUMNS)}")
    known = _read_pool(out) if exists(out) else None
    there = {row["filename"] for row in known.rows} if known else set()
    urls = [url for url in _exposures(inputs) if name_of(url).lower() not in there]
    twice = sorted(name for name, count in Counter(map(name_of, urls)).items() if count > 1)
    if twice:
        raise OptionError(f"{', '.join(twice[:3])}: files of one name in two folders; give one of them")
    with ThreadPoolExecutor(16) as workers:
        headers = dict(zip(map(name_of, urls), workers.map(_header, urls), strict=True))
    words: dict[str, dict[str, Any]] = {
        name: {**header, **{column.upper(): value for column, value in values.items()}}
        for name, header in headers.items()
    }
    table = make_pool(words, name_of(out), candidates, known)
    write_text(out, table.to_text())
    console.print(f"{out}: {len(headers)} exposures added, {len(table.rows)} in all", highlight=False)
    return DONE


@app.command
def from_list(
    files: Annotated[list[str], Parameter(name="file", help="files in the folder of the association, or below it")],
    /,
    *,
    out: Annotated[str, Parameter(name=["-o", "--out"], help="the association file")],
    product: Annotated[str | None, Parameter(name=["--product", "--product-name"], help="name of the product")] = None,
    level: Annotated[Literal[2, 3], Parameter(help="3: all files make one product; 2: each its own")] = 3,
    asn_type: Annotated[
        str | None, Parameter(name="--type", help="such as image3; it says which pipeline runs")
    ] = None,
    asn_id: Annotated[str | None, Parameter(name=["-i", "--id"], help="such as o001 or c1001")] = None,
) -> int:
    """Make an association of a list of files."""
    _start()
    folder = folder_of(out)
    names = [_inside(url, folder) for url in files]
    _write(associate_files(names, name_of(out), level=level, product=product, asn_type=asn_type, asn_id=asn_id), out)
    return DONE


@app.command
def gather(
    association: Annotated[str, Parameter(help="an association file")],
    destination: Annotated[str, Parameter(help="folder or URL; made if it is not there")],
    /,
    *,
    source: Annotated[
        str | None, Parameter(name=["-s", "--source"], help="folder of the members; default: beside it")
    ] = None,
    role: Roles = (),  # type: ignore[assignment]
    without: Annotated[
        list[str],
        Parameter(name=["-x", "--without"], negative="", help="leave out members of this role; may be repeated"),
    ] = (),  # type: ignore[assignment]
) -> int:
    """Copy the members of an association, and the association with them, into one folder."""
    _start()
    asn = _read_association(association)
    chosen = choose_members(asn, tuple(role), tuple(without))
    wanted = {name_of(member.expname) for member in chosen.members}
    origin = source or folder_of(association)
    places = {name_of(member.expname): join(origin, member.expname) for member in asn.members}
    missing = sorted(name for name in wanted if not exists(places[name]))
    if missing:
        raise AssociationError(
            f"{association}: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}: {len(missing)} of {len(wanted)} "
            f"members are not in {origin}; name their folder with --source, or leave a role out with --without"
        )
    require_writable(destination)
    for name in sorted(wanted):
        publish(fetch(places[name]), join(destination, name))
    _write(chosen, join(destination, name_of(association)))
    return DONE


@app.command
def edit(
    association: Annotated[str, Parameter(help="an association file")],
    files: Annotated[list[str], Parameter(name="file", help="members to add or to remove")],
    /,
    *,
    add: Annotated[bool, Parameter(name=["-a", "--add"], negative="", help="add the files to every product")] = False,
    remove: Annotated[bool, Parameter(name=["-r", "--remove"], negative="", help="remove the files")] = False,
    role: Annotated[str, Parameter(name=["-t", "--role"], help="role of added files")] = "science",
    ignore_suffix: Annotated[
        bool, Parameter(name=["-i", "--ignore-suffix"], negative="", help="_cal also stands for _rate and so on")
    ] = False,
    out: Annotated[str | None, Parameter(name=["-o", "--out"], help="write there; default: the file itself")] = None,
) -> int:
    """Add members to an association, or remove them."""
    _start()
    if add == remove:
        raise OptionError("say what to do with the files: --add or --remove")
    asn = _read_association(association)
    changed = add_members(asn, files, role) if add else remove_members(asn, files, ignore_suffix=ignore_suffix)
    if changed == asn and out is None:
        console.print(f"{association}: nothing changed", highlight=False)
        return DONE
    _write(changed, out or association)
    return DONE


@app.command
def explain(
    exposure: Annotated[str, Parameter(help="a file of the exposure, of any stage")],
    /,
    *,
    pool: Annotated[str, Parameter(help="the pool that the associations come from")],
    ids: Ids = (),  # type: ignore[assignment]
) -> int:
    """Say why an exposure is in its associations and in no others: each rule, and the first condition that failed."""
    _start()
    answer = explain_exposure(_read_pool(pool), exposure, Options(ids=tuple(ids) or None))
    print(f"{answer.filename}: role {answer.role}, candidates {answer.candidates}")
    if answer.places:
        for association, product, role in answer.places:
            print(f"  in {association.file_name} ({association.asn_type}) as {role} of {product}")
    else:
        print("  in no association")
    for matched, heading in ((True, "Rules that it passes"), (False, "Rules that it does not pass")):
        print(f"\n{heading}")
        for rule in (a for a in answer.answers if a.matched is matched):
            first, *rest = rule.lines or ("joins nothing here",)
            print(f"  {rule.rule:22s} {first}")
            for line in rest:
                print(f"  {'':22s} {line}")
    return DONE


@app.command
def diff(
    before: Annotated[str, Parameter(help="a folder of associations, an association or a pool")],
    now: Annotated[str, Parameter(help="another one")],
    /,
) -> int:
    """Say in which products and members two sets of associations differ; exit code 1 if they do."""
    _start()
    changes = find_differences(_associations(before), _associations(now))
    for change in changes:
        for line in _lines(change):
            print(line)
    console.print(f"{len(changes)} products differ" if changes else "no difference", highlight=False)
    return DIFFERENT if changes else DONE


@app.command
def show(
    source: Annotated[str, Parameter(help="an association, a folder of associations or a pool")],
    /,
    *,
    picture: Annotated[str | None, Parameter(help="also draw it, into this file (.png, .svg or .pdf)")] = None,
) -> int:
    """Show an association, or all of a program, as a tree."""
    _start()
    if picture is not None and Path(picture).suffix not in (".png", ".svg", ".pdf"):
        raise OptionError(f"--picture: expected a name that ends in .png, .svg or .pdf, but got {picture}")
    associations = _associations(source)
    trees: dict[tuple[str, str], Tree] = {}
    for association in associations:
        key = (association.program or "no program", association.asn_id or "no candidate")
        if key not in trees:
            trees[key] = Tree(f"[bold]program {key[0]}, {key[1]}[/]")
        branch = trees[key].add(f"{association.file_name} [dim]{association.asn_type}[/]")
        for product in association.products:
            leaf = branch.add(f"[bold]{_plain(product.name)}[/]")
            for member in product.members:
                colour = COLOURS.get(member.exptype, "default")
                leaf.add(f"{_plain(member.expname)} [{colour}]{_plain(member.exptype)}[/]")
    for tree in trees.values():
        page.print(tree, highlight=False, soft_wrap=True)
    if picture is not None:
        figure = draw_program(associations)
        with writing(picture) as path:
            figure.savefig(path, dpi=110)
        console.print(f"wrote {picture}", highlight=False)
    return DONE


def _start() -> None:
    show_logs(console)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def _read_pool(url: str, delimiter: str = "|") -> Pool:
    try:
        text = read_text(url)
    except UnicodeDecodeError as error:
        raise PoolError(f"{url}: expected text (UTF-8), but byte {error.start} is none; is it a pool?") from error
    return read_pool(text, name_of(url), delimiter)


def _read_association(url: str) -> Association:
    try:
        text = read_text(url)
    except UnicodeDecodeError as error:
        raise AssociationError(
            f"{url}: expected text (UTF-8), but byte {error.start} is none; is it an association?"
        ) from error
    return read_association(text, name_of(url))


def _associations(url: str) -> list[Association]:
    """Of a file, a folder or a pool."""
    if url.endswith(".json"):
        return [_read_association(url)]
    if url.endswith((".csv", ".txt")):
        return list(evaluate(_read_pool(url), Options()).associations)
    found = [_read_association(name) for name in listing(url, "*_asn.json")]
    if not found:
        raise AssociationError(f"{url}: expected files *_asn.json in this folder, but there are none")
    return found


def _write(association: Association, url: str) -> None:
    """Write an association that can be read again."""
    text = association.to_json()
    read_association(text, name_of(url))
    write_text(url, text)
    print(url)


def _inside(url: str, folder: str) -> str:
    """The name of a file from the folder of its association."""
    if is_local(url) and is_local(folder):
        path, root = Path(local_path(url)).resolve(), Path(local_path(folder)).resolve()
        if not path.is_relative_to(root):
            raise AssociationError(
                f"{url}: expected a file in {root} or below it, as the association looks for its members there; write the "
                "association where the files are, or copy them"
            )
        return path.relative_to(root).as_posix()
    return name_of(url)


def _exposures(inputs: Iterable[str]) -> Iterator[str]:
    for url in inputs:
        if url.endswith((".fits", ".fits.gz")):
            yield url
        else:
            found = listing(url, "**/*_uncal.fits*")
            if not found:
                raise ProductError(f"{url}: expected exposures *_uncal.fits in this folder, but there are none")
            yield from found


def _header(url: str) -> Header:
    """The header of an exposure; of one in an object store only its first blocks are read."""
    if is_local(url):
        return read_header(local_path(url))
    with fits.open(url, use_fsspec=True, lazy_load_hdus=True) as hdulist:
        found = {"PRIMARY": hdulist[0].header}
        if len(hdulist) > 1 and hdulist[1].name == "SCI":
            found["SCI"] = hdulist[1].header
        return parse_cards(found)


def _split(word: str, mark: str, option: str, form: str) -> tuple[str, str]:
    head, found, tail = word.partition(mark)
    if not (head and found and tail):
        raise OptionError(f"{option}: expected {form}, but got {word!r}")
    return head.lower(), tail.lower()


def _lines(change: Change) -> Iterator[str]:
    sign = {"added": "+", "removed": "-", "changed": "~"}[change.kind]
    yield f"{sign} {change.asn_type} {change.name}"
    if change.kind == "changed":
        for name, role in change.removed:
            yield f"    - {name} ({role})"
        for name, role in change.added:
            yield f"    + {name} ({role})"
        for name, before, now in change.moved:
            yield f"    ~ {name} ({before} -> {now})"
