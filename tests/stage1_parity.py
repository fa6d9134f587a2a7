"""Stage 1 of ours and of the official package (jwst 3.0.0), step by step and whole, on the same files: what parity tests share.

A test makes jobs (``job``), lets the peer run them (``run_jobs``), takes the same steps with ours (``take_steps``) and compares
(``compare_steps``, or ``compare_ramps`` and ``compare_rates`` for one product). The bars are those of the issue on stage 1:

* ramps: float32 rounding of a signal of up to 65535 DN, a few half steps of 0.004 DN (ours sums in float64, theirs in float32);
* rates: 1e-4 relative or 0.02 sigma, variances and errors 1e-3 of theirs or of the whole variance, on 99.99 % of the pixels;
* flags: the same, but for a share that a test names with its reason; 1e-4 is the most that one may name.

One difference is everywhere left out, and counted: a ramp of which every difference has a jump. The official pipeline gives it
the rate 0 and no ``DO_NOT_USE``, which would be taken for a dark pixel; ours has no rate there and says so.
"""

import importlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibration import dq
from infra.references.content import References
from infra.synthetic.crds_cache import write_mappings
from tasks.step import STEPS

#: Pixels or group flags that a bar may leave out.
SHARE = 1e-4
#: Ramps that have nothing but jumps.
ONLY_JUMPS = 1e-3
VARIANCES = ("var_poisson", "var_rnoise")
INSTRUMENTS = ("NIRISS", "NIRCAM", "NIRSPEC", "FGS", "MIRI")


def job(
    name: str,
    exposure: str | Path,
    references: Mapping[str, str | Path | None],
    steps: Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    model: str = "RampModel",
) -> dict[str, Any]:
    """What the peer is asked to do: the official names of the steps, their options, and the references by type."""
    files = {reftype: str(path) for reftype, path in references.items() if path is not None}
    return {
        "name": name, "exposure": str(exposure), "references": files, "steps": list(steps), "options": options or {},
        "model": model,
    }  # fmt: skip


def pipeline_job(
    name: str,
    exposure: str | Path,
    crds: Path,
    pipeline: str = "Detector1Pipeline",
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """A whole pipeline of the peer at its defaults; it chooses the references from the cache ``crds``."""
    return {
        "name": name, "exposure": str(exposure), "crds": str(crds), "pipeline": pipeline, "options": options or {}
    }  # fmt: skip


def run_jobs(peer: str, folder: Path, jobs: Sequence[Mapping[str, Any]]) -> None:
    """Run the jobs with the peer; its products come to ``folder`` (``load``)."""
    # The jobs of steps name their references, but the client wants a cache all the same.
    write_mappings(folder / "empty_cache", {instrument: [] for instrument in INSTRUMENTS})
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("CRDS_", "PYTHON"))}
    environment |= {
        "CRDS_PATH": str(folder / "empty_cache"),
        "CRDS_SERVER_URL": "https://jwst-serverless-mode.stsci.edu",
    }
    script = Path(__file__).parent / "parity" / "peer_detector1.py"
    done = subprocess.run([peer, script, path], env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, (done.stderr or done.stdout)[-3000:]


def load(folder: Path, name: str, step: str, ints: bool = False) -> Mapping[str, np.ndarray]:
    """What the peer made of a job up to a step; of the rates, those of the integrations where ``ints``."""
    return np.load(folder / f"{name}_{step}{'ints' if ints else ''}.npz")


def take_steps(
    product: Any, references: References, steps: Sequence[str], options: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[tuple[str, Any]]:
    """Our steps one after the other: the name of each, and the product after it (from ramp_fit on, a tuple)."""
    for name in steps:
        task = getattr(importlib.import_module(f"tasks.{name}"), name)
        own = STEPS[name].options(**(options or {}).get(name, {}))
        if isinstance(product, tuple):
            product = tuple(task.fn(one, references, own) for one in product)
        else:
            product = task.fn(product, references, own)
        if isinstance(product, tuple):
            product = tuple(one for one in product if one is not None)
        yield name, product


def compare_steps(
    folder: Path,
    name: str,
    product: Any,
    references: References,
    steps: Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None = None,
    flags: Mapping[str, float] | None = None,
    tolerance: Mapping[str, float] | None = None,
) -> Any:
    """Take our steps, compare the product after each with the peer's; returns the last.

    ``flags`` names the share of group flags (of rates: pixel flags) that may differ after a step and the steps behind it, and
    ``tolerance`` what it adds to the tolerance of the signal [DN].
    """
    share, atol = 0.0, 0.02
    for step, product in take_steps(product, references, steps, options):  # noqa: B020
        what = f"{name} {step}"
        share, atol = max(share, (flags or {}).get(step, 0)), atol + (tolerance or {}).get(step, 0)
        if isinstance(product, tuple):
            for one in product:
                compare_rates(one, load(folder, name, step, ints=one.data.ndim == 3), what, share)
        else:
            theirs = load(folder, name, step)
            # A step that finds nothing to do is SKIPPED here, and may be COMPLETE there.
            assert product.recipe[step]["status"] in (theirs["status"], "SKIPPED"), what
            compare_ramps(product, theirs, what, share, atol)
    return product


def compare_ramps(
    ramp: Any, theirs: Mapping[str, np.ndarray], what: str, flags: float = 0.0, atol: float = 0.02
) -> None:
    """Signal equal to float32 rounding or ``atol`` [DN]; group flags the same but for a share, pixel flags the same."""
    assert flags <= SHARE
    np.testing.assert_array_equal(ramp.pixeldq, theirs["pixeldq"], err_msg=f"{what} pixeldq")
    different = np.mean(ramp.groupdq != theirs["groupdq"])
    assert different <= flags, f"{what} groupdq: {different:.2e} differ, {flags:.0e} may"
    np.testing.assert_allclose(ramp.data, theirs["data"], rtol=1e-6, atol=atol, err_msg=f"{what} data")
    assert (ramp.zeroframe is None) == ("zeroframe" not in theirs), f"{what} zeroframe"
    if ramp.zeroframe is not None:
        np.testing.assert_allclose(
            ramp.zeroframe, theirs["zeroframe"], rtol=1e-6, atol=atol, err_msg=f"{what} zeroframe"
        )


def compare_rates(image: Any, theirs: Mapping[str, np.ndarray], what: str, flags: float = 0.0) -> None:
    """Rates, variances and errors within the bars of the issue where the flags agree, as they must but for a share."""
    assert flags <= SHARE
    share = differences(image, theirs)
    assert share["compared"] > 0.3, f"{what}: only {share['compared']:.2f} of the pixels can be compared"
    limits = {"jumps only": ONLY_JUMPS, "flags": flags, "NaN": 0.0} | dict.fromkeys(("rate", *VARIANCES, "err"), SHARE)
    for name, limit in limits.items():
        assert share[name] <= limit, f"{what}: of {name}, {share[name]:.2e} differ, {limit:.0e} may"


def differences(image: Any, theirs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The share of pixels that differ by more than the bars, in each plane; and of those that can be compared at all."""
    same = image.dq == theirs["dq"]
    only_jumps = (image.dq == theirs["dq"] | dq.PIXEL["DO_NOT_USE"]) & np.isnan(image.data) & (theirs["data"] == 0)
    both = same & np.isfinite(image.data) & np.isfinite(theirs["data"])
    err = theirs["err"][both]
    rate = np.abs(image.data - theirs["data"])[both] > np.maximum(1e-4 * np.abs(theirs["data"][both]), 0.02 * err)
    # Of the faintest pixels theirs has the rounding of float32 differences of bright groups: small against the error.
    variances = {
        plane: np.abs(getattr(image, plane) - theirs[plane])[both] > 1e-3 * np.maximum(theirs[plane][both], err**2)
        for plane in VARIANCES
    }
    planes = {
        "jumps only": only_jumps,
        "flags": ~same & ~only_jumps,
        "NaN": same & (np.isfinite(image.data) != np.isfinite(theirs["data"])),
        "rate": rate,
        **variances,
        "err": np.abs(image.err[both] - err) > 1e-3 * err,
        "compared": both,
    }
    return {name: float(np.mean(plane)) for name, plane in planes.items()}
