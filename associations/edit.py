"""Associations changed or made by hand: members added, removed or chosen, and associations of a list of files."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath

from associations.association import Association, AssociationError, Member, Product
from associations.naming import level2_product

log = logging.getLogger(__name__)


def add_members(association: Association, names: Iterable[str], role: str = "science") -> Association:
    """The association with these files added to every product; a file that a product has in that role is not repeated."""
    new = [Member(PurePosixPath(name).name, role) for name in names]
    products = []
    for product in association.products:
        there = {member.key for member in product.members}
        fresh = tuple(member for member in dict.fromkeys(new) if member.key not in there)
        products.append(Product(product.name, product.members + fresh, product.extra))
    return association.with_(products=tuple(products))


def remove_members(association: Association, names: Iterable[str], *, ignore_suffix: bool = False) -> Association:
    """The association without these files; a product that has no member left goes as well.

    Parameters
    ----------
    ignore_suffix : bool
        Whether ``jw..._cal.fits`` also stands for ``jw..._rate.fits`` and so on.

    Raises
    ------
    AssociationError
        If nothing would be left.
    """

    def word(name: str) -> str:
        base = PurePosixPath(name).name
        return level2_product(base) if ignore_suffix else base

    unwanted = {word(name) for name in names}
    there = {word(member.expname) for member in association.members}
    for name in sorted(unwanted - there):
        log.warning("%s: there is no member %s", association.file_name, name)
    products = _choose(association, lambda member: word(member.expname) not in unwanted)
    if not products:
        raise AssociationError(f"{association.file_name}: no member would be left; delete the file instead")
    return association.with_(products=products)


def choose_members(association: Association, roles: Sequence[str] = (), without: Sequence[str] = ()) -> Association:
    """The association with members of these roles only (all if none is given), and of none of ``without``.

    Names lose their folder: the members are meant to be copied beside the association.

    Raises
    ------
    AssociationError
        If no member is left.
    """
    products = _choose(
        association, lambda member: (not roles or member.exptype in roles) and member.exptype not in without
    )
    if not products:
        found = ", ".join(sorted({member.exptype for member in association.members}))
        raise AssociationError(f"{association.file_name}: no member is of the chosen roles; it has {found}")
    return association.with_(
        products=tuple(
            Product(
                product.name,
                tuple(
                    Member(PurePosixPath(m.expname).name, m.exptype, m.exposerr, m.asn_candidate, m.extra)
                    for m in product.members
                ),
                product.extra,
            )
            for product in products
        )
    )


def _choose(association: Association, keep: Callable[[Member], bool]) -> tuple[Product, ...]:
    products = (
        Product(product.name, tuple(member for member in product.members if keep(member)), product.extra)
        for product in association.products
    )
    return tuple(product for product in products if product.members)


def associate_files(
    names: Sequence[str],
    file_name: str,
    *,
    level: int = 3,
    product: str | None = None,
    asn_type: str | None = None,
    asn_id: str | None = None,
    roles: Sequence[str] = (),
) -> Association:
    """An association of a list of files.

    Parameters
    ----------
    names : sequence of str
        Level 3: the members of one product. Level 2: one product each, named after the file.
    product : str
        Name of the product of level 3.
    asn_type : str
        Such as ``image3``; default ``none``.
    asn_id : str
        Default ``a3001`` of level 3, ``o999`` of level 2, where it begins with o or c.
    roles : sequence of str
        Role of each file; default all science.

    Raises
    ------
    AssociationError
        If there is no file, or no name for a product of level 3, or the identifier is none of level 2.
    """
    if not names:
        raise AssociationError(
            f"{file_name}: expected at least one file to put into the association, but there is none"
        )
    if level == 3 and not product:
        raise AssociationError(f"{file_name}: an association of level 3 needs the name of its product; give one")
    if level == 2 and asn_id is not None and asn_id[:1] not in ("o", "c"):
        raise AssociationError(
            f"{file_name}: expected an identifier such as o001 or c1001 for level 2, but got {asn_id}"
        )
    members = [Member(name, role) for name, role in zip(names, roles or ["science"] * len(names), strict=True)]
    if level == 3:
        products: tuple[Product, ...] = (Product(str(product), tuple(members)),)
    else:
        products = tuple(Product(level2_product(member.expname), (member,)) for member in members)
    return Association(
        asn_type=asn_type or "none",
        products=products,
        file_name=file_name,
        asn_id=asn_id or ("a3001" if level == 3 else "o999"),
        asn_rule="calweave_from_list",
        program="noprogram",
        target="none" if level == 3 else None,
        asn_pool="none",
        constraints="No constraints",
    )
