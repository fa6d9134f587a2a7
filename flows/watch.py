"""Watch a folder: exposures are calibrated as they arrive, associations when their candidate is complete.

An exposure starts through stage 1 as soon as its file is whole. The pool grows with it. A candidate (an observation, or
several that are looked at together) is complete when all the exposures that a pool in the folder announces are there; where
none does, or some do not come, when nothing has come for it for ``deadline`` seconds. Then its associations are generated,
once; an exposure that comes later changes those that it belongs to, and what follows is made again.

All that must survive the process is in the output folder: the products with their records, the associations, the pool, and
which candidates are released. A watch that starts again goes on where the last one was.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console

from associations.association import Association, read_association
from associations.generator import Options, generate
from associations.pool import Pool, candidates_of, make_pool, merge_pools, read_pool
from flows.engine import Limits, execute, open_engine
from flows.estimate import BASE_MEMORY, estimate, rates, work_of
from flows.graph import Node, expand, stage_of
from flows.making import Outcome, now
from flows.plan import THERE, MissingMembers, Survey, in_order, survey
from flows.program import decider, record_run, summarise
from flows.stage import Overrides
from infra.errors import one_line
from infra.machine import available_memory
from infra.observed import ObservedFlow
from infra.products.arrivals import Arrivals
from infra.products.fits import read_header
from infra.products.header import ProductError
from infra.products.names import base_of
from infra.sidecar import FOLDER
from infra.storage.lock import locked
from infra.storage.store import (
    StorageError,
    exists,
    fetched,
    join,
    listing,
    name_of,
    read_text,
    remove,
    stat_folder,
    write_text,
)

log = logging.getLogger(__name__)

POOL = "calweave_pool.csv"
STATE = f"{FOLDER}/watch"

#: Time between two looks at the folder: least, largest [s], and how many times longer than listing it.
PAUSE, LONGEST, SHARE = 0.5, 10.0, 10.0


@dataclass
class Watch:
    """What a watch knows. ``scene`` is what the plan of a run looks at, and grows.

    Attributes
    ----------
    source, output : str
        Folders, URLs.
    deadline : float
        A candidate waits so long after its last exposure for those that are announced, or may come [s].
    stop_after : float or None
        End when nothing has come and nothing was left to do for so long [s]; None: never.
    """

    source: str
    output: str
    scene: Survey
    deadline: float
    stop_after: float | None
    arrivals: Arrivals
    work: dict[str, int] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    pool: Pool | None = None
    announced: dict[str, Pool] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    contents: dict[str, str] = field(default_factory=dict)
    #: When something last happened, and when to look again [s, monotonic].
    last: float = 0.0
    next_look: float = 0.0

    def more(self) -> Sequence[Node] | None:
        """Look at the folder; the nodes that are to be made, or None at the end. Called by the loop of the engine."""
        clock = time.monotonic()
        if clock < self.next_look:
            return ()
        files = stat_folder(self.source)
        listed = time.monotonic()
        changes = self.arrivals.look(files, clock)
        self._read_pools(files)
        arrived = self._take(changes.arrived)
        withdrawn = self._withdraw(changes.gone)
        released = self._release(clock)
        nodes = self._nodes(arrived) if arrived or withdrawn or released else ()
        after = time.monotonic()
        self.next_look = after + min(max(PAUSE, SHARE * (listed - clock)), LONGEST)
        if nodes or self.pending or self.arrivals.unfinished:
            self.last = after
        elif self.stop_after is not None and after - self.last >= self.stop_after:
            return None
        self.pending |= {node.name for node in nodes}
        return nodes

    def ended(self, node: Node, outcome: Outcome) -> None:
        """Note how a node ended."""
        self.outcomes[node.name] = outcome
        self.pending.discard(node.name)
        self.last = time.monotonic()

    def _take(self, bases: Sequence[str]) -> list[str]:
        """Read the headers of new exposures; returns their URLs."""
        urls = []
        for base in bases:
            url = self.arrivals.exposures[base].url
            urls.append(url)
            self.urls[base] = url
            try:
                with fetched(url) as path:
                    header = read_header(path)
            except (ProductError, StorageError) as error:
                # Its node will say the same, and fail; what it would belong to is not known.
                log.error("%s", error)
                self.scene.headers.pop(url, None)
                continue
            self.scene.headers[url] = header
            self.scene.memory.headers[url] = header
            log.info("%s arrived", name_of(url))
        return urls

    def _withdraw(self, bases: Sequence[str]) -> bool:
        """Forget exposures that went away before they were made; of others the products are there, and they count."""
        found = False
        for base in bases:
            if base not in self._made():
                log.warning("%s went away before it was calibrated; it does not count", self.urls[base])
                self.scene.headers.pop(self.urls.pop(base), None)
                found = True
        return found

    def _made(self) -> set[str]:
        """Names of the exposures whose stage 1 products are there."""
        there = {name for name, outcome in self.outcomes.items() if outcome.state in THERE}
        return {base_of(name) for name in there | self.scene.records.keys()}

    def _read_pools(self, files: Mapping[str, Any]) -> None:
        """Read the pools of the folder: what they list is announced."""
        for name, stat in files.items():
            key = f"{name} {stat.version} {stat.size}"
            if name.endswith("_pool.csv") and "/" not in name and key not in self.announced:
                try:
                    pool = read_pool(read_text(join(self.source, name)), name)
                except Exception as error:
                    if not one_line(error)[0]:
                        raise
                    # It may be being written.
                    log.warning("%s", one_line(error)[1])
                    continue
                self.announced = {k: p for k, p in self.announced.items() if not k.startswith(f"{name} ")} | {key: pool}
                log.info("%s announces %d exposures", name, len(pool.rows))

    def _release(self, clock: float) -> bool:
        """Generate the associations of the candidates that are due; tells whether any association changed."""
        if not self.scene.headers:
            return False
        # Targets keep the numbers that they had: they are in the names of products.
        pool = make_pool({name_of(u): h for u, h in self.scene.headers.items()}, POOL, start=self.pool)
        made = {base.lower() for base in self._made()}
        here = {name_of(url).lower() for url in self.scene.headers}
        # Of an earlier watch: raw files that went away since.
        here |= {str(row["filename"]) for row in pool.rows if base_of(str(row["filename"])) in made}
        announced = {row["filename"]: row for one in self.announced.values() for row in one.rows}
        rows = [announced.get(row["filename"], row) for row in pool.rows if row["filename"] in here]
        # One pool that announces all gives its name, as in a run.
        name = next(iter(self.announced.values())).name if len(self.announced) == 1 else POOL
        pool = merge_pools([Pool(name, pool.columns, tuple(rows))])
        since = {base.lower(): one.since for base, one in self.arrivals.exposures.items()}
        last: dict[str, float] = {}
        missing: dict[str, list[str]] = {}
        parts: dict[str, set[str]] = {}
        for row in (*rows, *(row for name, row in announced.items() if name not in here)):
            mine = candidates_of(row["asn_candidate"])
            for ident, _ in mine:
                if row["filename"] in here:
                    last[ident] = max(last.get(ident, 0.0), since.get(base_of(str(row["filename"])), 0.0))
                else:
                    missing.setdefault(ident, []).append(str(row["filename"]))
                parts.setdefault(ident, set()).update(other for other, kind in mine if kind == "observation")
        due = set()
        for ident, at in last.items():
            complete = bool(announced) and ident not in missing
            if ident not in self.released and (complete or clock - at >= self.deadline):
                due.add(ident)
                if missing.get(ident):
                    log.warning("candidate %s goes on without %s", ident, ", ".join(missing[ident]))
        # Several observations together wait for the associations of each.
        due = {ident for ident in due if parts[ident] <= due | self.released | {ident}}
        if not due and (not self.released or pool.rows == (self.pool.rows if self.pool else ())):
            return False
        for ident in sorted(due):
            log.info("candidate %s is complete", ident)
        self.released |= due
        self.pool = pool
        write_text(join(self.output, POOL), pool.to_text())
        options = Options() if announced and not missing else Options(ids=tuple(sorted(self.released)), discover=False)
        self._associate(generate(pool, options))
        write_text(join(self.output, STATE), json.dumps({"released": sorted(self.released)}))
        return True

    def _associate(self, generated: Sequence[Association]) -> None:
        """Write the associations that are new or have changed. One that was there keeps its name: products have its number."""
        former = {_key(one): url for url, one in self.scene.associations.items()}
        taken = set(former.values())
        now_there = set()
        for association in generated:
            url = former.get(_key(association))
            if url is None:
                url = join(self.output, association.file_name)
                number = 1
                while url in taken:
                    stem, _, _ = association.file_name.rsplit("_", 2)
                    url, number = join(self.output, f"{stem}_{number:05}_asn.json"), number + 1
                taken.add(url)
            now_there.add(url)
            association = association.with_(file_name=name_of(url))
            if self.scene.associations.get(url) != association:
                write_text(url, association.to_json())
                self.scene.associations[url] = association
        for url in set(former.values()) - now_there:
            log.warning("%s is no longer an association of the pool, and removed; its products stay", name_of(url))
            del self.scene.associations[url]
            remove(url)

    def _nodes(self, arrived: Sequence[str]) -> list[Node]:
        """The nodes that are new or concern something new, and all that needs them."""
        exposures = {url: self._stage(url) for url in self.urls.values()}
        before = dict(self.scene.nodes)
        contents = {url: one.to_json() for url, one in self.scene.associations.items()}
        nodes = {node.name: node for node in expand(exposures, self.scene.associations)}
        self.scene.nodes.clear()
        self.scene.nodes.update(nodes)
        concerned: set[str] = set()
        ordered = in_order(nodes.values())
        for node in ordered:
            changed = node.target in arrived or self.contents.get(node.target) != contents.get(node.target)
            same = before.get(node.name) == node and not changed
            if not same or concerned & set(node.needs):
                concerned.add(node.name)
                self.work[node.name] = work_of(self.scene, node)
        self.contents = contents
        return [node for node in ordered if node.name in concerned]

    def _stage(self, url: str) -> str:
        header = self.scene.headers.get(url)
        # An exposure that cannot be read: its node fails, and says why.
        return "detector1" if header is None else stage_of(header)


def _key(association: Association) -> tuple:
    return association.asn_id, association.asn_type, tuple(product.name for product in association.products)


def watching(
    source: str,
    output: str,
    overrides: Overrides | None = None,
    slots: int = 1,
    *,
    deadline: float = 900.0,
    stop_after: float | None = None,
    engine: str = "threads",
    memory: float | None = None,
    timeout: float | None = None,
    missing_members: MissingMembers = "leave-out",
) -> dict[str, Any]:
    """Watch a folder until it is interrupted, or until nothing happens for ``stop_after`` seconds.

    Returns the content of ``run.json``, which is written into ``output`` at the end, beside ``report.html``. The other
    parameters are those of the program flow and of ``Watch``.
    """
    from flows.report import write_report

    started, clock = now(), time.monotonic()
    with locked(output):
        scene = survey((), {}, {}, output, overrides or {}, fetch=True)
        watch = Watch(source, output, scene, deadline, stop_after, Arrivals(source), last=clock)
        _go_on(watch)
        known = rates(scene.records.values())
        log.info("watching %s", source)
        with open_engine(engine, slots, timeout) as submit:
            execute(
                (),
                submit,
                decider(scene, missing_members, watch.work),
                watch.ended,
                Limits(slots, available_memory() if memory is None else memory),
                memory_of=lambda node: estimate(node.stage, watch.work[node.name], known).memory - BASE_MEMORY,
                more=watch.more,
            )
        about = {"engine": engine, "slots": slots, "released": sorted(watch.released)}
        record = record_run(scene, [source], watch.outcomes, {}, started, time.monotonic() - clock, about)
        if watch.outcomes:
            write_report(record, output, join(output, "report.html"), None)
        return record


def _go_on(watch: Watch) -> None:
    """Take up what an earlier watch has left in the output folder."""
    state, pool = join(watch.output, STATE), join(watch.output, POOL)
    if exists(state):
        watch.released |= set(json.loads(read_text(state))["released"])
    if exists(pool):
        watch.pool = read_pool(read_text(pool), POOL)
    for url in listing(watch.output, "*_asn.json") if watch.released else ():
        watch.scene.associations[url] = read_association(read_text(url), name_of(url))


watch_flow = ObservedFlow(watching, "calweave_watch", "watch {source}")


def run_watch(source: str, output: str, overrides: Overrides, slots: int, console: Console, **options: Any) -> int:
    """Watch a folder from the command line; returns the exit code."""
    watch_flow.task_runner = ThreadPoolTaskRunner(max_workers=slots)  # type: ignore[assignment]
    return summarise(watch_flow(source, output, dict(overrides), slots, **options), console)
