"""``EmiWaves``: waves of interference that were seen in an exposure, as an EMICORR reference (``_emi_ref_waves``)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asdf

from infra.products.header import ProductError


@dataclass(frozen=True)
class EmiWaves:
    """The tree of an EMICORR reference file: ``frequencies``, ``subarray_cases`` and ``meta``."""

    tree: Mapping[str, Any]

    with_ = replace


def read_waves(path: str | Path) -> Mapping[str, Any]:
    """The tree of an EMICORR reference file that a user names."""
    try:
        with asdf.open(path, lazy_load=False, memmap=False) as file:
            tree = dict(file.tree)
    except (OSError, ValueError) as error:
        raise ProductError(f"{Path(path).name}: cannot read it as an EMICORR reference file ({error})") from None
    missing = [key for key in ("frequencies", "subarray_cases") if key not in tree]
    if missing:
        raise ProductError(f"{Path(path).name}: an EMICORR reference file must have {' and '.join(missing)}")
    return tree


def write_waves(waves: EmiWaves, path: str | Path) -> None:
    """Write an EMICORR reference file."""
    asdf.AsdfFile(dict(waves.tree)).write_to(path)
