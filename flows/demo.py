"""The demo: simulate a program, calibrate it, and hold the result against the truth that went in."""

import logging
import shutil
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from flows.program import run_program
from infra.products.header import ProductError
from infra.synthetic import imaging, slitless
from infra.synthetic.compare import compare_with_truth
from infra.synthetic.compare_imaging import BRIGHT, OUTLYING, compare_imaging
from infra.synthetic.program import PRESETS, SyntheticProgram, write_program

log = logging.getLogger(__name__)

PROGRAMS = (*PRESETS, *slitless.PRESETS, *imaging.PRESETS)
LINE_SNR = 10.0
CONTINUUM_SNR = 30.0


def write(folder: str | Path, program: str, size: int, seed: int) -> SyntheticProgram:
    """Simulate the ``program``, one of ``PROGRAMS``, with what it has unless told otherwise."""
    if program in PRESETS:
        return write_program(folder, program, size, seed)
    if program in slitless.PRESETS:
        return slitless.write_wfss_program(folder, program, size, seed)
    return imaging.write_imaging_program(folder, program, size, seed)


def run_demo(folder: Path, program: str, size: int, seed: int, slots: int, console: Console) -> int:
    """Write ``folder/program`` (the simulated exposures) and ``folder/products``; returns the exit code of the command.

    ``program`` is one that ``calweave simulate`` knows.
    A demo that is already in the folder is made anew; a folder with anything else is left alone.
    """
    if folder.exists() and set(path.name for path in folder.iterdir()) - {"program", "products", "report.html"}:
        raise ProductError(f"{folder}: expected a new folder or one of an earlier demo; choose another with --out")
    if program not in PROGRAMS:
        raise ValueError(f"the program of the demo must be one of {', '.join(PROGRAMS)}, not {program!r}")
    for name in ("program", "products"):
        shutil.rmtree(folder / name, ignore_errors=True)
    clock = time.monotonic()
    with console.status(f"simulating {program}, {size} x {size} pixels, seed {seed}"):
        made = write(folder / "program", program, size, seed)
    console.print(
        f"simulated {len(made.uncal)} exposures of {len(made.sources)} sources in {time.monotonic() - clock:.0f} s"
    )
    products, truth = folder / "products", folder / "program" / "truth"
    code = run_program([str(made.folder)], str(products), {}, slots, str(truth), console)
    if code == 0:
        (print_imaging if program in imaging.PRESETS else print_comparison)(products, truth, console)
    console.print(f"[bold]look at[/] {products / 'report.html'}   ({time.monotonic() - clock:.0f} s in all)")
    return code


def print_comparison(products: Path, truth: Path, console: Console) -> None:
    """Say how much of the truth came back."""
    result = compare_with_truth(products, truth)
    console.print(
        f"truth: {result.found} of {result.expected} sources brighter than 10 sigma found"
        + (f" (not: {', '.join(map(str, result.missing))})" if result.missing else "")
        + f", positions {result.position_rms:.3f} pixel rms, {result.position_worst:.3f} at worst"
    )
    good = result.lines[result.lines["snr"] > LINE_SNR]
    if len(good):
        console.print(
            f"truth: {len(good)} emission lines above {LINE_SNR:.0f} sigma, {np.std(good['offset']):.2f} spectral pixels rms, "
            f"{np.abs(good['offset']).max():.2f} at worst; flux ratio {np.median(good['flux_ratio']):.3f} (median)"
        )
    stars = result.continua[result.continua["error"] * CONTINUUM_SNR < 1]
    if len(stars):
        console.print(
            f"truth: {len(stars)} spectra of stars above {CONTINUUM_SNR:.0f} sigma, continuum over the true one "
            f"{np.median(stars['ratio']):.3f} (median)"
        )


def print_imaging(products: Path, truth: Path, console: Console) -> None:
    """Say how much of the truth of an imaging program came back."""
    result = compare_imaging(products, truth)
    lines = [
        f"{result.found} of {result.bright} stars brighter than {BRIGHT:.0f} sigma found, positions {result.positions:.2f} mas "
        f"rms, but for {result.shift:.1f} mas that all are off by",
        f"{result.exposures} exposures aligned within {result.aligned:.2f} mas rms, from errors of {result.injected:.1f} mas; "
        f"their skies agree within {result.sky:.3f} sigma of a pixel",
        f"their fluxes over the true ones {result.total:.4f} (total aperture), {result.isophotal:.4f} (isophotal; median)",
    ]
    if result.hits:  # stage 1 finds most by itself
        lines.append(
            f"{result.removed} of {result.hits} pixels that particles left more than {OUTLYING:.0f} sigma too bright are "
            f"removed, {1e6 * result.lost:.1f} of a million good ones are lost"
        )
    for line in lines:
        console.print(f"truth: {line}")
