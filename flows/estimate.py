"""What nodes will cost: CPU, time, memory and bytes, from what the records say of earlier ones of the same stage."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from flows.graph import Node
from flows.plan import Survey, header_of
from infra.products.header import Header, ProductError
from infra.references.client import ReferenceCacheError
from infra.sidecar import Record

#: Memory of a process that has imported everything and compiled nothing [bytes].
BASE_MEMORY = 300e6


@dataclass(frozen=True)
class Estimate:
    """CPU and wall time [s], memory of the process [bytes], bytes written."""

    cpu_seconds: float = 0.0
    seconds: float = 0.0
    memory: float = BASE_MEMORY
    bytes_out: float = 0.0


@dataclass(frozen=True)
class Rate:
    """What a stage takes: ``fixed`` seconds a node, and per sample (see ``work_of``) CPU [s], memory and output [bytes]."""

    fixed: float
    cpu: float
    memory: float
    out: float


#: Where nothing is recorded: measured on simulated NIRISS programs of 512 to 2048 pixels.
DEFAULTS: Mapping[str, Rate] = {
    "detector1": Rate(0.3, 150e-9, 14.0, 3.5),
    "dark": Rate(0.3, 60e-9, 14.0, 6.0),
    "guider": Rate(0.2, 60e-9, 14.0, 4.0),
    "image2": Rate(0.5, 400e-9, 120.0, 60.0),
    "image3": Rate(1.0, 700e-9, 100.0, 60.0),
    "spec2": Rate(1.0, 3000e-9, 250.0, 40.0),
    "spec3": Rate(0.5, 300e-9, 60.0, 2.0),
}


def work_of(scene: Survey, node: Node) -> int:
    """Samples of a node: pixels x groups x integrations of an exposure, pixels of the science members of an association.

    0 where no header tells.
    """
    association = scene.associations.get(node.target)
    try:
        if association is None:
            header = header_of(scene, node, node.reads)
            return _pixels(header) * int(header.get("NGROUPS") or 1) * int(header.get("NINTS") or 1)
        science = [member.expname for member in association.members if member.exptype == "science"]
        return _pixels(header_of(scene, node, science)) * len(science)
    except (ProductError, ReferenceCacheError):
        return 0


def _pixels(header: Header) -> int:
    return int(header.get("SUBSIZE1") or 2048) * int(header.get("SUBSIZE2") or 2048)


def rates(records: Iterable[Record]) -> dict[str, Rate]:
    """Stage -> what it takes: of the records, where there are some, else of ``DEFAULTS``."""
    found = dict(DEFAULTS)
    by_stage: dict[str, list[Record]] = {}
    for record in records:
        if record.work and record.state == "done" and record.cpu_seconds:
            by_stage.setdefault(record.stage, []).append(record)
    for stage, mine in by_stage.items():
        default = DEFAULTS.get(stage, DEFAULTS["detector1"])
        peaks = [(r.peak_memory_bytes - BASE_MEMORY) / r.work for r in mine if r.peak_memory_bytes]
        found[stage] = Rate(
            fixed=0.0,
            cpu=median(record.cpu_seconds / record.work for record in mine),
            memory=max(median(peaks), 0.0) if peaks else default.memory,
            out=median(record.bytes_out / record.work for record in mine),
        )
    return found


def estimate(stage: str, work: int, known: Mapping[str, Rate]) -> Estimate:
    """What a node of a stage with so many samples will take."""
    rate = known.get(stage, DEFAULTS["detector1"])
    cpu = rate.fixed + rate.cpu * work
    return Estimate(cpu, cpu, BASE_MEMORY + rate.memory * work, rate.out * work)


def wall_time(estimates: Mapping[str, Estimate], nodes: Iterable[Node], slots: int) -> float:
    """Time that these nodes take together [s]: shared by the slots, but no shorter than the longest chain."""
    ends: dict[str, float] = {}
    total = 0.0
    for node in nodes:  # in order
        mine = estimates[node.name].seconds if node.name in estimates else 0.0
        total += mine
        ends[node.name] = mine + max((ends.get(name, 0.0) for name in node.needs), default=0.0)
    return max(total / slots, max(ends.values(), default=0.0))
