"""``FitOutput``: what the slope fit found in each segment of each ramp, and its file ``_fitopt``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from infra.products.fits import Hdu, read_fits, write_fits
from infra.products.header import Header


@dataclass(frozen=True)
class FitOutput:
    """Segments of all ramps; see ``calibration.ramps.fit_output.Segments`` for their meaning and units.

    Attributes
    ----------
    slope, sigslope, var_poisson, var_rnoise, yint, sigyint, weights : (nints, nsegments, ny, nx) float32
    pedestal : (nints, ny, nx) float32
    crmag : (nints, njumps, ny, nx) float32
    recipe : mapping
        What the steps did: step -> status, options, references.
    """

    header: Header
    slope: np.ndarray
    sigslope: np.ndarray
    var_poisson: np.ndarray
    var_rnoise: np.ndarray
    yint: np.ndarray
    sigyint: np.ndarray
    pedestal: np.ndarray
    weights: np.ndarray
    crmag: np.ndarray
    recipe: Mapping[str, Any] = field(default_factory=dict)

    with_ = replace


PLANES = ("slope", "sigslope", "var_poisson", "var_rnoise", "yint", "sigyint", "pedestal", "weights", "crmag")


def read_fit_output(path: str | Path) -> FitOutput:
    """Read a ``_fitopt`` file."""
    contents = read_fits(path)
    planes = {name: contents.require(name.upper()).astype(np.float32, copy=False) for name in PLANES}
    return FitOutput(contents.header, **planes, recipe=contents.recipe)


def write_fit_output(fit: FitOutput, path: str | Path) -> None:
    """Write a ``_fitopt`` file."""
    hdus = [Hdu(name.upper(), getattr(fit, name)) for name in PLANES]
    write_fits(path, "RampFitOutputModel", fit.header, hdus, {"calweave": {"recipe": dict(fit.recipe)}})
