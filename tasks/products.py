"""Load and save products by URL, for the flows: the only place where a step's arrays meet a store."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from infra.products.catalog import Catalog, write_catalog
from infra.products.emi_waves import EmiWaves, write_waves
from infra.products.fit_output import FitOutput, write_fit_output
from infra.products.guider import Guider, write_guider
from infra.products.image import Image, Segmentation, glance_at_image, in_memory, write_image, write_segmentation
from infra.products.persistence import SuspectPixels, TrapsFilled, write_suspects, write_traps_filled
from infra.products.ramp import Ramp, write_ramp
from infra.products.slits import SlitSet, write_slits
from infra.products.spectrum import SpectrumSet, write_spectra
from infra.sidecar import note_product
from infra.storage.store import fetched, writing

WRITERS: dict[type, Callable[[Any, str], None]] = {
    Ramp: write_ramp,
    Image: write_image,
    Segmentation: write_segmentation,
    FitOutput: write_fit_output,
    Guider: write_guider,
    SlitSet: write_slits,
    SpectrumSet: write_spectra,
    Catalog: write_catalog,
    SuspectPixels: write_suspects,
    TrapsFilled: write_traps_filled,
    EmiWaves: write_waves,
}

#: Products whose files are not FITS.
EXTENSIONS: dict[type, str] = {Catalog: "ecsv", SuspectPixels: "asdf", EmiWaves: "asdf"}


def load(url: str, read: Callable[[str], Any]) -> Any:
    """The product of a URL, read by one of the ``read_*`` functions of ``infra.products``."""
    with fetched(url) as path:
        return read(path)


def load_later(url: str) -> Image:
    """The image of a URL, whose planes are read when they are needed (`infra.products.image.in_memory`)."""
    with fetched(url) as path:
        return glance_at_image(path, partial(fetched, url))


def save(product: Any, url: str) -> str:
    """Publish a product, whole or not at all; returns its URL."""
    if isinstance(product, Image):
        product = in_memory(product)
    for kind, write in WRITERS.items():
        if isinstance(product, kind):
            with writing(url, _bytes_of(product)) as path:
                write(product, path)
                note_product(path, url)
            return url
    raise TypeError(f"cannot save a {type(product).__name__} as {url}; expected one of {[k.__name__ for k in WRITERS]}")


def _bytes_of(value: Any) -> int:
    """About how large the file of a product will be [byte]: its arrays, and a few blocks of header for each."""
    if hasattr(value, "nbytes"):
        return int(value.nbytes) + 9_000
    if is_dataclass(value):
        return sum(_bytes_of(getattr(value, one.name)) for one in fields(value))
    if isinstance(value, list | tuple):
        return sum(map(_bytes_of, value))
    if isinstance(value, dict):
        return sum(map(_bytes_of, value.values()))
    return 0
