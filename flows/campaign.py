"""Many programs in one run, and what a new context of reference files changes: flows that deployments start on a schedule.

A campaign brings each program up to date: it makes what is stale and nothing else. A program that fails does not stop the
others. ``new_context`` looks whether the rules that choose reference files have changed since a program was made, and
whether they choose another file for anything in it: if not, nothing runs.
"""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect.deployments import run_deployment

from flows.artifacts import show_campaign
from flows.graph import expand, gather
from flows.plan import plan, survey
from flows.program import record_of
from flows.stage import Overrides
from infra.errors import one_line
from infra.observed import ObservedFlow, ObservedTask, is_observed, result_of
from infra.products.header import ProductError
from infra.references.client import context_name
from infra.sidecar import FOLDER
from infra.storage.store import exists, join, listing, name_of, read_text, write_text

log = logging.getLogger(__name__)

#: Where an output folder says which context was last looked at for it.
CONTEXT_FILE = f"{FOLDER}/context"

_OF_A_PROGRAM = re.compile(r"_uncal\.fits(\.gz)?$|_pool\.csv$|_asn\.json$")


class ProgramsFailed(Exception):
    """Some programs of a campaign failed; the message names them."""


@dataclass(frozen=True)
class Folder:
    """A program: its name, the folder of its exposures and that of its products."""

    name: str
    source: str
    output: str


@dataclass(frozen=True)
class Ending:
    """How one program ended: done, current (nothing to do), failed; what was made, and why it failed."""

    name: str
    state: str
    made: tuple[str, ...] = ()
    detail: str = ""
    seconds: float = 0.0


def find_programs(programs: str, output: str) -> list[Folder]:
    """The programs that ``programs`` names: one folder, made into ``output``, or with ``FOLDER/*`` all those in it.

    Raises
    ------
    ProductError
        If there is none.
    """
    if not programs.endswith("/*"):
        return [Folder(name_of(programs), programs, output)]
    parent = programs.removesuffix("/*")
    start = len(join(parent, "x")) - 1
    names = [url[start:] for url in listing(parent, "**/*")]
    inside = sorted({name.split("/")[0] for name in names if "/" in name and _OF_A_PROGRAM.search(name)})
    if not inside:
        raise ProductError(
            f"{programs}: expected folders with *_uncal.fits exposures, a pool or associations, but there is none; "
            "check the folder"
        )
    return [Folder(name, join(parent, name), join(output, name)) for name in inside]


def run_campaign(
    programs: str,
    output: str,
    overrides: Overrides | None = None,
    slots: int = 1,
    at_once: int = 1,
    deployment: str | None = None,
) -> dict[str, Any]:
    """Bring many programs up to date, ``at_once`` of them at the same time; returns and shows how each ended.

    Parameters
    ----------
    programs
        ``FOLDER/*``: each folder in it with exposures is a program; or the folder of one.
    output
        Where the products go, in a folder for each program.
    slots
        Products of one program that are made at the same time.
    deployment
        ``calweave_program/part`` runs each program as a job of its own in a work pool; default: in this process.

    Raises
    ------
    ProgramsFailed
        After all have ended, if some failed.
    """
    folders = find_programs(programs, output)
    return _each(
        "campaign", folders, at_once, lambda folder: _bring_up_to_date(folder, overrides or {}, slots, deployment)
    )


def run_new_context(
    programs: str,
    output: str,
    overrides: Overrides | None = None,
    slots: int = 1,
    at_once: int = 1,
    deployment: str | None = None,
) -> dict[str, Any]:
    """Remake what a new context of reference files changes in programs that were made before; see ``run_campaign``."""
    folders = find_programs(programs, output)
    context = context_name()
    log.info("the context of reference files is %s", context)

    def look(folder: Folder) -> Ending:
        before = last_context(folder.output)
        if before is None:
            return Ending(folder.name, "new", detail="never made; a campaign makes it")
        if before == context:
            return Ending(folder.name, "current", detail=f"made with {context}")
        changed = changed_references(folder, overrides or {})
        if changed:
            log.info("%s: %s to %s changes %s", folder.name, before, context, "; ".join(changed))
            ending = _bring_up_to_date(folder, overrides or {}, slots, deployment)
            if ending.state == "failed":
                return ending  # looked at again the next time
        else:
            ending = Ending(folder.name, "current", detail=f"{before} to {context} changes none of its reference files")
        write_text(join(folder.output, CONTEXT_FILE), context)
        return ending

    return _each("new context", folders, at_once, look)


campaign = ObservedFlow(run_campaign, "calweave_campaign", "campaign {programs}")
new_context = ObservedFlow(run_new_context, "calweave_new_context", "new context {programs}")


def last_context(output: str) -> str | None:
    """The context that was last looked at for an output folder: by ``new_context``, else by its last run."""
    noted, run = join(output, CONTEXT_FILE), join(output, "run.json")
    told = [read_text(noted).strip()] if exists(noted) else []
    if exists(run):
        told.append(str(json.loads(read_text(run))["context"]))
    return max(told, key=_number, default=None)


def _number(context: str) -> int:
    """Contexts are numbered as they come: ``jwst_1234.pmap``."""
    found = re.search(r"_(\d+)\.pmap$", context)
    return int(found.group(1)) if found else -1


def changed_references(folder: Folder, overrides: Overrides) -> list[str]:
    """What the present context chooses otherwise than what the products of a program were made with, in words."""
    exposures, associations, headers = gather([folder.source], folder.output, write=False)
    nodes = expand(exposures, associations)
    scene = survey(nodes, associations, headers, folder.output, overrides, fetch=True)
    reasons = [reason for verdict in plan(scene).values() for reason in verdict.reasons]
    return sorted({reason.detail for reason in reasons if reason.kind == "reference changed"})


def _bring_up_to_date(folder: Folder, overrides: Overrides, slots: int, deployment: str | None) -> Ending:
    parameters = {"inputs": [folder.source], "output": folder.output, "overrides": dict(overrides), "slots": slots}
    if deployment is not None:
        run: Any = run_deployment(
            deployment, parameters=parameters, flow_run_name=f"program {folder.name}", timeout=None
        )
        if run.state is None or not run.state.is_completed():
            return Ending(folder.name, "failed", detail=run.state.message if run.state else "no state came back")
        record = json.loads(read_text(join(folder.output, "run.json")))
    else:
        record = record_of(**parameters)
    states = Counter(node["state"] for node in record["nodes"])
    made = tuple(node["name"] for node in record["nodes"] if node["state"] == "done")
    bad = states["failed"] + states["blocked"]
    if bad:
        first = next(node for node in record["nodes"] if node["state"] in ("failed", "blocked"))
        return Ending(folder.name, "failed", made, f"{bad} products not made; {first['name']}: {first['error']}")
    return Ending(folder.name, "done" if made else "current", made, f"{len(made)} made, {states['current']} up to date")


def _one(folder: Folder, do: Callable[[Folder], Ending]) -> Ending:
    """One program, whatever happens in it."""
    clock = time.monotonic()
    try:
        ending = do(folder)
    except Exception as error:
        expected, line = one_line(error)
        log.error("%s: %s", folder.name, line, exc_info=None if expected else error)
        ending = Ending(folder.name, "failed", detail=line)
    return Ending(ending.name, ending.state, ending.made, ending.detail, time.monotonic() - clock)


_one_observed = ObservedTask(_one, "program", task_run_name="program {folder.name}")


@contextmanager
def _threads(at_once: int) -> Iterator[Callable[[Folder, Callable[[Folder], Ending]], Future]]:
    if is_observed():
        # A child flow is to be called from a task: elsewhere retries mix up their results.
        yield lambda folder, do: _one_observed.submit(folder, do).wrapped_future  # type: ignore[attr-defined]
    else:
        with ThreadPoolExecutor(at_once) as pool:
            yield lambda folder, do: pool.submit(_one, folder, do)


def _each(what: str, folders: Sequence[Folder], at_once: int, do: Callable[[Folder], Ending]) -> dict[str, Any]:
    """Every program, some at a time; the summary, or ``ProgramsFailed`` with it in words."""
    endings: dict[str, Ending] = {}
    waiting, running = list(reversed(folders)), set[Future]()
    with _threads(at_once) as submit:
        while waiting or running:
            while waiting and len(running) < max(at_once, 1):
                running.add(submit(waiting.pop(), do))
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                ending = result_of(future.result())
                endings[ending.name] = ending
    rows = [vars(endings[folder.name]) for folder in folders]
    show_campaign(what, rows)
    counts = Counter(row["state"] for row in rows)
    log.info("%s: %s", what, ", ".join(f"{count} {state}" for state, count in counts.items()))
    failed = [row for row in rows if row["state"] == "failed"]
    if failed:
        words = "; ".join(f"{row['name']}: {row['detail']}" for row in failed[:5])
        raise ProgramsFailed(f"{len(failed)} of {len(rows)} programs failed: {words}. Put them right and run it again")
    return {"programs": rows}
