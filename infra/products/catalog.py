"""``Catalog``: the sources of a mosaic, with their file ``_cat.ecsv``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from infra.products.header import ProductError
from infra.provenance import made_of

if TYPE_CHECKING:
    from astropy.table import QTable


#: astropy keeps the class of the column that it is about to make where all threads share it, so that two readers make columns
#: of each other's classes (latitudes in Jy). Products are made in threads: only one reads a table of such columns at a time.
ONE_READER = Lock()


@dataclass(frozen=True)
class Catalog:
    """The sources of a mosaic.

    Attributes
    ----------
    table : QTable
        One row per source; possibly none.
    recipe : mapping
        What the steps did: step -> status, options, references.
    """

    table: "QTable"
    recipe: Mapping[str, Any] = field(default_factory=dict)

    with_ = replace


#: What the grism pipelines need of a catalog.
NEEDED = (
    "label",
    "xcentroid",
    "ycentroid",
    "sky_centroid",
    "is_extended",
    "isophotal_abmag",
    "sky_bbox_ll",
    "sky_bbox_ul",
    "sky_bbox_lr",
    "sky_bbox_ur",
)


def read_catalog(path: str | Path) -> Catalog:
    """Read a ``_cat.ecsv`` file.

    Raises
    ------
    ProductError
        If it is absent, is no ECSV table, or lacks a column.
    """
    path = Path(path)
    try:
        # Here, not above: stages without catalogs load fast.
        from astropy.table import QTable

        with ONE_READER:
            table = QTable.read(path, format="ascii.ecsv")
    except FileNotFoundError:
        raise ProductError(f"{path}: there is no such catalog; run image3 on the direct images first") from None
    except Exception as error:
        # astropy's reader raises many types for a file that is not a table.
        raise ProductError(f"{path.name}: expected an ECSV table of sources, but it cannot be read: {error}") from error
    missing = [name for name in NEEDED if name not in table.colnames]
    if missing:
        raise ProductError(
            f"{path.name}: expected a catalog of sources, but the columns {', '.join(missing)} are missing; "
            "give the _cat.ecsv of image3"
        )
    return Catalog(table, table.meta.get("calweave", {}))


def write_catalog(catalog: Catalog, path: str | Path) -> None:
    """Write a catalog as ECSV text."""
    table = catalog.table.copy(copy_data=False)
    if catalog.recipe:
        table.meta["calweave"] = dict(catalog.recipe)
    origin = made_of()
    if origin is not None:
        table.meta["calweave_made_of"] = dict(origin)
    table.write(path, format="ascii.ecsv", overwrite=True)
