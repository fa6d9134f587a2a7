"""The command line, ``calweave``. Each command imports what it needs when it is called: ``--help`` is quick."""

import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, Group, Parameter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra.provenance import calweave_version

DONE, ERROR, USAGE, NOTHING = 0, 1, 2, 64

app = App(
    name="calweave",
    help="""Calibrate JWST exposures: from raw ramps to images, catalogs and spectra, a whole program at a time.

A first look, on a simulated program:  calweave demo --out demo
Your own program:  CRDS_PATH=~/crds_cache CRDS_SERVER_URL=https://jwst-crds.stsci.edu calweave run FOLDER --out FOLDER

Files are named by paths or by URLs (s3://bucket/folder). Reference files are chosen by the crds client: CRDS_PATH names
the folder that keeps them, CRDS_SERVER_URL the observatory's server, CRDS_CONTEXT a fixed set of rules.

Exit codes: 0 done, 1 error, 2 wrong usage, 64 nothing to do (no science data on the detector). Where all that failed did so
for one reason: 70 an error of calweave, 71 memory, 73 the place of the products, 75 store, network or time (run again).""",
    help_format="plaintext",
    version=calweave_version,
)
app.register_install_completion_command()
console = Console(stderr=True, width=None if sys.stderr.isatty() else 160)

calibrate = Group("Calibrate", sort_key=1)
prepare = Group("Prepare and look", sort_key=2)

Assignments = Annotated[
    list[str],
    Parameter(
        name=["-p", "--parameter"],
        negative="",
        consume_multiple=False,
        help="STEP.OPTION=VALUE, such as jump.rejection_threshold=5 or ipc.skip=true; may be given several times; "
        "`calweave steps` lists them",
    ),
]
ParameterFile = Annotated[
    Path | None,
    Parameter(name="--parameters", help="options from a file: .toml or .json (a table for each step), or .asdf"),
]
Crds = Annotated[
    str | None,
    Parameter(name="--crds", help="folder or URL of the reference files, in place of the environment's CRDS_PATH"),
]
Verbose = Annotated[bool, Parameter(name=["-v", "--verbose"], negative="", help="every log line")]
Out = Annotated[str, Parameter(name=["-o", "--out"], help="folder or URL for the products; made if it is not there")]


def _bytes(kind: Any, tokens: Sequence[Any]) -> float:
    """A size such as 4GB, 1.5GiB or 900MB, in bytes; a number alone is in GB."""
    found = re.fullmatch(r"([0-9.]+) *(?:([kMGT]?)(i?)B?)", tokens[0].value.strip(), re.IGNORECASE)
    try:
        number = float(found[1]) if found else 0.0
    except ValueError:
        number = 0.0
    if found is None or not number > 0:
        raise ValueError(f"expected a size such as 4GB or 900MB, but got {tokens[0].value!r}")
    prefix = found[2].upper() or "G"
    return number * (1024 if found[3] else 1000) ** ("KMGT".index(prefix) + 1)


Memory = Annotated[
    float | None,
    Parameter(
        converter=_bytes,
        help="memory for all at the same time, such as 4GB; exposures that need more are calibrated in blocks of "
        "integrations; default: what is free",
    ),
]

STAGES = Literal["detector1", "dark", "guider", "image2", "image3", "spec2", "spec3"]


Inputs = Annotated[list[str], Parameter(name="INPUT", help="a folder of exposures, a pool, or association files")]
Workers = Annotated[int, Parameter(help="products made at the same time; 0: one for each core")]
Engine = Annotated[
    str,
    Parameter(
        help="where products are made: threads, processes, dask, dask:ADDRESS or pool:NAME (a Prefect work pool)"
    ),
]
Verify = Annotated[
    bool, Parameter(negative="", help="read the products that are there, to see that they are what was recorded")
]


@app.command(group=calibrate)
def run(
    inputs: Inputs,
    /,
    *,
    out: Out,
    parameter: Assignments = (),  # type: ignore[assignment]
    parameters: ParameterFile = None,
    crds: Crds = None,
    workers: Workers = 0,
    engine: Engine = "threads",
    memory: Memory = None,
    timeout: Annotated[
        float | None, Parameter(help="longest time for one product [s]; engines of other processes than this")
    ] = None,
    on_failure: Annotated[
        Literal["continue", "stop"], Parameter(help="whether to start anything more after a failure")
    ] = "continue",
    missing_members: Annotated[
        Literal["wait", "leave-out"],
        Parameter(help="a stage 3 product whose member failed: not made, or made without it until the member is there"),
    ] = "wait",
    truth: Annotated[str | None, Parameter(help="folder of truth tables to compare with in the report")] = None,
    verify: Verify = False,
    wait: Annotated[bool, Parameter(negative="", help="wait for another run on the output folder to end")] = False,
    verbose: Verbose = False,
) -> int:
    """Calibrate a whole program: every exposure and every association, each as soon as what it needs is there.

    Writes the products, the associations, run.json (what happened) and report.html (to look at) into the output folder.
    A product that is there and current is not made again. A failed exposure stops only what needs it.
    """
    _start(crds, verbose, out, inputs)
    overrides = _overrides(parameters, parameter)
    with console.status("starting"):
        from flows.program import run_program

    options = {
        "engine": engine,
        "memory": memory,
        "timeout": timeout,
        "on_failure": on_failure,
        "missing_members": missing_members,
        "verify": verify,
        "wait": wait,
    }
    return run_program(inputs, out, overrides, workers or os.cpu_count() or 1, truth, console, **options)


@app.command(group=calibrate)
def plan(
    inputs: Inputs,
    /,
    *,
    out: Annotated[str, Parameter(name=["-o", "--out"], help="folder or URL of the products")],
    parameter: Assignments = (),  # type: ignore[assignment]
    parameters: ParameterFile = None,
    crds: Crds = None,
    workers: Workers = 0,
    explain: Annotated[str | None, Parameter(help="a product: say only why it would be made, or why not")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="", help="print the plan as JSON")] = False,
    verify: Verify = False,
    verbose: Verbose = False,
) -> int:
    """Say what a run would make and why, and what it costs in time, memory and bytes. Nothing is made or fetched."""
    _start(crds, verbose, None, inputs)
    overrides = _overrides(parameters, parameter)
    with console.status("planning"):
        from flows.program import make_plan, show_plan

        page = make_plan(inputs, out, overrides, workers or os.cpu_count() or 1, verify, explain)
    if as_json:
        print(json.dumps(page, indent=1))
    else:
        show_plan(page, Console(width=None if sys.stdout.isatty() else 160), all_nodes=explain is not None)
    return DONE


@app.command(group=calibrate)
def watch(
    source: Annotated[str, Parameter(name="FOLDER", help="where raw exposures arrive; folder or URL")],
    /,
    *,
    out: Out,
    parameter: Assignments = (),  # type: ignore[assignment]
    parameters: ParameterFile = None,
    crds: Crds = None,
    workers: Workers = 0,
    engine: Engine = "threads",
    memory: Memory = None,
    deadline: Annotated[
        float,
        Parameter(
            help="associations go on so long after the last exposure of their candidate, though some that a pool in "
            "the folder announces, or may announce, are missing [s]"
        ),
    ] = 900.0,
    stop_after: Annotated[float | None, Parameter(help="end when nothing happens for so long [s]")] = None,
    verbose: Verbose = False,
) -> int:
    """Calibrate exposures as they arrive in a folder, and associations when their candidate is complete.

    A pool (*_pool.csv) in the folder announces what is to come. Goes on where an earlier watch was stopped.
    """
    _start(crds, verbose, out, [source])
    overrides = _overrides(parameters, parameter)
    with console.status("starting"):
        from flows.watch import run_watch

    options = {"engine": engine, "memory": memory, "deadline": deadline, "stop_after": stop_after}
    return run_watch(source, out, overrides, workers or os.cpu_count() or 1, console, **options)


@app.command(group=calibrate)
def stage(
    name: STAGES,
    inputs: Annotated[list[str], Parameter(name="INPUT", help="exposures, products or association files")],
    /,
    *,
    out: Out,
    parameter: Assignments = (),  # type: ignore[assignment]
    parameters: ParameterFile = None,
    crds: Crds = None,
    memory: Memory = None,
    verbose: Verbose = False,
) -> int:
    """Run one stage alone on each input: a product, or an association. An input that fails does not stop the others."""
    _start(crds, verbose, out, inputs)
    overrides = _overrides(parameters, parameter)
    with console.status("starting"):
        # Only this one: all of them take half a second more.
        flow = getattr(importlib.import_module(f"flows.{name}"), name)
        room = _room(name, memory)

    codes = set()
    for url in inputs:
        try:
            for made in flow(url, out, overrides, **room):
                print(made)
        except Exception as error:
            codes.add(_report_error(error, verbose))
    return ERROR if ERROR in codes else NOTHING if NOTHING in codes else DONE


@app.command(group=prepare)
def demo(
    *,
    out: Out = "demo",
    program: Annotated[
        str,
        Parameter(
            help="what to simulate: niriss-wfss, nircam-wfss, nircam-imaging or another program of `calweave simulate`"
        ),
    ] = "niriss-wfss",
    size: Annotated[int, Parameter(help="columns and rows of the detector to simulate, up to 2048 [pixel]")] = 1024,
    seed: Annotated[int, Parameter(help="number that the simulated program is drawn from")] = 1,
    workers: Annotated[int, Parameter(help="products made at the same time; 0: one for each core")] = 0,
    verbose: Verbose = False,
) -> int:
    """Simulate a program, calibrate it from raw ramps to spectra or a mosaic, and show the result in report.html."""
    folder = Path(out).resolve()
    _start(str(folder / "program" / "crds"), verbose, out)
    with console.status("starting"):
        from flows.demo import run_demo

    return run_demo(folder, program, size, seed, workers or os.cpu_count() or 1, console)


Images = Group("Of imaging programs", sort_key=3)


@app.command(group=prepare)
def simulate(
    preset: Annotated[
        str,
        Parameter(
            help="a whole program: niriss-wfss, nircam-wfss, miri-wfss, nircam-imaging, niriss-imaging, miri-imaging, "
            "fgs-imaging, moving-target; or an exposure, such as nircam-image or miri-sub64"
        ),
    ],
    *,
    out: Out,
    size: Annotated[
        int | None, Parameter(help="columns and rows of a program's detectors, up to 2048 (1024) [pixel]")
    ] = None,
    integrations: Annotated[int | None, Parameter(help="of an exposure (1)")] = None,
    groups: Annotated[int | None, Parameter(help="of an exposure (6), or of the images of an imaging program")] = None,
    dithers: Annotated[int | None, Parameter(group=Images, help="exposures of each tile (4)")] = None,
    tiles: Annotated[int | None, Parameter(group=Images, help="tiles of the mosaic, in a row (1)")] = None,
    filter_name: Annotated[str | None, Parameter(name="--filter", group=Images, help="such as F444W")] = None,
    detectors: Annotated[
        list[str] | None, Parameter(group=Images, consume_multiple=True, help="side by side, such as NRCA1 NRCA2")
    ] = None,
    pointing_error: Annotated[
        float | None,
        Parameter(group=Images, help="rms in each axis, from exposure to exposure (25; moving-target: 2) [mas]"),
    ] = None,
    sky_offset: Annotated[
        float | None,
        Parameter(group=Images, help="rms of the sky's level from exposure to exposure, a part of it (0.02)"),
    ] = None,
    seed: Annotated[int, Parameter(help="number that all that is random is drawn from")] = 1,
    verbose: Verbose = False,
) -> int:
    """Simulate a program or a single exposure: raw ramps, the reference files that they need, and the truth.

    Exposures: nircam-image, nircam-sub160, nircam-sub64p, nircam-subgrism64, nircam-subgrism256, niriss-image, niriss-sub80,
    niriss-substrip96, niriss-substrip256, fgs-image, miri-image and miri-SUBARRAY, nirspec-irs2 and other readouts. An unknown
    name lists them all.
    """
    _start(None, verbose, out)
    with console.status("starting"):
        from flows.demo import PROGRAMS, write
        from infra.synthetic.imaging import PRESETS, write_imaging_program
        from infra.synthetic.presets import write_preset

    of_images: dict[str, Any] = {
        "dithers": dithers, "tiles": tiles, "filter_name": filter_name, "detectors": detectors,
        "pointing_error": pointing_error, "sky_offset": sky_offset,
    }  # fmt: skip
    chosen = {name: value for name, value in of_images.items() if value is not None}
    if chosen and preset not in PRESETS:
        names = ", ".join("--" + name.removesuffix("_name").replace("_", "-") for name in chosen)
        raise ValueError(f"{names}: for imaging programs ({', '.join(PRESETS)}), not for {preset}")
    if preset in PROGRAMS:
        if integrations is not None or (groups is not None and preset not in PRESETS):
            raise ValueError(f"{preset} is a program; --integrations and --groups are for single exposures")
        size = 1024 if size is None else size
        with console.status(f"simulating {preset}, {size} x {size} pixels"):
            if preset in PRESETS:
                write_imaging_program(out, preset, size, seed, groups, **chosen)
            else:
                write(out, preset, size, seed)
        console.print(
            f"wrote {out}; calibrate it with: calweave run {out} --crds {out}/crds --out {out}/products --truth {out}/truth"
        )
        return DONE
    if size is not None:
        raise ValueError(f"--size is for the programs {', '.join(PROGRAMS)}; {preset} has that of its readout area")
    with console.status(f"simulating {preset}"):
        exposure = write_preset(out, preset, integrations or 1, groups or 6, seed)
    console.print(
        f"wrote {exposure.uncal} and {out}/truth.fits; calibrate it with: calweave stage detector1 {exposure.uncal} "
        f"--crds {out}/crds --out {out}/products"
    )
    return DONE


@app.command(group=prepare)
def steps(name: Annotated[str | None, Parameter(help="one step; default: a list of all")] = None, /) -> int:
    """List the calibration steps, or one step's options with their defaults, bounds and meaning."""
    from tasks.options import all_steps, require_step
    from tasks.step import PIPELINES

    table = Table(box=None, pad_edge=False)
    if name is None:
        for heading in ("step", "runs by default", "what it does"):
            table.add_column(heading)
        for step in all_steps().values():
            table.add_row(step.name, "yes" if step.default else "no", step.description)
    else:
        if name in PIPELINES:
            options, description = PIPELINES[name], PIPELINES[name].__doc__
        else:
            step = require_step(name)
            options, description = step.options, step.description
        print(f"{name}: {description}\n")
        for heading in ("option", "default", "meaning"):
            table.add_column(heading)
        if name not in PIPELINES:
            table.add_row("skip", str(not step.default).lower(), "leave the step out")
        for option, field in options.model_fields.items():
            signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
            bounds = [
                f"{sign} {getattr(m, key)}" for m in field.metadata for key, sign in signs.items() if hasattr(m, key)
            ]
            meaning = f"{field.description}{'; ' if bounds else ''}{' and '.join(bounds)}"
            table.add_row(option, json.dumps(field.default, default=str), escape(meaning))
    Console().print(table)
    return DONE


Product = Annotated[str, Parameter(name="FILE", help="a product of a run")]


@app.command(group=prepare)
def explain(file: Product, /, *, crds: Crds = None, verbose: Verbose = False) -> int:
    """Tell the story of a product: of what, by which steps, options and reference files, and whether it is current."""
    _start(crds, verbose, None)
    from flows.story import tell_story

    tell_story(file, Console(width=None if sys.stdout.isatty() else 160))
    return DONE


@app.command(group=prepare)
def reproduce(file: Product, /, *, crds: Crds = None, verbose: Verbose = False) -> int:
    """Make one product again from its recorded inputs, in a temporary folder, and compare it bit for bit (1: differs)."""
    _start(crds, verbose, None)
    from flows.story import reproduce

    return DONE if reproduce(file, Console(width=None if sys.stdout.isatty() else 160)) else ERROR


@app.command(group=prepare)
def report(
    folder: Annotated[str, Parameter(help="output folder of a run")],
    /,
    *,
    truth: Annotated[str | None, Parameter(help="folder of truth tables to compare with")] = None,
) -> int:
    """Write report.html anew from the products and run.json of a run."""
    from flows.report import write_report
    from infra.storage.store import join, read_text

    page = join(folder, "report.html")
    write_report(json.loads(read_text(join(folder, "run.json"))), folder, page, truth)
    print(page)
    return DONE


references = App(name="references", help="Reference files of a run.", group=prepare)
app.command(references)


@references.command
def pack(
    inputs: Annotated[list[str], Parameter(name="INPUT", help="a folder of exposures, or exposures")],
    /,
    *,
    out: Annotated[Path, Parameter(name=["-o", "--out"], help="folder to write; it is a reference cache by itself")],
    crds: Crds = None,
    verbose: Verbose = False,
) -> int:
    """Copy all reference files that a run of these exposures needs into one folder, to calibrate without a network."""
    _start(crds, verbose, str(out))
    from flows.program import pack_program

    pack_program(inputs, out)
    console.print(f"wrote {out}; use it with CRDS_PATH={out} and no CRDS_SERVER_URL")
    return DONE


wfss = App(name="wfss", help="Slitless spectra of a run.", group=prepare)
app.command(wfss)


def _numbers(kind: Any, tokens: Sequence[Any]) -> list[int]:
    """Numbers with commas between them: 12,57."""
    words = [word.strip() for token in tokens for word in token.value.split(",") if word.strip()]
    if not words or not all(word.isdigit() for word in words):
        raise ValueError(
            f"expected source numbers such as 12,57, but got {','.join(token.value for token in tokens)!r}"
        )
    return [int(word) for word in words]


SourceNumbers = Annotated[
    list[int], Parameter(converter=_numbers, n_tokens=1, negative="", help="numbers in the catalog, such as 12,57")
]


@wfss.command
def reextract(
    folder: Annotated[str, Parameter(name="DIR", help="output folder of a run")],
    /,
    *,
    sources: SourceNumbers,
    out: Annotated[
        str | None, Parameter(name=["-o", "--out"], help="folder or URL to write; default: DIR/reextracted-NUMBERS")
    ] = None,
    parameter: Assignments = (),  # type: ignore[assignment]
    parameters: ParameterFile = None,
    crds: Crds = None,
    workers: Workers = 0,
    verbose: Verbose = False,
) -> int:
    """Make the spectra of a few sources again, by the options of the run and those that are given here.

    The new products, with records and a report.html of their own, go into a folder of their own: those of the run stay.
    """
    _start(crds, verbose, out or folder)
    overrides = _overrides(parameters, parameter)
    with console.status("starting"):
        from flows.program import summarise
        from flows.wfss import reextract

    return summarise(reextract(folder, sources, out, overrides, workers or os.cpu_count() or 1), console)


@wfss.command
def previews(
    folder: Annotated[str, Parameter(name="DIR", help="output folder of a run")],
    /,
    *,
    sources: SourceNumbers | None = None,
    brightest: Annotated[int, Parameter(help="how many sources, where --sources names none")] = 100,
    truth: Annotated[str | None, Parameter(help="folder of truth tables to compare with")] = None,
    verbose: Verbose = False,
) -> int:
    """Draw a preview of each source: direct image, cutouts, neighbours and spectra; sources.html links to them."""
    _start(None, verbose, folder)
    with console.status("drawing"):
        from flows.previews import write_previews

        made = write_previews(folder, sources, brightest, truth)
    console.print(f"wrote {len(made)} previews; they are on the page {folder.rstrip('/')}/sources.html", soft_wrap=True)
    return DONE


automate = Group("On a schedule", sort_key=3)

Programs = Annotated[
    str,
    Parameter(name="INPUT", help="folder or URL of a program; 'FOLDER/*' (in quotes): each folder in it is a program"),
]
Cron = Annotated[str, Parameter(help="when programs are brought up to date: minute, hour, day, month, weekday (UTC)")]


@app.command(group=automate)
def deploy(
    source: Programs,
    /,
    *,
    out: Out,
    pool: Annotated[str, Parameter(help="work pool; made if it is not there")] = "calweave",
    kind: Annotated[
        Literal["process", "kubernetes", "ecs"],
        Parameter(help="what its workers start: a process or a job of a cluster"),
    ] = "process",
    workers: Annotated[
        int,
        Parameter(help="products of a program at the same time; 0: one for each core, or one in a job of a cluster"),
    ] = 0,
    cron: Cron = "0 3 * * *",
    verbose: Verbose = False,
) -> int:
    """Register the scheduled runs with a Prefect server (PREFECT_API_URL), for workers of a work pool to run.

    Registers the program (or all programs of a folder) on the schedule, a look for new reference files every hour, and the
    campaign. Credentials belong into the environment of the workers or the secrets of the cluster.
    """
    _start(None, verbose, None)
    from flows.deploy import register

    slots = workers or ((os.cpu_count() or 1) if kind == "process" else 1)
    return register(source, out, cron, slots, pool, kind, console)


@app.command(group=automate)
def serve(
    source: Programs,
    /,
    *,
    out: Out,
    cron: Cron = "0 3 * * *",
    workers: Workers = 0,
    limit: Annotated[int, Parameter(help="runs at the same time")] = 1,
    crds: Crds = None,
    verbose: Verbose = False,
) -> int:
    """Serve the scheduled runs from this machine, without a work pool, until Ctrl-C; it needs a Prefect server."""
    _start(crds, verbose, None)
    from flows.deploy import serve_here

    return serve_here(source, out, cron, workers or os.cpu_count() or 1, limit, console)


app.command("flows.asn:app", name="asn", group=prepare, help="Make, explain, compare and edit associations.")


def _start(crds: str | None, verbose: bool, out: str | None, inputs: Sequence[str] = ()) -> None:
    """Set the environment that Prefect and the crds client read when they are imported; see that ``out`` can be written."""
    from infra.monitoring import quiet_prefect, show_logs
    from infra.storage.store import check_url, require_writable

    if out is not None:
        require_writable(out)
    for url in inputs:
        check_url(url)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(
            name, "1"
        )  # products are made side by side: more threads in each would only get in the way
    quiet_prefect(verbose)
    if crds is not None:
        os.environ["CRDS_PATH"] = crds if "://" in crds else str(Path(crds).resolve())
    show_logs(console, verbose)


def _room(stage: str, memory: float | None) -> dict[str, Any]:
    """What a stage that runs alone may take, as arguments of its flow."""
    if stage not in ("detector1", "dark", "image3"):
        return {}
    from flows.blocks import PROGRAM
    from infra.machine import available_memory, cores

    left = available_memory() if memory is None else memory - PROGRAM
    return {"memory": left, "cores": cores()} if stage == "detector1" else {"memory": left}


def _overrides(file: Path | None, words: list[str]) -> dict[str, dict]:
    from tasks.options import merge_overrides, parse_assignments, read_parameter_file

    return merge_overrides({} if file is None else read_parameter_file(file), parse_assignments(words))


def main(words: list[str] | None = None) -> NoReturn:
    """Entry point of the command: errors of ours are one line on the terminal and exit code 1."""
    words = sys.argv[1:] if words is None else words
    try:
        code = app(words, exit_on_error=True, print_error=True, result_action="return_value")
    except KeyboardInterrupt:
        console.print("interrupted; what is complete stays")
        sys.exit(130)
    except Exception as error:
        sys.exit(_report_error(error, bool({"-v", "--verbose"} & set(words))))
    sys.exit(code if isinstance(code, int) else DONE)


def _report_error(error: Exception, verbose: bool) -> int:
    """Print an error as one line (one that we did not foresee is raised again with ``verbose``); returns its exit code."""
    from infra.errors import one_line

    expected, message = one_line(error)
    if not expected and verbose:
        raise error
    console.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    return {"NothingToDo": NOTHING, "OptionError": USAGE}.get(type(error).__name__, ERROR)


if __name__ == "__main__":
    main()
