"""Duplicates and subsets: of associations that make the same, one stays."""

import logging
from collections.abc import Iterable, Sequence

from associations.association import Association, Member, Product

log = logging.getLogger(__name__)


def prune(associations: Sequence[Association]) -> tuple[list[Association], list[tuple[Association, Association]]]:
    """Keep one of the associations that have the same members, and the larger of two that make the same product.

    Parameters
    ----------
    associations : sequence
        Of one level, each with one product.

    Returns
    -------
    list of Association
        Those that stay, in their order.
    list of (Association, Association)
        Each that went, and the one that it went for.

    Notes
    -----
    Of those with the same members (and roles) stays the one with the alphabetically greatest candidate, so that an
    observation goes before a candidate of several and that before the whole pool; then the one whose rule has the
    greatest name. Of two with the same product and other members goes the one with fewer, unless a file has different
    roles in the two: this drops a product that has no background for its twin that has one. It is not asked whether the
    larger contains the smaller: the archive's own associations are made so.
    """
    dropped: list[tuple[Association, Association]] = []
    same: dict[tuple, list[Association]] = {}
    for association in associations:
        members = (association.program, *sorted(member.key for member in association.members))
        same.setdefault(members, []).append(association)
    best = []
    for equals in same.values():
        equals.sort(key=_rank)
        best.append(equals[-1])
        dropped += [(lesser, equals[-1]) for lesser in equals[:-1]]
    unique = {id(association) for association in best}
    remaining = [association for association in associations if id(association) in unique]

    by_name: dict[str, list[Association]] = {}
    for association in remaining:
        by_name.setdefault(association.products[0].name, []).append(association)
    gone: set[int] = set()
    for twins in by_name.values():
        if len(twins) > 1:
            twins.sort(key=lambda twin: len(twin.products[0].members))
            for i, small in enumerate(twins):
                for large in twins[i + 1 :]:
                    if len(small.products[0].members) == len(large.products[0].members):
                        _warn_of_twins(small, large)
                    elif not _disagree(small.products[0].members, large.products[0].members):
                        gone.add(id(small))
                        dropped.append((small, large))
                        break
                    else:
                        _warn_of_twins(small, large)
    return [association for association in remaining if id(association) not in gone], dropped


def _rank(association: Association) -> tuple[str, str]:
    rule = (association.asn_rule or "").partition("_")[2]
    return association.asn_id or "", rule


def _disagree(members: Iterable[Member], others: Iterable[Member]) -> bool:
    roles = {member.expname: member.exptype for member in others}
    return any(roles.get(member.expname, member.exptype) != member.exptype for member in members)


def _warn_of_twins(one: Association, other: Association) -> None:
    bases = [sorted((m.expname.rpartition("_")[0], m.exptype) for m in asn.members) for asn in (one, other)]
    if bases[0] != bases[1]:
        log.warning(
            "%s (%s) and %s (%s) make the product %s of different members",
            one.asn_id, one.asn_rule, other.asn_id, other.asn_rule, one.products[0].name,
        )  # fmt: skip


def merge(associations: Sequence[Association]) -> list[Association]:
    """Fold level 2 associations of one program, candidate and type into one with many products.

    Products of equal name are united.
    """
    merged: dict[tuple, Association] = {}
    result: list[Association | tuple] = []
    for association in associations:
        if association.level != 2:
            result.append(association)
            continue
        key = (association.program, association.asn_id, association.asn_type)
        if key not in merged:
            merged[key] = association
            result.append(key)
        else:
            first = merged[key]
            products = _unite((*first.products, *association.products))
            status = max(filter(None, (first.degraded_status, association.degraded_status)), key=len, default=None)
            merged[key] = first.with_(products=products, degraded_status=status)
    return [merged[item] if isinstance(item, tuple) else item for item in result]


def _unite(products: Iterable[Product]) -> tuple[Product, ...]:
    united: dict[str, dict[str, Member]] = {}
    for product in products:
        members = united.setdefault(product.name, {})
        for member in product.members:
            members.setdefault(member.expname, member)
    return tuple(Product(name, tuple(members.values())) for name, members in united.items())
