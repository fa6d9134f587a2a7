"""The program flow: from a folder of exposures, a pool or associations to every product, each as soon as its inputs exist.

Associations are expanded into a graph with one node per exposure (stage 1) and per association (stages 2 and 3). There
are no barriers between the stages: a node starts the moment that the files it needs are there, so the catalog and the
segmentation map of image3 start the WFSS spec2 that waits for them. A node that fails stops only what needs it.
"""

import contextlib
import json
import logging
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Failed, State
from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from associations.association import Association, read_association
from associations.generator import generate
from associations.pool import make_pool, merge_pools, read_pool
from flows.dark import dark, dark_steps
from flows.detector1 import all_steps, detector1
from flows.guider import STEPS as GUIDER_STEPS
from flows.guider import guider
from flows.image2 import ALL_STEPS as IMAGE2_STEPS
from flows.image2 import image2
from flows.image3 import ALL_STEPS as IMAGE3_STEPS
from flows.image3 import image3
from flows.report import write_report
from flows.spec2 import ALL_STEPS as SPEC2_STEPS
from flows.spec2 import WFSS_TYPES, spec2
from flows.spec3 import ALL_STEPS as SPEC3_STEPS
from flows.spec3 import spec3
from flows.stage import IMAGE_TYPES, Overrides, prepare, reftypes_of
from infra.errors import one_line
from infra.observed import ObservedFlow, ObservedTask, is_observed
from infra.products.fits import read_header
from infra.products.header import Header, ProductError
from infra.products.names import base_of, suffix_of
from infra.provenance import versions
from infra.references.client import context_name
from infra.references.pack import pack_references
from infra.storage.store import StorageError, fetch, folder_of, join, listing, name_of, read_text, write_text
from tasks.step import NothingToDo

log = logging.getLogger(__name__)

STAGE_FLOWS: Mapping[str, Callable[..., list[str]]] = {
    "detector1": detector1,
    "dark": dark,
    "guider": guider,
    "image2": image2,
    "image3": image3,
    "spec2": spec2,
    "spec3": spec3,
}

#: Steps of each pipeline for an exposure, to fetch their reference files before anything runs.
PIPELINE_STEPS: Mapping[str, Callable[[Header], tuple]] = {
    "detector1": all_steps,
    "dark": dark_steps,
    "guider": lambda header: GUIDER_STEPS,
    "image2": lambda header: IMAGE2_STEPS,
    "image3": lambda header: IMAGE3_STEPS,
    "spec2": lambda header: SPEC2_STEPS,
    "spec3": lambda header: SPEC3_STEPS,
}

DARK_TYPES = frozenset("FGS_DARK MIR_DARKALL MIR_DARKIMG MIR_DARKMRS NRC_DARK NIS_DARK NRS_DARK".split())
GUIDER_TYPES = frozenset("FGS_ID-IMAGE FGS_ID-STACK FGS_ACQ1 FGS_ACQ2 FGS_TRACK FGS_FINEGUIDE".split())


@dataclass(frozen=True)
class Node:
    """One thing to make: an exposure through stage 1, or an association through its stage.

    ``needs`` names the nodes that must be done before it starts; ``stage`` is its flow, ``target`` the flow's input.
    """

    name: str
    stage: str
    target: str
    needs: tuple[str, ...] = ()


#: Suffix of what a stage 1 pipeline makes.
SUFFIX = {"detector1": "rate", "dark": "dark", "guider": "cal"}


@dataclass(frozen=True)
class Outcome:
    """How a node ended: ``state`` is done, empty (nothing on the detector), failed or blocked."""

    state: str
    products: tuple[str, ...] = ()
    error: str | None = None
    started: str | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0


DONE = Outcome("done")

#: Called with each node and its outcome, and once before with None and the number of nodes.
WATCHER: ContextVar[Callable[[Any, Any], None]] = ContextVar("watcher", default=lambda node, outcome: None)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def stage_of(header: Header) -> str:
    """The stage 1 pipeline for an exposure; detector1 itself says so where it does not know the EXP_TYPE."""
    exp_type = header.get("EXP_TYPE")
    return "dark" if exp_type in DARK_TYPES else "guider" if exp_type in GUIDER_TYPES else "detector1"


def pipelines_of(header: Header) -> tuple[str, ...]:
    """All the pipelines that a science exposure goes through, as far as they are built."""
    stage = stage_of(header)
    if stage != "detector1":
        return (stage,)
    if header.get("EXP_TYPE") in WFSS_TYPES:
        return (stage, "spec2", "spec3")
    return (stage, "image2", "image3") if header.get("EXP_TYPE") in IMAGE_TYPES else (stage,)


def find_exposures(inputs: Sequence[str]) -> tuple[dict[str, str], Mapping[str, list[str]], dict[str, Header]]:
    """The exposures that the inputs name (URL -> stage), the pools and associations, and the headers that can be read.

    An input is a folder (with its pool and associations, where it has them), a pool, an association or an exposure.

    Raises
    ------
    ProductError
        If there is nothing to calibrate.
    """
    urls: dict[str, None] = {}
    tables: dict[str, list[str]] = {"pool": [], "asn": []}
    for url in inputs:
        if url.endswith(".json"):
            tables["asn"].append(url)
        elif url.endswith(".csv"):
            tables["pool"].append(url)
        elif url.endswith((".fits", ".fits.gz")):
            urls[url] = None
        else:
            urls |= dict.fromkeys(listing(url, "**/*_uncal.fits*"))
            tables["pool"] += listing(url, "*_pool.csv")
            tables["asn"] += listing(url, "*_asn.json")
    # The exposures of a pool or association are beside it; the folders that were given are listed already.
    beside = dict.fromkeys(folder_of(url) for url in inputs if url.endswith((".csv", ".json")))
    for folder in beside:
        urls |= dict.fromkeys(listing(folder, "**/*_uncal.fits*"))
    if not urls and not tables["asn"]:
        raise ProductError(
            f"{' '.join(inputs)}: expected *_uncal.fits exposures, a pool (*_pool.csv) or associations (*_asn.json), but "
            "there are none; check the folder"
        )
    headers: dict[str, Header] = {}
    for url in urls:
        try:
            headers[url] = read_header(fetch(url))
        except (ProductError, StorageError) as error:
            log.error("%s", error)
    return {url: stage_of(headers[url]) if url in headers else "detector1" for url in urls}, tables, headers


def gather(inputs: Sequence[str], output: str) -> tuple[dict[str, str], dict[str, Association], dict[str, Header]]:
    """What a run is about: exposures with their stage, associations, and the headers of the exposures that have one.

    Where no association is given they are generated, from the pool or from the headers, and written into ``output``.
    """
    exposures, tables, headers = find_exposures(inputs)
    associations = {url: read_association(read_text(url), name_of(url)) for url in tables["asn"]}
    if not associations:
        if tables["pool"]:
            pool = merge_pools([read_pool(read_text(url), name_of(url)) for url in tables["pool"]])
        else:
            pool = make_pool({name_of(url): header for url, header in headers.items()})
        for association in generate(pool):
            url = join(output, association.file_name)
            write_text(url, association.to_json())
            associations[url] = association
    return exposures, associations, headers


def fetch_plan(headers: Iterable[Header], overrides: Overrides) -> int:
    """Choose and fetch the reference files of all that will run, by this one process; returns how many there are.

    What is missing is an error of the exposure that needs it, when its turn comes, and a warning here.
    """
    files: set[str] = set()
    for header in headers:
        for pipeline in pipelines_of(header):
            try:
                references, _ = prepare(header, PIPELINE_STEPS[pipeline](header), overrides, pipeline)
            except Exception as error:
                if not one_line(error)[0]:
                    raise
                log.warning("%s: %s", pipeline, one_line(error)[1])
            else:
                files.update(path for path in references.files.values() if path is not None)
    return len(files)


def expand(exposures: Mapping[str, str], associations: Mapping[str, Association]) -> tuple[Node, ...]:
    """The graph of a program: a node for each exposure and for each association, which says what it waits for.

    Parameters
    ----------
    exposures : mapping
        URL of an ``_uncal`` exposure -> its stage.
    associations : mapping
        URL of an association file -> its content.

    Notes
    -----
    A file that no node makes is no dependency: it must be there when the node starts. Two associations that make one
    product would write one file twice, so the second is left out (a candidate that repeats an observation).
    """
    raw = {base_of(url): f"{base_of(url)}_{SUFFIX[stage]}" for url, stage in exposures.items()}
    nodes = [Node(raw[base_of(url)], stage, url) for url, stage in sorted(exposures.items())]
    made: dict[str, str] = {}
    kept: list[tuple[str, str, Association]] = []
    for url, association in sorted(associations.items()):
        name = name_of(url).removesuffix("_asn.json")
        products = [product.name for product in association.products]
        twice = [product for product in products if product in made]
        if twice:
            log.warning("%s makes %s, which %s makes already; left out", name, twice[0], made[twice[0]])
            continue
        made.update(dict.fromkeys(products, name))
        kept.append((name, url, association))
    for name, url, association in kept:
        members = dict.fromkeys(member.expname for product in association.products for member in product.members)
        needs = []
        for member in members:
            maker = (raw if suffix_of(member) in ("rate", "rateints") else made).get(base_of(member))
            if maker is not None and maker != name:
                needs.append(maker)
        nodes.append(Node(name, pipeline_of(association), url, tuple(dict.fromkeys(needs))))
    return tuple(nodes)


def pipeline_of(association: Association) -> str:
    """The pipeline of an association type: ``tso-image2`` goes through image2, ``nrslamp-spec2`` through spec2."""
    return association.asn_type.rsplit("-", 1)[-1] if association.asn_type.endswith("2") else association.asn_type


def make_node(node: Node, output: str, overrides: Overrides) -> Any:
    """Make one node by its stage flow; returns its outcome, or Prefect's Failed with one line, and never raises.

    A raise here would mark the steps of the child flow as rolled back (measured on Prefect 3.8).
    """
    cpu = time.thread_time()
    try:
        if node.stage not in STAGE_FLOWS:
            raise ProductError(
                f"{node.name}: the pipeline {node.stage} is not built yet; built are {', '.join(STAGE_FLOWS)}. Calibrate "
                "this association with the official package meanwhile"
            )
        with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
            products = STAGE_FLOWS[node.stage](node.target, output, overrides)
        return Outcome("done", tuple(map(name_of, products)), cpu_seconds=time.thread_time() - cpu)
    except NothingToDo as why:
        return Outcome("empty", error=str(why), cpu_seconds=time.thread_time() - cpu)
    except Exception as error:
        expected, line = one_line(error)
        log.error("%s failed: %s", node.name, line, exc_info=None if expected else error)
        return Failed(message=line)


make = ObservedTask(make_node, "make", task_run_name="{node.stage} {node.name}")


@contextlib.contextmanager
def threads(slots: int) -> Iterator[Callable[[Node, str, Overrides], Future]]:
    """Where nodes are made: threads of this process, those of Prefect's task runner in a run that it watches."""
    if is_observed():
        yield lambda *what: make.submit(*what).wrapped_future  # type: ignore[attr-defined]
    else:
        with ThreadPoolExecutor(slots) as pool:
            yield lambda *what: pool.submit(make, *what)


def outcome_of(result: Any) -> Outcome:
    """The outcome that ``make`` returned, by itself or inside the state of a Prefect task."""
    if isinstance(result, State):
        return cast(Outcome, result.result()) if result.is_completed() else Outcome("failed", error=result.message)
    return cast(Outcome, result)


def execute(
    nodes: Sequence[Node], output: str, overrides: Overrides, slots: int, ended: Callable[[Node, Outcome], None]
) -> dict[str, Outcome]:
    """Run the graph: a node is handed out when all that it needs is done and a slot is free.

    Waiting nodes cost nothing: they are not tasks yet. ``ended`` is called for each node as it ends.
    """
    with threads(slots) as submit:
        return _execute(nodes, lambda node: submit(node, output, overrides), slots, ended)


def _execute(
    nodes: Sequence[Node], submit: Callable[[Node], Future], slots: int, ended: Callable[[Node, Outcome], None]
) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    waiting = {node.name: node for node in nodes}
    running: dict[Future, tuple[Node, float, str]] = {}

    def end(node: Node, outcome: Outcome) -> None:
        outcomes[node.name] = outcome
        ended(node, outcome)

    while waiting or running:
        progress = False
        for node in list(waiting.values()):
            stopped = [name for name in node.needs if outcomes.get(name, DONE).state != "done"]
            if stopped:
                del waiting[node.name]
                state = "empty" if all(outcomes[name].state == "empty" for name in stopped) else "blocked"
                end(node, Outcome(state, error=f"needs {', '.join(stopped)}, which did not come to be"))
                progress = True
            elif len(running) < slots and all(name in outcomes for name in node.needs):
                del waiting[node.name]
                running[submit(node)] = (node, time.monotonic(), _now())
        if not running:
            if waiting and not progress:
                raise ProductError(f"associations wait for each other in a circle: {', '.join(sorted(waiting))}")
            continue
        for done in wait(running, return_when=FIRST_COMPLETED).done:
            node, clock, started = running.pop(done)
            outcome = outcome_of(done.result())
            end(node, replace(outcome, started=started, seconds=time.monotonic() - clock))
    return outcomes


def calibrate(
    inputs: list[str], output: str, overrides: Overrides | None = None, slots: int = 1, truth: str | None = None
) -> dict[str, Any]:
    """Calibrate a program; returns the content of ``run.json``, which it writes into ``output`` beside ``report.html``."""
    started, clock = _now(), time.monotonic()
    exposures, associations, headers = gather(inputs, output)
    nodes = expand(exposures, associations)
    fetched = fetch_plan(headers.values(), overrides or {})
    log.info(
        "%d exposures, %d associations, %d products to make, %d reference files",
        len(exposures),
        len(associations),
        len(nodes),
        fetched,
    )
    watcher = WATCHER.get()
    watcher(None, len(nodes))
    outcomes = execute(nodes, output, overrides or {}, slots, watcher)
    first = next(iter(headers.values()), None)
    record = {
        "program": str(first.get("PROGRAM", "")) if first else "",
        "input": " ".join(inputs),
        "output": output,
        "started": started,
        "ended": _now(),
        "seconds": time.monotonic() - clock,
        "versions": versions(),
        "context": context_name(),
        "nodes": [{**asdict(node), **asdict(outcomes[node.name])} for node in nodes],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    write_text(join(output, "run.json"), json.dumps(record, indent=1))
    write_report(record, output, join(output, "report.html"), truth)
    return record


program = ObservedFlow(calibrate, "calweave_program", "program {output}")


def pack_program(inputs: Sequence[str], folder: Path) -> None:
    """Copy the reference files that a run of these exposures needs into ``folder``, which is then a cache by itself."""
    _, _, headers = find_exposures(inputs)
    wanted = []
    for header in headers.values():
        for pipeline in pipelines_of(header):
            steps = PIPELINE_STEPS[pipeline](header)
            wanted.append((header, reftypes_of(header, steps, pipeline)))
    pack_references(wanted, folder)


def run_program(
    inputs: Sequence[str], output: str, overrides: Overrides, slots: int, truth: str | None, console: Console
) -> int:
    """Run a program from the command line, with a progress bar and a summary; returns the exit code."""
    with _progress(console):
        program.task_runner = ThreadPoolTaskRunner(max_workers=slots)  # type: ignore[assignment]
        record = program(list(inputs), output, dict(overrides), slots, truth)
    return summarise(record, console)


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[None]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task("planning", total=None)

        def watch(node: Node | None, outcome: Any) -> None:
            if node is None:
                bar.update(line, total=outcome, description="products")
            else:
                bar.update(line, advance=1, description=f"{node.stage} {node.name}")

        token = WATCHER.set(watch)
        try:
            yield
        finally:
            WATCHER.reset(token)


def summarise(record: Mapping[str, Any], console: Console) -> int:
    """Print what a run did, and what failed with what to do; returns the exit code."""
    nodes = record["nodes"]
    table = Table(title=f"program {record['program']}, {record['seconds']:.0f} s", title_justify="left", box=None)
    for heading in ("stage", "done", "empty", "failed", "blocked", "seconds", "products"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in dict.fromkeys(node["stage"] for node in nodes):
        mine = [node for node in nodes if node["stage"] == stage]
        counts = [sum(node["state"] == state for node in mine) for state in ("done", "empty", "failed", "blocked")]
        seconds = sum(node["seconds"] for node in mine)
        files = sum(len(node["products"]) for node in mine)
        table.add_row(stage, *(str(count or "") for count in counts), f"{seconds:.1f}", str(files))
    console.print(table)
    for node in nodes:
        if node["state"] in ("failed", "blocked"):
            console.print(f"[red]{node['state']}[/] {node['name']}: {node['error']}", highlight=False, soft_wrap=True)
    console.print(f"products, run.json and report.html are in {record['output']}", soft_wrap=True)
    states = {node["state"] for node in nodes}
    if states & {"failed", "blocked"}:
        return 1
    return 64 if states == {"empty"} else 0
