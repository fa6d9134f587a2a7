"""The program flow: from a folder of exposures, a pool or associations to every product, each as soon as its inputs exist.

What is current stays (``flows.plan``), the rest is made by an engine (``flows.engine``), and a node that fails stops only
what needs it. A run that is killed at any moment is continued by the next one.
"""

import contextlib
import difflib
import json
import logging
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from flows.artifacts import ProgramFailed, final_state, follow, show_summary
from flows.engine import Limits, execute, open_engine
from flows.estimate import BASE_MEMORY, estimate, rates, wall_time, work_of
from flows.graph import Node, expand, find_exposures, gather, pipelines_of
from flows.making import Job, Outcome, now
from flows.plan import (
    PIPELINE_STEPS,
    THERE,
    MissingMembers,
    Survey,
    Verdict,
    forget,
    in_order,
    judge,
    maker_of,
    members_to_leave_out,
    orphans,
    place_of,
    plan,
    references_of,
    survey,
)
from flows.stage import Overrides, reftypes_of
from infra.errors import POLICIES, exit_code_of
from infra.machine import available_memory
from infra.observed import ObservedFlow
from infra.products.header import ProductError
from infra.provenance import versions
from infra.references.pack import pack_references
from infra.sidecar import FOLDER, write_record
from infra.storage.lock import locked
from infra.storage.store import clean, join, name_of, write_text

log = logging.getLogger(__name__)

#: Called with each node and its outcome, and once before with None and the number of nodes.
WATCHER: ContextVar[Callable[[Any, Any], None]] = ContextVar("watcher", default=lambda node, outcome: None)

#: How a node may end, in the order of the summary.
STATES = ("done", "current", "empty", "failed", "blocked")


def make_plan(
    inputs: Sequence[str],
    output: str,
    overrides: Overrides,
    slots: int,
    verify: bool = False,
    product: str | None = None,
) -> dict[str, Any]:
    """What a run of these inputs would do, or of that only what ``product`` needs: nothing is written or fetched."""
    exposures, associations, headers = gather(inputs, output, write=False, own_catalog=has_catalog(overrides))
    scene = survey(expand(exposures, associations), associations, headers, output, overrides, verify=verify)
    verdicts = plan(scene)
    if product is not None:
        wanted = upstream_of(scene, product)
        verdicts = {name: verdict for name, verdict in verdicts.items() if name in wanted}
    return describe(scene, verdicts, slots)


def has_catalog(overrides: Overrides) -> bool:
    """Whether spectra are cut by a catalog of the user's own."""
    return bool(overrides.get("spec2", {}).get("catalog"))


def describe(scene: Survey, verdicts: Mapping[str, Verdict], slots: int) -> dict[str, Any]:
    """A plan as plain values, for run.json and the table: every node with its reasons and estimate, and the sums."""
    known = rates(scene.records.values())
    work = {name: work_of(scene, scene.nodes[name]) for name in verdicts}
    estimates = {
        name: estimate(verdict.node.stage, work[name], known)
        for name, verdict in verdicts.items()
        if not verdict.current
    }
    nodes = [
        {
            "name": name,
            "stage": verdict.node.stage,
            "current": verdict.current,
            "reasons": [str(reason) for reason in verdict.reasons],
            "work": work[name],
            **(asdict(estimates[name]) if name in estimates else {}),
        }
        for name, verdict in verdicts.items()
    ]
    return {
        "nodes": nodes,
        "to_make": len(estimates),
        "current": len(verdicts) - len(estimates),
        "reasons": dict(Counter(reason.kind for v in verdicts.values() for reason in v.reasons)),
        "orphans": {name: list(products) for name, products in orphans(scene).items()},
        "cpu_seconds": sum(one.cpu_seconds for one in estimates.values()),
        "seconds": wall_time(estimates, in_order(v.node for v in verdicts.values()), slots),
        "memory": max((one.memory for one in estimates.values()), default=0.0),
        "bytes_out": sum(one.bytes_out for one in estimates.values()),
    }


def decider(
    scene: Survey, missing_members: MissingMembers, work: Mapping[str, int]
) -> Callable[[Node, Mapping[str, Outcome], int], Job | Outcome]:
    """``decide`` of the loop: what to do with a node, now that all that it needs has ended."""
    seen: set[str] = set()

    def decide(node: Node, outcomes: Mapping[str, Outcome], attempt: int) -> Job | Outcome:
        if node.name in seen:
            forget(scene, node)
        seen.add(node.name)
        states = {name: outcomes[name].state for name in node.needs}
        left_out = members_to_leave_out(scene, node, states, missing_members)
        if left_out is None:
            stopped = [name for name, state in states.items() if state not in THERE]
            state = "empty" if all(states[name] == "empty" for name in stopped) else "blocked"
            return Outcome(state, error=f"needs {', '.join(stopped)}, which did not come to be")
        fingerprints = {name: outcomes[name].fingerprint for name in node.needs}
        verdict = judge(scene, node, fingerprints, left_out)
        record = scene.records.get(node.name)
        if verdict.current and record is not None:
            if verdict.touched is not None:
                write_record(verdict.touched, scene.output)
            return Outcome(
                "current" if record.state == "done" else record.state,
                tuple(record.products),
                record.error,
                fingerprint=record.fingerprint,
                left_out=tuple(sorted(left_out)),
            )
        return Job(
            node=node,
            output=scene.output,
            overrides=scene.overrides,
            recipe=verdict.recipe,
            raw={name: place_of(scene, node, name) for name, maker in node.reads.items() if maker is None},
            references=references_of(scene, node, verdict.recipe),
            before=() if record is None else (*record.products, *record.retired),
            work=work.get(node.name, 0),
            attempt=attempt,
        )

    return decide


def calibrate(
    inputs: list[str],
    output: str,
    overrides: Overrides | None = None,
    slots: int = 1,
    truth: str | None = None,
    *,
    engine: str = "threads",
    memory: float | None = None,
    timeout: float | None = None,
    on_failure: str = "continue",
    missing_members: MissingMembers = "wait",
    verify: bool = False,
    wait: bool = False,
) -> dict[str, Any]:
    """Calibrate a program; returns the content of ``run.json``, which it writes into ``output`` beside ``report.html``.

    Parameters
    ----------
    inputs, output
        Folders, pools, associations or exposures; the folder of the products. URLs.
    overrides
        Step -> option -> value.
    slots
        Nodes that are made at the same time.
    truth
        Folder of truth tables, for the report.
    engine
        Where they are made; see ``flows.engine.open_engine``.
    memory
        How much they may need together [bytes]; default: what is available.
    timeout
        How long one may take [s].
    on_failure
        "continue", or "stop" to start nothing after a failure.
    missing_members
        "wait": a stage 3 product is not made while a member is missing; "leave-out": it is made without, says so, and is
        made anew when the member is there.
    verify
        Whether products that are there are read, to see that they are what was recorded.
    wait
        Whether to wait for another run on ``output`` to end, not to fail.
    """
    with locked(output, wait):
        clean(
            join(output, FOLDER)
        )  # a run that makes nothing writes nothing there, and would leave what a killed one left
        return _calibrate(
            inputs, output, overrides or {}, slots, truth, engine, memory, timeout, on_failure, missing_members, verify
        )


def _calibrate(
    inputs: Sequence[str],
    output: str,
    overrides: Overrides,
    slots: int,
    truth: str | None,
    engine: str,
    memory: float | None,
    timeout: float | None,
    on_failure: str,
    missing_members: MissingMembers,
    verify: bool,
) -> dict[str, Any]:
    begun = now(), time.monotonic()
    exposures, associations, headers = gather(inputs, output, own_catalog=has_catalog(overrides))
    nodes = expand(exposures, associations)
    scene = survey(nodes, associations, headers, output, overrides, fetch=True, verify=verify)
    record = make_stale(scene, inputs, begun, slots, truth, engine, memory, timeout, on_failure, missing_members)
    return final_state(record)


def make_stale(
    scene: Survey,
    inputs: Sequence[str],
    begun: tuple[str, float],
    slots: int,
    truth: str | None = None,
    engine: str = "threads",
    memory: float | None = None,
    timeout: float | None = None,
    on_failure: str = "continue",
    missing_members: MissingMembers = "wait",
) -> dict[str, Any]:
    """Make what is stale of a survey; returns the content of ``run.json``, and writes it and the report.

    ``begun`` is when the run began, by ``now`` and by ``time.monotonic``; the other arguments are those of ``calibrate``.
    """
    from flows.report import write_report

    started, clock = begun
    nodes, output = tuple(scene.nodes.values()), scene.output
    page = describe(scene, plan(scene), slots)
    tell_plan(page)
    estimates = {one["name"]: one for one in page["nodes"]}
    watcher = WATCHER.get()
    watcher(None, len(nodes))
    tell_prefect = follow([asdict(node) for node in nodes], [one for one in page["nodes"] if not one["current"]])

    def ended(node: Node, outcome: Outcome) -> None:
        watcher(node, outcome)
        tell_prefect({**asdict(node), **asdict(outcome)})

    limits = Limits(slots, available_memory() if memory is None else memory)
    with open_engine(engine, slots, timeout) as submit:
        outcomes = execute(
            list(scene.nodes.values()),
            submit,
            decider(scene, missing_members, {name: one["work"] for name, one in estimates.items()}),
            ended,
            limits,
            memory_of=lambda node: max(estimates[node.name].get("memory", 0.0) - BASE_MEMORY, 0.0),
            stop_on_failure=on_failure == "stop",
        )
    about = {"engine": engine, "slots": slots, "plan": {key: value for key, value in page.items() if key != "nodes"}}
    reasons = {name: one["reasons"] for name, one in estimates.items()}
    record = record_run(scene, inputs, outcomes, reasons, started, time.monotonic() - clock, about)
    write_report(record, output, join(output, "report.html"), truth)
    show_summary(record)
    return record


program = ObservedFlow(calibrate, "calweave_program", "program {output}")


def record_run(
    scene: Survey,
    inputs: Sequence[str],
    outcomes: Mapping[str, Outcome],
    reasons: Mapping[str, Sequence[str]],
    started: str,
    seconds: float,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write ``run.json`` into the output folder; returns its content. ``about`` is what is said of the run as a whole."""
    first = next(iter(scene.headers.values()), None)
    record = {
        "program": str(first.get("PROGRAM", "")) if first else "",
        "input": " ".join(inputs),
        "inputs": list(inputs),
        "overrides": scene.overrides,
        "output": scene.output,
        "started": started,
        "ended": now(),
        "seconds": seconds,
        **about,
        "versions": versions(),
        "context": scene.context,
        "nodes": [
            {**asdict(node), **asdict(outcomes[node.name]), "reasons": list(reasons.get(node.name, ()))}
            for node in scene.nodes.values()
            if node.name in outcomes
        ],
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    write_text(join(scene.output, "run.json"), json.dumps(record, indent=1))
    return record


def record_of(*args: Any, **kwargs: Any) -> Mapping[str, Any]:
    """Call the program flow; returns its record also where it ends in Prefect's failed state."""
    try:
        return program(*args, **kwargs)
    except ProgramFailed as failure:
        return failure.record


def tell_plan(page: Mapping[str, Any]) -> None:
    """The plan in the log, a line each."""
    log.info(
        "plan: %d to make, %d current; about %s of CPU, %s, %.1f GB of memory, %.2f GB to write",
        page["to_make"],
        page["current"],
        _time(page["cpu_seconds"]),
        _time(page["seconds"]),
        page["memory"] / 1e9,
        page["bytes_out"] / 1e9,
    )
    for kind, count in sorted(page["reasons"].items(), key=lambda item: -item[1]):
        log.info("plan: %d %s", count, kind)
    for name, products in page["orphans"].items():
        log.warning(
            "plan: nothing makes %s any more (of %s); remove them if you do not need them", ", ".join(products), name
        )


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def show_plan(page: Mapping[str, Any], console: Console, all_nodes: bool = False) -> None:
    """Print a plan as a table: what would run, why, and what it costs; with ``all_nodes`` what is current, too."""
    table = Table(title="plan", title_justify="left", box=None)
    for heading in ("stage", "node", "why", "CPU [s]", "memory [GB]", "write [MB]"):
        numbers = "[" in heading
        table.add_column(heading, justify="right" if numbers else "left", overflow="fold", no_wrap=heading != "why")
    for node in page["nodes"]:
        if not node["current"]:
            cost = (f"{node['cpu_seconds']:.1f}", f"{node['memory'] / 1e9:.2f}", f"{node['bytes_out'] / 1e6:.1f}")
            table.add_row(node["stage"], node["name"], escape("; ".join(node["reasons"])), *cost)
        elif all_nodes:
            table.add_row(node["stage"], node["name"], "current")
    if table.rows:
        console.print(table)
    for name, products in page["orphans"].items():
        console.print(f"nothing makes {', '.join(products)} any more (of {name})", soft_wrap=True)
    console.print(
        f"{page['to_make']} to make, {page['current']} current; about {_time(page['cpu_seconds'])} of CPU, "
        f"{_time(page['seconds'])} in all, {page['memory'] / 1e9:.1f} GB of memory, {page['bytes_out'] / 1e9:.2f} GB to write",
        soft_wrap=True,
    )


def upstream_of(scene: Survey, product: str) -> set[str]:
    """The node that makes a product (or has that name), and all that it needs, directly or through others.

    Raises
    ------
    ProductError
        If no node makes it.
    """
    name = name_of(product)
    node = maker_of(scene, name)
    if node is None:
        near = difflib.get_close_matches(
            name, [*scene.nodes, *(p for r in scene.records.values() for p in r.products)], 1
        )
        raise ProductError(
            f"{name}: no node of this run makes it" + (f"; did you mean {near[0]}?" if near else "; see the whole plan")
        )
    wanted, waiting = {node.name}, [node]
    while waiting:
        for need in waiting.pop().needs:
            if need in scene.nodes and need not in wanted:
                wanted.add(need)
                waiting.append(scene.nodes[need])
    return wanted


def pack_program(inputs: Sequence[str], folder: Path) -> None:
    """Copy the reference files that a run of these exposures needs into ``folder``, which is then a cache by itself."""
    _, _, headers = find_exposures(inputs)
    wanted = []
    for header in headers.values():
        for pipeline in pipelines_of(header):
            steps = PIPELINE_STEPS[pipeline](header, frozenset(("background",)))
            wanted.append((header, reftypes_of(header, steps, pipeline)))
    pack_references(wanted, folder)


def run_program(
    inputs: Sequence[str],
    output: str,
    overrides: Overrides,
    slots: int,
    truth: str | None,
    console: Console,
    **options: Any,
) -> int:
    """Run a program from the command line, with a progress bar and a summary; returns the exit code."""
    with _progress(console):
        program.task_runner = ThreadPoolTaskRunner(max_workers=slots)  # type: ignore[assignment]
        record = record_of(list(inputs), output, dict(overrides), slots, truth, **options)
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
    for heading in ("stage", *STATES, "seconds", "products"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in dict.fromkeys(node["stage"] for node in nodes):
        mine = [node for node in nodes if node["stage"] == stage]
        counts = [sum(node["state"] == state for node in mine) for state in STATES]
        seconds = sum(node["seconds"] for node in mine)
        files = sum(len(node["products"]) for node in mine)
        table.add_row(stage, *(str(count or "") for count in counts), f"{seconds:.1f}", str(files))
    console.print(table)
    remedies: dict[str, None] = {}
    for node in nodes:
        if node["state"] in ("failed", "blocked"):
            console.print(f"[red]{node['state']}[/] {node['name']}: {node['error']}", highlight=False, soft_wrap=True)
            if node["failure"] in POLICIES:
                remedies[POLICIES[node["failure"]].remedy] = None
        elif node["left_out"]:
            console.print(f"[yellow]made without[/] {', '.join(node['left_out'])}: {node['name']}", soft_wrap=True)
    for remedy in remedies:
        console.print(f"what to do: {remedy}", highlight=False, soft_wrap=True)
    console.print(f"products, run.json and report.html are in {record['output']}", soft_wrap=True)
    states = {node["state"] for node in nodes}
    if states & {"failed", "blocked"}:
        return exit_code_of(node["failure"] for node in nodes if node["state"] == "failed")
    return 64 if states == {"empty"} else 0
