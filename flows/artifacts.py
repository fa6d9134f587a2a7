"""What Prefect's pages show of a run besides its log: tags, the graph of products, progress, previews, figures, a summary.

Pictures are data addresses inside markdown: both generations of Prefect's pages show these, without a network. (An image
artifact prints its whole address beside the picture, and only the newer pages draw Mermaid.)

Nothing here happens without a server, and what goes wrong here is a warning: the run goes on. Texts are shown without the
credentials that this process was given.
"""

import base64
import contextlib
import logging
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from prefect import tags
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.states import Failed

from flows.report_plots import Box, draw_graph, draw_labels, draw_picture, format_seconds, merge_alike
from infra.credentials import hide_credentials
from infra.errors import one_line
from infra.observed import is_observed
from infra.products.figures import figures_of
from infra.products.fits import read_fits
from infra.products.names import stem_of, suffix_of
from infra.storage.store import fetched, join

log = logging.getLogger(__name__)

Row = Mapping[str, Any]  # a node as in run.json: name, stage, needs, state, products, error, seconds

UPDATE_EVERY = 5.0  # [s] between two changes of progress and graph
MERGED = 12  # from so many products on, the graph shows groups
PREVIEWS = 400  # in a larger run only stages 2 and 3 of a program get previews: pages and database stay small
PREVIEW_EDGE = 360  # [pixel]
LISTED = 200  # rows of a table

WAITING = "waiting"

#: How many nodes the run has, where this process follows it.
_SIZE: ContextVar[int] = ContextVar("size", default=1)
_COLOURS = {
    "done": "#15803d", "current": "#0f766e", "failed": "#b91c1c", "blocked": "#a16207", "empty": "#6b7280", WAITING: "#94a3b8",
    "running": "#1d4ed8",
}  # fmt: skip

_EXPOSURE = re.compile(r"jw(\d{5})(\d{3})(\d{3})_\d{5}_\d{5}(?:-seg\d{3})?_([a-z0-9]+)")
_ASSOCIATION = re.compile(r"jw(\d{5})-([a-z]\d{3,4})")
_INSTRUMENTS = {"nrc": "NIRCAM", "nis": "NIRISS", "nrs": "NIRSPEC", "mir": "MIRI", "gui": "FGS"}


class ProgramFailed(Exception):
    """Some products of a program failed; ``record`` is what its flow returns where none does."""

    def __init__(self, message: str, record: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.record = record


# --- tags -------------------------------------------------------------------------------------------------------------


def tags_of(name: str, needs: Iterable[str] = (), stage: str | None = None) -> set[str]:
    """Tags of a product's run by names alone: program, observation or candidate, exposure, instrument and stage."""
    found = set() if stage is None else {f"stage:{stage}"}
    own = _EXPOSURE.match(name)
    if own:
        found.add(f"exposure:{own.group(0)}")
    for text in (name, *needs):
        if match := _EXPOSURE.match(text):
            program, observation, _, detector = match.groups()
            found |= {f"program:{program}", f"obs:{observation}"}
            if detector[:3] in _INSTRUMENTS:
                found.add(f"instrument:{_INSTRUMENTS[detector[:3]]}")
        elif match := _ASSOCIATION.match(text):
            program, candidate = match.groups()
            kind = f"obs:{candidate[1:]}" if candidate[0] == "o" else f"candidate:{candidate}"
            found |= {f"program:{program}", kind}
    return found


@contextlib.contextmanager
def tagged(name: str, needs: Iterable[str], stage: str) -> Iterator[None]:
    """The runs within carry the tags of a product."""
    if not is_observed():
        yield
        return
    with tags(*sorted(tags_of(name, needs, stage))):
        yield


# --- the run of a program ---------------------------------------------------------------------------------------------


def follow(nodes: Sequence[Row], plan: Sequence[Row] = ()) -> Callable[[Row], None]:
    """Show the graph, the plan and the progress of a run that begins; returns what to call with each row as it ends.

    Parameters
    ----------
    nodes
        Rows with ``name``, ``stage`` and ``needs``.
    plan
        Rows of what is to be made, with ``reasons``, ``cpu_seconds`` and ``memory`` [bytes].
    """
    from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact

    if not is_observed() or FlowRunContext.get() is None or not nodes:
        return lambda row: None
    rows: dict[str, Row] = {row["name"]: {"state": WAITING, **row} for row in nodes}
    _SIZE.set(len(rows))
    key = _key(_program(rows), "")
    shown: dict[str, Any] = {}
    clock = time.monotonic()
    with _never_fails("the start of the run"):
        _label_run(rows)
        if plan:
            text = hide_credentials(_plan(plan, len(rows)))
            create_markdown_artifact(text, key=f"{key}-plan", description="What this run does, and why")
        shown["graph"] = create_markdown_artifact(
            _graph(rows), key=f"{key}-graph", description="Products and what each waits for"
        )
        shown["progress"] = create_progress_artifact(0.0, key=f"{key}-progress", description=_counted(rows))

    def ended(row: Row) -> None:
        nonlocal clock
        rows[row["name"]] = {**rows.get(row["name"], {}), **row}
        over = all(one["state"] not in (WAITING, "running") for one in rows.values())
        if not over and time.monotonic() - clock < UPDATE_EVERY:
            return
        with _never_fails("the progress"):
            _update(shown["graph"], _graph(rows), "Products and what each waits for")
            done = sum(one["state"] not in (WAITING, "running") for one in rows.values())
            update_progress_artifact(shown["progress"], 100.0 * done / len(rows), description=_counted(rows))
        clock = time.monotonic()

    return ended


def _plan(plan: Sequence[Row], nodes: int) -> str:
    cpu, memory = (sum(row.get("cpu_seconds", 0) for row in plan), max(row.get("memory", 0) for row in plan))
    head = f"{len(plan)} to make, {nodes - len(plan)} up to date; about {format_seconds(cpu)} of CPU, at most "
    head += f"{memory / 1e9:.1f} GB for one.\n\n"
    table = _table(
        {
            "product": row["name"],
            "stage": row["stage"],
            "why": "; ".join(row.get("reasons", ())),
            "about": f"{format_seconds(row.get('cpu_seconds', 0))}, {row.get('memory', 0) / 1e9:.1f} GB",
        }
        for row in plan[:LISTED]
    )
    return head + table + (f"\n\n{len(plan) - LISTED} more" if len(plan) > LISTED else "")


def show_summary(record: Mapping[str, Any]) -> None:
    """Show how a run ended: numbers for each stage, what failed and what to do, and the graph with its times."""
    from prefect.artifacts import create_markdown_artifact

    if not is_observed() or FlowRunContext.get() is None:
        return
    with _never_fails("the summary"):
        rows = {row["name"]: row for row in record["nodes"]}
        key = _key(str(record.get("program") or _program(rows)), "summary")
        create_markdown_artifact(hide_credentials(_summary(record)) + _graph(rows), key=key, description=_counted(rows))


def final_state(record: Mapping[str, Any]) -> Any:
    """What the flow of a program returns: the record, or the failed state of Prefect where something failed.

    Prefect's pages then say so, and offer Retry, which makes what was not made.
    """
    states = Counter(row["state"] for row in record["nodes"])
    if FlowRunContext.get() is None or not states["failed"] + states["blocked"]:
        return record
    first = next(row for row in record["nodes"] if row["state"] in ("failed", "blocked"))
    words = hide_credentials(
        f"{states['failed']} failed, {states['blocked']} not made because of it; {first['name']}: {first['error']}"
    )
    return Failed(message=words, data=ProgramFailed(words, record))


def show_campaign(what: str, rows: Sequence[Row]) -> None:
    """Show how the programs of a campaign ended: ``name``, ``state``, ``made``, ``detail``, ``seconds`` of each."""
    from prefect.artifacts import create_markdown_artifact

    if not is_observed() or FlowRunContext.get() is None:
        return
    with _never_fails("the summary"):
        order = ("failed", "done", "new", "current")
        listed = sorted(rows, key=lambda row: order.index(row["state"]) if row["state"] in order else len(order))
        text = _table(
            {
                "program": row["name"],
                "state": row["state"],
                "made": len(row["made"]) or "",
                "time": format_seconds(row["seconds"]),
                "what happened, and what to do": row["detail"],
            }
            for row in listed[:LISTED]
        )
        counts = Counter(row["state"] for row in rows)
        words = f"{len(rows)} programs: " + ", ".join(f"{count} {state}" for state, count in counts.items())
        create_markdown_artifact(hide_credentials(f"# {words}\n\n{text}"), key=_key(what, "summary"), description=words)


def _summary(record: Mapping[str, Any]) -> str:
    nodes = record["nodes"]
    states = list(dict.fromkeys(["done", *(row["state"] for row in nodes)]))
    stages = []
    for stage in dict.fromkeys(row["stage"] for row in nodes):
        mine = [row for row in nodes if row["stage"] == stage]
        counts = Counter(row["state"] for row in mine)
        stages.append(
            {"stage": stage}
            | {state: counts[state] or "" for state in states}
            | {
                "time": format_seconds(sum(row.get("seconds") or 0 for row in mine)),
                "products": sum(len(row.get("products") or ()) for row in mine),
            }
        )
    bad = [row for row in nodes if row["state"] == "failed"]
    blocked = [row for row in nodes if row["state"] == "blocked"]
    head = [f"# {'All is well' if not bad + blocked else f'{len(bad)} failed, {len(blocked)} not made because of it'}"]
    head.append(
        f"Program {record.get('program') or '(several)'}, {format_seconds(record['seconds'])}, reference files of "
        f"{record.get('context')}. Products, `run.json` and `report.html` are in `{record['output']}`."
    )
    head.append(_table(stages))
    if bad or blocked:
        head.append("## What failed, and what to do")
        head.append(
            _table(
                {"product": row["name"], "stage": row["stage"], "what happened, and what to do": row.get("error")}
                for row in [*bad, *blocked][:LISTED]
            )
        )
    return "\n\n".join(head) + "\n\n"


def _label_run(rows: Mapping[str, Row]) -> None:
    """Give the flow run the name and tags of its program; how many observations it may name is bounded."""
    context = FlowRunContext.get()
    found: set[str] = set()
    for row in rows.values():
        found |= {tag for tag in tags_of(row["name"]) if not tag.startswith("exposure:")}
    observations = sorted(tag for tag in found if tag.startswith(("obs:", "candidate:")))
    found -= set(observations[8:])
    assert context is not None
    assert context.flow_run is not None
    with get_client(sync_client=True) as client:
        name = f"program {_program(rows)}" if _program(rows) else None
        client.update_flow_run(context.flow_run.id, name=name, tags=sorted({*context.flow_run.tags, *found}))


def _program(rows: Mapping[str, Row]) -> str:
    programs = {tag for name in rows for tag in tags_of(name) if tag.startswith("program:")}
    return programs.pop().removeprefix("program:") if len(programs) == 1 else ""


def _counted(rows: Mapping[str, Row]) -> str:
    counts = Counter(row["state"] for row in rows.values())
    return f"{len(rows)} products: " + ", ".join(f"{count} {state}" for state, count in counts.items())


def _graph(rows: Mapping[str, Row]) -> str:
    """The graph as markdown with a picture; groups of products alike where there are many, a table where it is vast."""
    boxes = [
        Box(name, stem_of(name), row["stage"], row["state"], tuple(row["needs"]), row.get("seconds") or None)
        for name, row in rows.items()
    ]
    if len(boxes) >= MERGED:
        boxes = merge_alike(boxes)
    if len(boxes) > LISTED:
        counts = Counter((row["stage"], row["state"]) for row in rows.values())
        return _table({"stage": stage, "state": state, "products": n} for (stage, state), n in counts.items())
    prefix = f"jw{_program(rows)}"
    return f"![graph of products]({_picture_of_svg(draw_graph(boxes, prefix if len(prefix) > 2 else ''))})\n"


def _picture_of_svg(svg: str) -> str:
    """The address of a drawing of the report as a picture that stands by itself: with its size and colours."""
    width, height = re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups()  # type: ignore[union-attr]
    rules = [
        "text{font-family:DejaVu Sans Mono,Menlo,Consolas,monospace;font-size:11px;fill:#111827}",
        ".what{font-size:10px;fill:#4b5563}.links path{fill:none;stroke:#64748b;stroke-width:1.2}",
        "rect{fill:#fff;stroke:#64748b;stroke-width:1.4}",
    ]
    for state, colour in _COLOURS.items():
        rules.append(f".{state} rect{{stroke:{colour}}}.{state} .mark{{fill:{colour}}}")
    rules.append(".failed rect{fill:#fee2e2;stroke-width:2.2}.blocked rect{stroke-dasharray:4 3}")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    style = f'<style>{"".join(rules)}</style><rect width="100%" height="100%" style="fill:#f8fafc;stroke:none"/>'
    whole = head + svg.removeprefix("<svg ").replace(">", f">{style}", 1)
    return f"data:image/svg+xml;base64,{base64.b64encode(whole.encode()).decode()}"


# --- one product ------------------------------------------------------------------------------------------------------


def show_products(name: str, stage: str, products: Sequence[str], output: str) -> None:
    """Show what a node made on its own run: previews, quality figures, and what each step did."""
    from prefect.artifacts import create_markdown_artifact

    vast = _SIZE.get() > PREVIEWS and stage in ("detector1", "dark", "guider")
    if not is_observed() or not products or vast:
        return
    with _never_fails(f"the products of {name}"):
        text = _products(stage, [product for product in products if product.endswith(".fits")], output)
        create_markdown_artifact(hide_credentials(text), key=_key(name, stage), description=f"{stage} of {name}")


def _products(stage: str, products: Sequence[str], output: str) -> str:
    """Products as markdown: the picture of what the stage is for, a row of figures for each, and the steps of the last."""
    from flows.report_products import UNSHOWN, image_of  # it loads tables and trees, which a start can do without

    figures: list[Row] = []
    pictures: list[str] = []
    recipe: Mapping[str, Any] = {}
    for name in products:
        suffix = suffix_of(name)
        # Slits are hundreds of arrays, and of the exposures that went into a mosaic the mosaic is shown.
        pictured = suffix in ("rate", "cal", "segm", "i2d", "dark") and not stage.startswith("spec")
        pictured &= not (suffix == "i2d" and stage == "image2")
        measured = not stage.startswith("spec")
        with fetched(join(output, name)) as path:
            contents = read_fits(Path(path), skip=UNSHOWN if measured else [*UNSHOWN, "SCI", "DQ"])
        # Two columns: the page lets a wider table run under what stands beside it.
        words = ", ".join(f"{what} {value}" for what, value in figures_of(contents, suffix).items())
        figures.append({"product": stem_of(name), "figures": words})
        if pictured:
            draw = draw_labels if suffix == "segm" else draw_picture
            pictures.append(f"![{name}]({draw(image_of(contents)[0], PREVIEW_EDGE).address})")
        recipe = contents.recipe
    steps = {step: entry for step, entry in recipe.items() if isinstance(entry, Mapping) and "status" in entry}
    done = ", ".join(step for step, entry in steps.items() if entry["status"] == "COMPLETE")
    reasons = {step: entry.get("reason", "") for step, entry in steps.items() if entry["status"] != "COMPLETE"}
    left_out = [f"- {step}: {reason}" for step, reason in reasons.items() if reason != "off by default"]
    parts = [" ".join(pictures), _table(figures)]
    parts += [f"**Steps done**: {done}"] if done else []
    parts += ["**Steps left out**:\n\n" + "\n".join(left_out)] if left_out else []
    return "\n\n".join(part for part in parts if part)


# --- small things -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _never_fails(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.warning("Prefect's pages do not show %s: %s", what, hide_credentials(one_line(error)[1]))


def _update(artifact: Any, text: str, description: str) -> None:
    from prefect.client.schemas.actions import ArtifactUpdate

    with get_client(sync_client=True) as client:
        client.update_artifact(artifact, ArtifactUpdate(data=text, description=description))


def _key(name: str, more: str) -> str:
    """A key of Prefect: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{'program ' if name.isdigit() or not name else ''}{name} {more}".lower()).strip(
        "-"
    )


def _table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as a markdown table, with the keys of the first as its head."""
    rows = list(rows)
    if not rows:
        return ""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + " --- |" * len(rows[0])]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(key)) for key in rows[0]) + " |")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
