"""The field of a grism exposure, opened: the catalog, direct image and segmentation map of image3, or some of the user's.

They are members of the association (sourcecat, direct_image, segmap) or options of spec2, which go before the members. What
is derived of a user's catalog is saved beside the spectra: ``_cat.ecsv`` with the columns of image3, and ``_segm``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from associations.association import Association, Product
from flows.stage import member_urls, save
from infra.products.catalog import NEEDED, Catalog
from infra.products.direct_image import read_direct_image, read_direct_segmentation
from infra.products.header import ProductError
from infra.products.user_catalog import read_table, read_user_catalog
from infra.references.content import References
from infra.storage.store import name_of
from tasks.field import Field, check_numbers, check_places, complete
from tasks.products import EXTENSIONS, load
from tasks.step import Options

#: Role of a member -> option of spec2 that goes before it, and keyword that names the file.
ROLES = {"sourcecat": "catalog", "direct_image": "direct_image", "segmap": "segmentation"}
CARDS = {"sourcecat": "SCATFILE", "direct_image": "DIRIMAGE", "segmap": "SEGMFILE"}


def open_field(association: str, asn: Association, product: Product, output: str, options: Options) -> Field:
    """The field of the science exposure of a product, checked.

    Raises
    ------
    ProductError
        If there is no catalog, or what there is does not fit together; the message names the file and the source.
    """
    given = options.of("spec2").values
    urls = {}
    for role, name in ROLES.items():
        members = member_urls(association, product, role, output)
        urls[role] = getattr(given, name) or (members[0] if members else None)
    if given.catalog and not given.segmentation:
        urls["segmap"] = None  # that of the association numbers the sources of another catalog
    if given.direct_image and not given.segmentation:
        urls["segmap"] = None  # and has the pixels of another image
    where = asn.file_name or name_of(association)
    if urls["sourcecat"] is None:
        raise ProductError(
            f"{where}: {product.name} is a slitless exposure and needs a catalog of its field, but the association has no "
            "sourcecat; make one with image3, or give your own: -p spec2.catalog=FILE"
        )
    catalog_url = str(urls["sourcecat"])
    direct = None if urls["direct_image"] is None else load(urls["direct_image"], read_direct_image)
    segmentation = None if urls["segmap"] is None else load(urls["segmap"], read_direct_segmentation)
    cards = {CARDS[role]: name_of(url) for role, url in urls.items() if url is not None}
    if direct is not None and segmentation is not None and direct.data.shape != segmentation.data.shape:
        raise ProductError(
            f"{cards['SEGMFILE']}: the segmentation map has {segmentation.data.shape} pixels, but the direct image "
            f"{cards['DIRIMAGE']} has {direct.data.shape}; give those of the same mosaic"
        )
    table = load(catalog_url, _table_of_image3)
    own = given.catalog or given.direct_image
    if table is None or (own and segmentation is None):
        sources = load(catalog_url, read_user_catalog)
        return complete(sources, direct, segmentation, cards, f"{product.name}_segm.fits")
    catalog = Catalog(table, table.meta.get("calweave", {}))
    if direct is None or segmentation is None:
        missing = [role for role in ("segmap", "direct_image") if urls[role] is None]
        raise ProductError(
            f"{where}: {product.name} is a slitless exposure and needs members of the roles sourcecat, segmap and "
            f"direct_image, but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; make them with image3 and "
            "name them in the association"
        )
    check_numbers(np.asarray(table["label"]).astype(np.int64), segmentation, cards)
    check_places(catalog, direct, segmentation, cards)
    return Field(catalog, direct, segmentation, cards)


def _table_of_image3(path: str) -> Any:
    """The table of a catalog that has all that image3 measures; None of any other."""
    table = read_table(Path(path))
    return table if set(NEEDED) <= set(table.colnames) else None


def save_derived(
    field: Field, product: Product, output: str, references: References, association: Association
) -> list[str]:
    """Publish the catalog and the map that were made of a user's catalog; returns their URLs."""
    return [
        save(one, output, f"{product.name}_{suffix}.{EXTENSIONS.get(type(one), 'fits')}", references, association)
        for suffix, one in field.derived.items()
    ]
