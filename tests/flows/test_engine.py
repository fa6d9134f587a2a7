"""The loop that hands out nodes, on nodes that only pretend to work; and what a run does about each kind of failure."""

import errno
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from flows.engine import Limits, execute, open_engine
from flows.graph import Node
from flows.making import Job, Outcome
from flows.plan import in_order
from flows.workers import EngineError
from infra import errors
from infra.errors import POLICIES, classify
from infra.products.header import ProductError


def node(name, *needs):
    return Node(name, "detector1", f"{name}_uncal.fits", needs)


class Pretence:
    """An engine whose nodes sleep a little; it remembers what ran, and beside what."""

    def __init__(self, slots=2, **failures):
        self.pool = ThreadPoolExecutor(slots)
        self.failures = {name: list(kinds) for name, kinds in failures.items()}
        self.started, self.beside, self.running, self.alone = [], {}, set(), {}
        self.lock = threading.Lock()
        self.ended = {}

    def submit(self, job) -> Future:
        return self.pool.submit(self.work, job)

    def work(self, job):
        name = job.node.name
        with self.lock:
            self.started.append(name)
            self.alone[name] = job.alone
            self.beside[name] = set(self.running)
            self.running.add(name)
        time.sleep(0.01)
        with self.lock:
            self.running.discard(name)
            kinds = self.failures.get(name)
            kind = kinds.pop(0) if kinds else None
        return Outcome("done", (f"{name}.fits",)) if kind is None else Outcome("failed", error=kind, failure=kind)

    def decide(self, node, outcomes, attempt):
        stopped = [name for name in node.needs if outcomes[name].state != "done"]
        if stopped:
            return Outcome("blocked", error=f"needs {stopped}")
        return Job(node, "out", {}, None, attempt=attempt)

    def run(self, nodes, slots=2, memory=float("inf"), **more):
        return execute(nodes, self.submit, self.decide, self.ended.__setitem__, Limits(slots, memory), **more)


@pytest.fixture(autouse=True)
def no_delay(monkeypatch):
    for kind, policy in POLICIES.items():
        monkeypatch.setitem(POLICIES, kind, replace(policy, delay=policy.delay / 100))


def test_a_node_starts_when_what_it_needs_is_done_and_not_when_its_stage_begins():
    engine = Pretence()
    outcomes = engine.run([node("late", "b"), node("a"), node("b", "a"), node("alone"), node("last", "late", "alone")])
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    order = {name: at for at, name in enumerate(engine.started)}
    assert order["a"] < order["b"] < order["late"] < order["last"]
    assert order["alone"] < order["late"]
    assert {done.name for done in engine.ended} == set(outcomes)


def test_a_failure_stops_only_what_needs_it():
    engine = Pretence(a=["input"])
    outcomes = engine.run(
        [node("a"), node("b"), node("after a", "a"), node("after both", "after a", "b"), node("c", "b")]
    )
    assert {name: outcome.state for name, outcome in outcomes.items()} == {
        "a": "failed", "b": "done", "c": "done", "after a": "blocked", "after both": "blocked",
    }  # fmt: skip


def test_after_a_failure_nothing_new_starts_where_that_is_asked_for():
    engine = Pretence(slots=1, a=["input"])
    outcomes = engine.run([node("a"), node("b"), node("c", "b")], slots=1, stop_on_failure=True)
    assert engine.started == ["a"]
    assert {outcomes[name].state for name in "bc"} == {"blocked"}
    assert "--on-failure" in outcomes["b"].error


@pytest.mark.parametrize(
    ("kinds", "state", "attempts"),
    [
        (["transient"], "done", 2),
        (["transient"] * 2, "done", 3),
        (["transient"] * 3, "failed", 3),
        (["input"], "failed", 1),
        (["program"], "failed", 1),
        (["timeout"], "failed", 1),
        (["memory"], "done", 2),
        (["killed", "killed"], "failed", 2),
    ],
)
def test_each_kind_of_failure_is_tried_as_often_as_its_policy_says(kinds, state, attempts):
    outcomes = Pretence(a=kinds).run([node("a"), node("b", "a")])
    assert (outcomes["a"].state, outcomes["a"].attempts) == (state, attempts)
    assert outcomes["b"].state == ("done" if state == "done" else "blocked")


def test_what_ran_out_of_memory_is_tried_again_with_nothing_beside_it():
    engine = Pretence(slots=4, a=["memory"])
    engine.run([node("a"), *(node(f"b{n}") for n in range(20))], slots=4)
    assert engine.beside["a"] == set()
    assert engine.alone["a"]
    assert not any("a" in engine.beside[f"b{n}"] for n in range(8, 20)), "and nothing starts beside it"


def test_no_more_slots_than_given_and_no_more_memory_than_there_is():
    engine = Pretence(slots=8)
    nodes = [node(f"n{n}") for n in range(24)]
    engine.run(nodes, slots=3)
    assert max(map(len, engine.beside.values())) <= 2
    engine = Pretence(slots=8)
    engine.run(nodes, slots=8, memory=10.0, memory_of=lambda node: 4.0)
    assert max(map(len, engine.beside.values())) == 1


def test_what_needs_more_memory_than_there_is_runs_alone_and_in_its_turn():
    engine = Pretence(slots=8)
    nodes = [node("small0"), node("large"), *(node(f"small{n}") for n in range(1, 30))]
    engine.run(nodes, slots=8, memory=10.0, memory_of=lambda node: 50.0 if node.name == "large" else 1.0)
    assert engine.beside["large"] == set()
    assert engine.started.index("large") < 3


def test_slots_times_threads_are_never_more_than_the_cores():
    engine, jobs = Pretence(), {}
    submit = engine.submit
    engine.submit = lambda job: (jobs.__setitem__(job.node.name, job), submit(job))[1]
    engine.run([node("a"), node("b"), node("c", "a", "b"), node("d", "c")], slots=2, memory=10.0)
    assert {name: job.cores for name, job in jobs.items()} == {"a": 1, "b": 1, "c": 2, "d": 2}
    assert all(job.room == 10.0 for job in jobs.values())


def test_nodes_that_come_while_it_runs_are_made():
    engine = Pretence()
    batches = iter([[node("b", "a")], [], [node("c", "b"), node("d")], None])
    outcomes = engine.run([node("a")], more=lambda: next(batches))
    assert {name: outcome.state for name, outcome in outcomes.items()} == dict.fromkeys("abcd", "done")
    with pytest.raises(StopIteration):
        next(batches)


def test_a_node_that_comes_again_is_made_again_even_while_it_is_made():
    engine = Pretence()
    batches = iter([[node("a")], [node("a")], [], [], [], None])
    engine.run([node("a")], more=lambda: next(batches))
    assert 2 <= engine.started.count("a") <= 3
    assert not any("a" in engine.beside[name] for name in ("a",)), "never twice at the same time"


def test_what_needs_a_node_that_never_comes_is_blocked():
    assert Pretence().run([node("a", "nobody")])["a"].state == "blocked"


def test_thousands_of_nodes_wait_without_a_thread_each():
    engine = Pretence()
    engine.work = lambda job: Outcome("done")
    layers = [
        [node(f"{layer} {n}", *([f"{layer - 1} {n}"] if layer else [])) for n in range(1000)] for layer in range(3)
    ]
    before = threading.active_count()
    outcomes = engine.run([one for layer in layers for one in layer])
    assert len(outcomes) == 3000
    assert threading.active_count() <= before + 2


def test_nodes_that_wait_for_each_other_are_named():
    with pytest.raises(ProductError, match=r"circle: .*a.*b"):
        in_order([node("a", "b"), node("b", "a"), node("c")])


@pytest.mark.parametrize(("name", "timeout"), [("gpu", None), ("pool:", None), ("threads", 5.0)])
def test_an_engine_that_cannot_be_had_is_refused_in_words(name, timeout):
    with pytest.raises(EngineError, match="processes"):
        open_engine(name, 1, timeout)


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ProductError("damaged"), "input"),
        (caused(ProductError("damaged"), ConnectionResetError()), "transient"),
        (OSError(errno.ENOSPC, "full", "x"), "place"),
        (caused(RuntimeError("in a step"), MemoryError()), "memory"),
        (TimeoutError(), "transient"),
        (KeyError("x"), "program"),
    ],
)
def test_an_error_is_classified_by_what_caused_it(error, kind):
    assert classify(error).kind == kind
    assert POLICIES[kind].remedy


def test_every_remedy_is_a_sentence_that_says_what_to_do():
    for policy in errors.POLICIES.values():
        assert any(word in policy.remedy for word in ("run", "raise", "make room"))


def test_the_exit_code_of_a_run_tells_the_one_kind_of_its_failures():
    assert errors.exit_code_of(["transient", "transient"]) == 75
    assert errors.exit_code_of(["transient", "program"]) == 1
    assert errors.exit_code_of(["input"]) == errors.exit_code_of([]) == 1
