"""How the reference files of all synthetic exposures are written: their keywords, their flags, the same bytes every time."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asdf
import numpy as np
from astropy.io import fits

from calibration import dq

DATE = "2026-01-01T00:00:00.000"


def about(reftype: str, title: str, instrument: str, detector: str) -> dict[str, Any]:
    """The keywords that every reference file has."""
    return {
        "reftype": reftype,
        "telescope": "JWST",
        "pedigree": "SIMULATION",
        "author": "Calweave",
        "description": title,
        "useafter": "2022-01-01T00:00:00",
        "date": DATE,
        "instrument": {"name": instrument, "detector": detector},
    }


def save_reference(model: Any, meta: dict[str, Any], folder: Path, name: str) -> str:
    """Write a reference file; returns its name."""
    _set(model.meta, meta)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    model.meta.filename = name
    model.save(str(path))
    model.close()
    if path.suffix == ".fits":
        # The data model puts today's date; two runs of one seed shall give the same bytes.
        with fits.open(path, mode="update") as hdulist:
            hdulist[0].header["DATE"] = DATE
    else:
        with asdf.open(path, lazy_load=False, memmap=False) as file:
            tree = {key: value for key, value in file.tree.items() if key not in ("asdf_library", "history")}
        write_asdf(tree, path)
    return name


def write_asdf(tree: dict[str, Any], path: Path) -> None:
    """Write a tree the same way every time: the extensions are listed in the order of a set, unless they are there."""
    tree["meta"]["date"] = DATE
    buffer = io.BytesIO()
    asdf.AsdfFile(tree).write_to(buffer)
    buffer.seek(0)
    with asdf.open(buffer, lazy_load=False, memmap=False) as file:
        extensions = [dict(entry) for entry in file["history"]["extensions"]]
    extensions.sort(key=lambda entry: (entry["extension_class"], entry.get("extension_uri", "")))
    asdf.AsdfFile({**tree, "history": {"extensions": extensions}}).write_to(path)


def _set(node: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and hasattr(node, key):
            _set(getattr(node, key), value)
        else:
            setattr(node, key, value)


def define_dq(model: Any, names: Sequence[str]) -> None:
    """Give a reference the table DQ_DEF with the standard bits of these mnemonics."""
    rows = [(int(dq.PIXEL[name]).bit_length() - 1, int(dq.PIXEL[name]), name, name.lower()) for name in names]
    dtype = [("bit", "u4"), ("value", "u4"), ("name", "S40"), ("description", "S80")]
    model.dq_def = np.array(rows, dtype)
