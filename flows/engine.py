"""Where nodes are made, and the loop that hands them out: each as soon as what it needs is done, a slot is free and its
memory fits.

The loop knows nothing of the engine: an engine takes a job and gives a future of its outcome. Waiting nodes cost nothing:
they are not tasks yet. Nodes may be added while the loop runs.
"""

import heapq
import logging
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any

from flows.artifacts import tagged
from flows.graph import Node
from flows.making import Job, Outcome, make, make_task, outcome_of
from flows.workers import EngineError, Submit, dask, processes, work_pool
from infra.errors import POLICIES
from infra.observed import in_flow_run

log = logging.getLogger(__name__)

#: The loop looks for new nodes, and for those whose delay is over, at least so often [s].
BEAT = 0.3


@dataclass(frozen=True)
class Limits:
    """How much runs at the same time: ``slots`` nodes, whose estimated memory together is at most ``memory`` bytes."""

    slots: int = 1
    memory: float = float("inf")


def execute(
    nodes: Sequence[Node],
    submit: Submit,
    decide: Callable[[Node, Mapping[str, Outcome], int], Job | Outcome],
    ended: Callable[[Node, Outcome], None],
    limits: Limits,
    *,
    memory_of: Callable[[Node], float] = lambda node: 0.0,
    more: Callable[[], Sequence[Node] | None] | None = None,
    stop_on_failure: bool = False,
) -> dict[str, Outcome]:
    """Run a graph to its end; returns the outcome of every node.

    Parameters
    ----------
    nodes : sequence of Node
    submit : callable
        Of an engine.
    decide : callable
        Called when all that a node needs has ended, with the outcomes so far and the number of the attempt: gives
        the job, or the outcome where there is nothing to make.
    ended : callable
        Called for each node as it ends.
    limits : Limits
        A node whose memory is larger than the budget runs alone.
    memory_of : callable
        Estimated memory of a node [bytes].
    more : callable
        Asked for more nodes all the time; None when no more will come. A node of a name that was made already is
        made again, after what it needs.
    stop_on_failure : bool
        After a failure nothing new is started, and what was not started is blocked.
    """
    loop = _Loop(submit, decide, ended, limits, memory_of)
    loop.add(nodes)
    while True:
        if more is not None:
            added = more()
            if added is None:
                more = None
            else:
                loop.add(added)
        if stop_on_failure and loop.failed:
            loop.give_up(
                f"{loop.failed} failed, and the run stops at the first failure (--on-failure continue goes on)"
            )
            more = None
        loop.start()
        if loop.running:
            waits = more is not None or bool(loop.later)
            loop.collect(BEAT if waits else None)
        elif loop.later or more is not None:
            time.sleep(min(BEAT, loop.delay()))
        else:
            break
    loop.give_up("it needs nodes that are not part of the run")
    return loop.outcomes


class _Loop:
    """The state of one ``execute``."""

    def __init__(self, submit: Submit, decide: Any, ended: Any, limits: Limits, memory_of: Any) -> None:
        self.submit, self.decide, self.ended, self.limits, self.memory_of = submit, decide, ended, limits, memory_of
        self.outcomes: dict[str, Outcome] = {}
        self.waiting: dict[str, tuple[Node, set[str]]] = {}  # with what each still waits for
        self.needed_by: dict[str, list[str]] = defaultdict(list)
        self.ready: deque[tuple[Node, int]] = deque()
        self.jobs: deque[tuple[Node, int, Job]] = deque()
        self.later: list[tuple[float, int, Node, int]] = []
        self.running: dict[Future, tuple[Node, int, float]] = {}
        self.busy: dict[str, Node | None] = {}  # names that are being made -> the node of that name that came meanwhile
        self.lone: set[str] = set()
        self.failed: str | None = None

    def add(self, nodes: Sequence[Node]) -> None:
        """Take in nodes; what they need may be among them, made already, or come later."""
        for node in nodes:
            if node.name in self.busy:
                self.busy[node.name] = node
                continue
            self.outcomes.pop(node.name, None)
            self.waiting[node.name] = (node, set())
        for node in nodes:
            if node.name not in self.waiting:
                continue
            left = {name for name in node.needs if name not in self.outcomes}
            self.waiting[node.name] = (node, left)
            for name in left:
                self.needed_by[name].append(node.name)
            if not left:
                self._set_ready(node.name)

    def _set_ready(self, name: str) -> None:
        node, _ = self.waiting.pop(name)
        self.busy[name] = None
        self.ready.append((node, 1))

    def start(self) -> None:
        """Start what is ready and fits."""
        now = time.monotonic()
        while self.later and self.later[0][0] <= now:
            _, _, node, attempt = heapq.heappop(self.later)
            self.ready.append((node, attempt))
        while self.ready or self.jobs:
            # What turns out to be there already takes no slot.
            while self.ready:
                node, attempt = self.ready.popleft()
                what = self.decide(node, self.outcomes, attempt)
                if isinstance(what, Outcome):
                    self._end(node, what)
                else:
                    self.jobs.append((node, attempt, what))
            # In their order: else small ones would keep a large one waiting for ever.
            if not self.jobs or not self._fits(self.jobs[0][0]):
                return
            node, attempt, job = self.jobs.popleft()
            alone = node.name in self.lone or self.limits.slots == 1
            memory = self.memory_of(node)
            room = None if math.isinf(self.limits.memory) else self.limits.memory
            # One that runs by itself, with nothing waiting beside it, has all the cores: never slots times threads.
            cores = 1 if self.running or self.jobs else self.limits.slots
            job = replace(job, alone=alone, memory=memory, room=room, cores=cores)
            self.running[self.submit(job)] = (node, attempt, memory)

    def _fits(self, node: Node) -> bool:
        if not self.running:
            return True
        if len(self.running) >= self.limits.slots or node.name in self.lone:
            return False
        if any(other.name in self.lone for other, _, _ in self.running.values()):
            return False
        used = sum(memory for _, _, memory in self.running.values())
        return used + self.memory_of(node) <= self.limits.memory

    def collect(self, timeout: float | None) -> None:
        """Wait for something to end, and take it in."""
        for done in wait(self.running, timeout, return_when=FIRST_COMPLETED).done:
            node, attempt, _ = self.running.pop(done)
            outcome = outcome_of(done.result())
            policy = POLICIES.get(outcome.failure or "")
            if policy is not None and attempt < policy.tries:
                delay = policy.delay * 3 ** (attempt - 1)
                log.warning(
                    "%s: %s; attempt %d of %d in %.0f s", node.name, outcome.error, attempt + 1, policy.tries, delay
                )
                if policy.alone:
                    self.lone.add(node.name)
                heapq.heappush(self.later, (time.monotonic() + delay, id(node), node, attempt + 1))
                continue
            self._end(node, replace(outcome, attempts=attempt))

    def _end(self, node: Node, outcome: Outcome) -> None:
        self.outcomes[node.name] = outcome
        self.lone.discard(node.name)
        if outcome.state == "failed":
            self.failed = self.failed or node.name
        again = self.busy.pop(node.name, None)
        self.ended(node, outcome)
        for name in self.needed_by.pop(node.name, ()):
            if name in self.waiting:
                left = self.waiting[name][1]
                left.discard(node.name)
                if not left:
                    self._set_ready(name)
        if again is not None:
            self.add([again])

    def delay(self) -> float:
        """Time until the next delayed attempt [s]."""
        return max(0.0, self.later[0][0] - time.monotonic()) if self.later else BEAT

    def give_up(self, why: str) -> None:
        """What was not started is blocked."""
        left = [node for node, _ in self.waiting.values()] + [node for node, _ in self.ready]
        left += [node for node, _, _ in self.jobs] + [node for _, _, node, _ in self.later]
        self.waiting.clear()
        self.ready.clear()
        self.jobs.clear()
        self.later.clear()
        for node in left:
            self.busy.pop(node.name, None)
            self._end(node, Outcome("blocked", error=why))


@contextmanager
def threads(slots: int) -> Iterator[Submit]:
    """Threads of this process; those of Prefect's task runner in a run that it watches. The kernels release the GIL."""
    if in_flow_run():

        def submit(job: Job) -> Future:
            with tagged(job.node.name, job.node.reads, job.node.stage):
                return make_task.submit(job).wrapped_future  # type: ignore[attr-defined]

        yield submit
    else:
        with ThreadPoolExecutor(slots) as pool:
            # In the context of the run: whether a server watches it is said there.
            yield lambda job: pool.submit(copy_context().run, make, job)


def open_engine(name: str, slots: int, timeout: float | None = None) -> AbstractContextManager[Submit]:
    """The engine of that name: ``threads``, ``processes``, ``dask``, ``dask:ADDRESS`` or ``pool:NAME``.

    Raises
    ------
    EngineError
        If there is no such engine, or it cannot be had here.
    """
    kind, _, where = name.partition(":")
    if name == "threads":
        if timeout is not None:
            raise EngineError("a thread cannot be stopped: --timeout needs --engine processes (or pool:NAME)")
        return threads(slots)
    if name == "processes":
        return processes(slots, timeout)
    if kind == "dask":
        return dask(where or None, slots)
    if kind == "pool" and where:
        return work_pool(where, slots, timeout)
    raise EngineError(f"there is no engine {name!r}; give threads, processes, dask, dask:ADDRESS or pool:NAME")
