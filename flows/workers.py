"""Engines of other processes: local workers that live through many nodes, Dask, and the work pools of Prefect.

A local worker that is killed takes only its node along, which is tried again by another one. Workers end with the run:
one that outlived a killed run could write among the products of the next.
"""

import json
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import connection
from typing import Any

import cloudpickle
from prefect.context import hydrated_context, serialize_context

from flows.artifacts import show_products, tagged, tags_of
from flows.estimate import Estimate
from flows.graph import Node
from flows.making import STAGES, Job, Outcome, make, make_task, outcome_of
from infra.errors import POLICIES
from infra.monitoring import ROOMS, product_of_now
from infra.observed import ObservedFlow, is_observed

log = logging.getLogger(__name__)

Submit = Callable[[Job], Future]

#: Threads of the linear algebra below NumPy: ours are the nodes themselves, so that slots x threads <= cores.
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


#: What a worker on another machine is told of the environment; paths and credentials are its own.
OURS = ("CALWEAVE_", "CRDS_CONTEXT", "SOURCE_DATE_EPOCH")


def pack(job: Job, far: bool = False) -> bytes:
    """A job as it travels: with the environment of the run, and the Prefect run that it is part of, if there is one."""
    environment = {name: value for name, value in os.environ.items() if not far or name.startswith(OURS)}
    return cloudpickle.dumps((job, environment, serialize_context() if is_observed() else None))


def make_there(message: bytes) -> Outcome:
    """Make the node of a packed job in this process."""
    job, environment, context = cloudpickle.loads(message)
    os.environ.update(environment)
    if context is None:
        return make(job)
    with hydrated_context(context), tagged(job.node.name, job.node.reads, job.node.stage):
        return outcome_of(make_task(job, return_state=True))


@dataclass
class _Worker:
    """A worker process and the line to it."""

    process: Any
    line: Any


@dataclass
class _Crew:
    """The workers of one run: those that are idle, and all that live."""

    timeout: float | None
    idle: "queue.SimpleQueue[_Worker]" = field(default_factory=queue.SimpleQueue)
    all: list[_Worker] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, job: Job, message: bytes) -> Outcome:
        """Have a worker make a node, and wait for it."""
        worker = self._take()
        try:
            outcome = self._call(worker, job, message)
        except BaseException:
            self._end(worker)
            raise
        if worker.process.is_alive():
            self.idle.put(worker)
        return outcome

    def _take(self) -> _Worker:
        with suppress(queue.Empty):
            while True:
                worker = self.idle.get_nowait()
                if worker.process.is_alive():
                    return worker
                self._end(worker)
        # One process imports everything once, and each worker is a fork of it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["flows.workers", *(f"flows.{stage}" for stage in STAGES)])
        with self.lock:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            worker = _Worker(process, ours)
            self.all.append(worker)
        return worker

    def _call(self, worker: _Worker, job: Job, message: bytes) -> Outcome:
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        try:
            worker.line.send_bytes(message)
            while True:
                left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
                ready = connection.wait([worker.line, worker.process.sentinel], left)
                if not ready:
                    self._end(worker)
                    line = f"{job.node.name}: not done after {self.timeout:g} s; stopped"
                    return Outcome("failed", error=line, failure="timeout", seconds=float(self.timeout or 0))
                if worker.line not in ready:
                    break
                kind, what = worker.line.recv()
                if kind == "outcome":
                    return what
                logging.getLogger(what.name).handle(what)
        except (EOFError, OSError):  # it died, and the line with it
            pass
        self._end(worker)
        code = worker.process.exitcode
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        line = f"{job.node.name}: its worker process was killed ({name})"
        return Outcome("failed", error=line, failure="killed")

    def _end(self, worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.line.close()
        with self.lock, suppress(ValueError):
            self.all.remove(worker)

    def disband(self, now: bool = False) -> None:
        """End all workers: ``now``, or as soon as each sees that its line is closed."""
        for worker in list(self.all):
            if not now:
                worker.line.close()
                worker.process.join(5.0)
            self._end(worker)


@contextmanager
def processes(slots: int, timeout: float | None) -> Iterator[Submit]:
    """Worker processes of this machine; ``timeout`` [s] is a hard limit: the worker is killed."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update({name: value for name, value in ONE_THREAD.items() if before[name] is None})
    crew = _Crew(timeout)
    try:
        with ThreadPoolExecutor(slots) as pool:
            try:
                yield lambda job: pool.submit(crew.make, job, pack(replace(job, alone=True)))
            except BaseException:
                crew.disband(now=True)
                raise
    finally:
        crew.disband()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _serve(line: Any) -> None:
    """What a worker does: nodes, one after the other, until the line is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sending = threading.Lock()
    for room in ROOMS:
        logger = logging.getLogger(room)
        logger.setLevel(logging.INFO)
        logger.addHandler(_Forward(line, sending))
    while True:
        try:
            message = line.recv_bytes()
        except EOFError:
            return
        outcome = make_there(message)
        with sending:
            line.send(("outcome", outcome))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


class _Forward(logging.Handler):
    """Sends the lines of a worker to the process of the run, which shows them."""

    def __init__(self, line: Any, sending: threading.Lock) -> None:
        super().__init__()
        self.line, self.sending = line, sending

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args = record.getMessage(), None
        if record.exc_info:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
            record.exc_info = None
        record.product = product_of_now()
        with self.sending, suppress(OSError):
            self.line.send(("log", record))


@contextmanager
def dask(address: str | None, slots: int) -> Iterator[Submit]:
    """Dask workers: those of the scheduler at ``address``, or a cluster of ``slots`` processes on this machine.

    Raises
    ------
    EngineError
        If ``distributed`` is not installed.
    """
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise EngineError(
            "the engine dask needs the package distributed; install it: pip install 'calweave[dask]'"
        ) from error

    kept: dict[Any, Future] = {}
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        cluster = None
        if address is None:
            os.environ.update({name: value for name, value in ONE_THREAD.items() if name not in os.environ})
            cluster = LocalCluster(n_workers=slots, threads_per_worker=1, processes=True, dashboard_address=None)
        client = Client(address or cluster, set_as_default=False)

        def submit(job: Job) -> Future:
            future: Future = Future()
            there = client.submit(
                make_there, pack(replace(job, alone=address is None), address is not None), pure=False, retries=0
            )
            kept[there] = future

            def settle(done: Any) -> None:
                kept.pop(done, None)
                if done.status == "finished":
                    future.set_result(done.result())
                else:
                    why = done.exception() if done.status == "error" else done.status
                    line = f"{job.node.name}: its Dask worker was lost ({type(why).__name__}: {why})"
                    future.set_result(Outcome("failed", error=line, failure="killed"))

            there.add_done_callback(settle)
            return future

        try:
            yield submit
        finally:
            client.close()
            if cluster is not None:
                cluster.close()


@contextmanager
def work_pool(name: str, slots: int, timeout: float | None) -> Iterator[Submit]:
    """A work pool of Prefect: each node is a run of the deployment ``calweave_node/NAME``, made here where it is not.

    Raises
    ------
    EngineError
        Without a server.
    """
    if not is_observed():
        raise EngineError(
            f"the engine pool:{name} needs a Prefect server: set PREFECT_API_URL to its address (`prefect server start` on "
            "this machine), and start a worker of the pool"
        )
    from prefect.deployments import run_deployment
    from prefect.deployments.runner import RunnerDeployment

    from infra.deployments.pools import NOTHING_TO_PULL, job_resources, kind_of_pool

    jobs_are = kind_of_pool(name)
    settings = {"PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(ROOMS), **ONE_THREAD}
    deployment = RunnerDeployment.from_entrypoint(
        "flows.workers.node", name=name, work_pool_name=name, job_variables={"env": settings}
    )
    deployment.storage = NOTHING_TO_PULL
    deployment.apply()

    def run(job: Job) -> Outcome:
        # Half as much again as was measured: a job that takes more is killed by the cluster.
        memory = 1.5 * (job.memory + Estimate().memory)
        there: Any = run_deployment(
            f"calweave_node/{name}",
            parameters={"job": json.dumps(asdict(job))},
            timeout=timeout,
            poll_interval=1,
            flow_run_name=f"{job.node.stage} {job.node.name}",
            tags=sorted(tags_of(job.node.name, job.node.reads, job.node.stage)),
            job_variables=job_resources(jobs_are, int(memory)),
        )
        state = there.state
        if state is None or not state.is_final():
            return Outcome("failed", error=f"{job.node.name}: not done after {timeout} s", failure="timeout")
        if state.is_completed():
            return _from_record(job)
        if state.is_crashed():
            return Outcome("failed", error=f"{job.node.name}: its run crashed ({state.message})", failure="killed")
        # Prefect's words before what ``make_elsewhere`` raised.
        _, _, told = (state.message or "").rpartition(f"{NodeFailed.__name__}: ")
        kind, _, line = told.partition(": ")
        if kind in POLICIES:
            return Outcome("failed", error=line, failure=kind)
        return Outcome("failed", error=state.message, failure="program")

    with ThreadPoolExecutor(slots) as pool:
        # In the context of the run that asks, so that its page links to theirs.
        yield lambda job: pool.submit(copy_context().run, run, job)


def _from_record(job: Job) -> Outcome:
    """The outcome of a node that was made elsewhere: what its record in the output says."""
    from infra.sidecar import read_record, record_name
    from infra.storage.store import join

    record = read_record(join(job.output, record_name(job.node.name)))
    if record is None:
        return Outcome(
            "failed", error=f"{job.node.name}: its run ended, but there is no record of it", failure="program"
        )
    return Outcome(
        record.state,
        tuple(record.products),
        record.error,
        started=record.started,
        seconds=record.seconds,
        cpu_seconds=record.cpu_seconds,
        peak_memory_bytes=record.peak_memory_bytes,
        bytes_in=record.bytes_in,
        bytes_out=record.bytes_out,
        fingerprint=record.fingerprint,
        left_out=tuple(record.recipe.get("left_out", ())),
    )


class EngineError(Exception):
    """An engine cannot be had; the message says what it needs."""


def make_elsewhere(job: str) -> dict[str, Any]:
    """Make the node of a job (JSON) in the run of a deployment.

    Raises
    ------
    NodeFailed
        With the kind of the failure before its line.
    """
    tree = json.loads(job)
    tree["node"] = Node(**{**tree["node"], **{key: tuple(tree["node"][key]) for key in ("needs", "makes")}})
    tree["references"] = {name: tuple(what) for name, what in tree["references"].items()}
    outcome = make(Job(**{**tree, "before": tuple(tree["before"]), "alone": True}))
    if outcome.state == "failed":
        raise NodeFailed(f"{outcome.failure}: {outcome.error}")
    show_products(tree["node"].name, tree["node"].stage, outcome.products, tree["output"])
    return asdict(outcome)


class NodeFailed(Exception):
    """A node failed in the run of a deployment."""


def _name_of_run() -> str:
    from prefect.runtime import flow_run

    made = json.loads(flow_run.parameters["job"])["node"]
    return f"{made['stage']} {made['name']}"


node = ObservedFlow(make_elsewhere, "calweave_node", _name_of_run)
