"""The single exposures that a user can simulate by name."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from calibration.simulate.miri import SUBARRAYS
from infra.synthetic import near_infrared, nirspec
from infra.synthetic.exposure import SyntheticExposure, write_truth
from infra.synthetic.miri import write_miri_exposure
from infra.synthetic.near_infrared import write_near_infrared_exposure
from infra.synthetic.nirspec import write_nirspec_exposure

#: Name -> what writes it; all take a folder, nints, ngroups and a seed.
EXPOSURES: dict[str, Callable[..., SyntheticExposure]] = {
    **{name: partial(write_near_infrared_exposure, mode=name) for name in near_infrared.MODES},
    **{f"nirspec-{name}": partial(write_nirspec_exposure, mode=name) for name in nirspec.MODES},
    **{
        f"miri-{'image' if name == 'FULL' else name.lower()}": partial(write_miri_exposure, subarray=name)
        for name in SUBARRAYS
    },
}


def write_preset(folder: str | Path, preset: str, nints: int = 1, ngroups: int = 6, seed: int = 1) -> SyntheticExposure:
    """Simulate the exposure ``preset`` and write it, its references and its truth (``truth.fits``) into ``folder``.

    Raises
    ------
    ValueError
        If the preset is not known.
    FileExistsError
        If the folder already holds an exposure.
    """
    if preset not in EXPOSURES:
        raise ValueError(f"preset must be one of {', '.join(EXPOSURES)}, not {preset!r}")
    folder = Path(folder)
    if list(folder.glob("*_uncal.fits")):
        raise FileExistsError(f"{folder} already holds an exposure; remove it or choose another folder")
    exposure = EXPOSURES[preset](folder, nints=nints, ngroups=ngroups, seed=seed)
    write_truth(folder / "truth.fits", exposure.rate, exposure.hits)
    return exposure
