"""Make one node: its stage flow, and then its record. This is what an engine carries to where the work is done."""

import importlib
import logging
import os
import resource
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Failed

from flows.artifacts import show_products
from flows.graph import Node
from flows.stage import leaving_out
from infra.errors import classify
from infra.observed import ObservedTask, result_of
from infra.products.header import ProductError
from infra.provenance import making
from infra.sidecar import File, Record, collecting, fingerprint_of, sha256_of, write_record
from infra.storage.store import fetched, join, remove, stat_file
from tasks.step import NothingToDo

log = logging.getLogger(__name__)

#: The stage flows that there are; each is the function of that name in ``flows/<name>.py``.
STAGES = ("detector1", "dark", "guider", "image2", "image3", "spec2", "spec3")

#: Those that keep limits: argument of the flow -> what a job says of it.
LIMITED: Mapping[str, Mapping[str, str]] = {
    "detector1": {"memory": "room", "cores": "cores"},
    "dark": {"memory": "room"},
    "image3": {"memory": "room"},
}


class InputChanged(Exception):
    """An input was written while it was read; the products are not recorded, and made again."""

    transient = True


@dataclass(frozen=True)
class Job:
    """A node and all that is needed to make it, as plain values that go anywhere.

    Attributes
    ----------
    node, output, overrides
        What the stage flow is called with.
    recipe : mapping or None
        See ``flows.plan``; None for the content of inputs that were not read yet, and None as a whole where it could
        not be made: then the stage flow says what is wrong.
    raw : mapping
        Name -> URL of the inputs that no node makes.
    references : mapping
        For the record.
    before : tuple of str
        Products that the node made by an earlier recipe; those that it does not make again are removed.
    attempt : int
        1 for the first.
    memory : float
        What the node takes beside what a process has anyway, by the plan [bytes].
    alone : bool
        Whether nothing else runs in the process at the same time.
    room : float or None
        What it may take of memory: an exposure that needs more goes in blocks [bytes]; None for no limit.
    cores : int
        How many cores it may use.
    """

    node: Node
    output: str
    overrides: Mapping[str, Mapping[str, Any]]
    recipe: Mapping[str, Any] | None
    raw: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, tuple[str, int, str]] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    work: int = 0
    attempt: int = 1
    memory: float = 0.0
    alone: bool = False
    room: float | None = None
    cores: int = 1


@dataclass(frozen=True)
class Outcome:
    """How a node ended.

    ``state`` is done, current (it was there), empty (nothing on the detector), failed or blocked; ``failure`` the kind
    of a failure (``infra.errors``); ``left_out`` the members without which it was made.
    """

    state: str
    products: tuple[str, ...] = ()
    error: str | None = None
    failure: str | None = None
    started: str | None = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    attempts: int = 1
    fingerprint: str | None = None
    left_out: tuple[str, ...] = ()


def now() -> str:
    """The time in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def make(job: Job) -> Outcome:
    """Make one node; returns how it ended, and never raises for what is wrong with it."""
    started, clock, cpu = now(), time.monotonic(), time.thread_time()
    if job.alone:
        _forget_peak()
    outcome = replace(_make(job, started), started=started, attempts=job.attempt)
    return replace(
        outcome,
        seconds=time.monotonic() - clock,
        cpu_seconds=time.thread_time() - cpu,
        peak_memory_bytes=_peak() if job.alone else None,
    )


def _make(job: Job, started: str) -> Outcome:
    node = job.node
    left_out = tuple((job.recipe or {}).get("left_out", ()))
    clock, cpu = time.monotonic(), time.thread_time()
    try:
        if node.stage not in STAGES:
            raise ProductError(
                f"{node.name}: the pipeline {node.stage} is not built yet; built are {', '.join(STAGES)}. Calibrate "
                "this association with the official package meanwhile"
            )
        looked_at = {name: _look_at(url) for name, url in job.raw.items()}
        inputs = {name: file for name, file in looked_at.items() if file is not None}
        recipe = None if job.recipe is None else _complete(job.recipe, inputs)
        origin = None if recipe is None else _origin(recipe)
        stage_flow = getattr(importlib.import_module(f"flows.{node.stage}"), node.stage)
        limits = {name: getattr(job, of) for name, of in LIMITED.get(node.stage, {}).items()}
        state, error = "done", None
        with collecting() as made, making(origin), leaving_out(frozenset(left_out)):
            try:
                stage_flow(node.target, job.output, job.overrides, **limits)
            except NothingToDo as why:
                state, error = "empty", str(why)
        changed = [name for name, file in inputs.items() if not _same(file, job.raw[name])]
        if changed:
            raise InputChanged(
                f"{node.name}: {', '.join(changed)} changed while it was read; run again when it is complete"
            )
        bytes_out = sum(size for size, _ in made.values())
        bytes_in = sum(file.size for file in inputs.values())
        if recipe is None:
            return Outcome(state, tuple(made), error, bytes_in=bytes_in, bytes_out=bytes_out)
        retired = tuple(name for name in job.before if name not in made)
        record = Record(
            node=node.name,
            stage=node.stage,
            state=state,
            fingerprint=fingerprint_of(recipe),
            recipe=recipe,
            target=node.target,
            overrides=job.overrides,
            inputs=inputs,
            products={name: _published(job.output, name, *what) for name, what in made.items()},
            references=job.references,
            retired=retired,
            error=error,
            work=job.work,
            attempts=job.attempt,
            seconds=time.monotonic() - clock,
            cpu_seconds=time.thread_time() - cpu,
            peak_memory_bytes=_peak() if job.alone else None,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            started=started,
            ended=now(),
        )
        write_record(record, job.output)
        remove_retired(record, job.output)
        return Outcome(
            state,
            tuple(made),
            error,
            bytes_in=bytes_in,
            bytes_out=bytes_out,
            fingerprint=record.fingerprint,
            left_out=left_out,
        )
    except Exception as error:
        failure = classify(error)
        log.error("%s failed: %s", node.name, failure.line, exc_info=None if failure.foreseen else error)
        return Outcome("failed", error=failure.line, failure=failure.kind, left_out=left_out)


def remove_retired(record: Record, output: str) -> None:
    """Remove what an earlier recipe of a node made and the present one does not: nobody should take it for a product."""
    for name in record.retired:
        if stat_file(join(output, name)) is not None:
            log.info("%s: %s is no longer made with these options, and removed", record.node, name)
            remove(join(output, name))


def _look_at(url: str) -> File | None:
    """An input that is about to be read, with its hash; of one that is not there the stage flow says what is wrong."""
    stat = stat_file(url)
    if stat is None:
        return None
    with fetched(url) as path:
        return File(stat.size, stat.version, sha256_of(path))


def _same(file: File, url: str) -> bool:
    stat = stat_file(url)
    return stat is not None and (stat.size, stat.version) == (file.size, file.version)


def _complete(recipe: Mapping[str, Any], inputs: Mapping[str, File]) -> dict[str, Any]:
    contents = {name: file.sha256 for name, file in inputs.items()}
    return {**recipe, "inputs": {**recipe["inputs"], **contents}}


def _origin(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a product tells of its recipe, beside what its steps tell."""
    origin = {"fingerprint": fingerprint_of(recipe), "inputs": recipe["inputs"], "code": recipe["code"]["sources"]}
    return origin if "left_out" not in recipe else {**origin, "left_out": recipe["left_out"]}


def _published(output: str, name: str, size: int, sha256: str) -> File:
    stat = stat_file(join(output, name))
    return File(size, "" if stat is None else stat.version, sha256)


def _forget_peak() -> None:
    """Let the kernel count the peak memory of this process anew (Linux; elsewhere it is that since its start)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The largest memory of this process since the last ``_forget_peak`` [bytes]."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


def observed_make(job: Job) -> Any:
    """``make`` as a Prefect task: a failure is Prefect's ``Failed`` with the outcome in it, and nothing is raised.

    A raise would mark the steps of the child flow as rolled back (measured on Prefect 3.8).
    """
    # Children in the same process need no heartbeat of their own: it costs a second each.
    node = job.node
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        outcome = make(job)
    if outcome.state == "done":
        show_products(node.name, node.stage, outcome.products, job.output)
    return Failed(message=outcome.error, data=outcome) if outcome.state == "failed" else outcome


make_task = ObservedTask(observed_make, "make", task_run_name="{job.node.stage} {job.node.name}")


make_task = ObservedTask(observed_make, "make", task_run_name="{job.node.stage} {job.node.name}")


def outcome_of(result: Any) -> Outcome:
    """The outcome of a job, by itself or inside the state of a Prefect task."""
    try:
        found = result_of(result)
    except Exception as error:  # of Prefect: what ``make`` meets is in its outcome
        return Outcome("failed", error=f"{type(error).__name__}: {error}", failure="program")
    if isinstance(found, Outcome):
        return found
    return Outcome("failed", error=getattr(result, "message", None) or f"no outcome, but {found!r}", failure="program")
