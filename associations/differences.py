"""What two sets of associations differ in: products and members, added, removed or in another role."""

from collections.abc import Iterable
from dataclasses import dataclass

from associations.association import Association, Product


@dataclass(frozen=True)
class Change:
    """One product that is not the same on both sides.

    Attributes
    ----------
    asn_type, name : str
        The association's type and the product's name.
    kind : str
        ``added``, ``removed`` or ``changed``.
    added, removed : tuple of (expname, role)
        Members on one side only.
    moved : tuple of (expname, role before, role now)
        Members in another role.
    """

    asn_type: str
    name: str
    kind: str
    added: tuple[tuple[str, str], ...] = ()
    removed: tuple[tuple[str, str], ...] = ()
    moved: tuple[tuple[str, str, str], ...] = ()


def find_differences(before: Iterable[Association], now: Iterable[Association]) -> tuple[Change, ...]:
    """The products that differ, sorted. Numbers, times, versions and rules of the associations do not count."""
    old, new = _by_name(before), _by_name(now)
    changes = []
    for key in sorted(old.keys() | new.keys()):
        for was, is_ in _pair(old.get(key, []), new.get(key, [])):
            change = _compare(key, was, is_)
            if change is not None:
                changes.append(change)
    return tuple(changes)


def _by_name(associations: Iterable[Association]) -> dict[tuple[str, str], list[frozenset[tuple[str, str]]]]:
    found: dict[tuple[str, str], list[frozenset[tuple[str, str]]]] = {}
    for association in associations:
        for product in association.products:
            found.setdefault((association.asn_type, product.name), []).append(_members(product))
    return found


def _members(product: Product) -> frozenset[tuple[str, str]]:
    return frozenset(member.key for member in product.members)


def _pair(old: list[frozenset], new: list[frozenset]) -> Iterable[tuple[frozenset | None, frozenset | None]]:
    """Equal ones together, then those that share most members."""
    old, new = list(old), list(new)
    for members in list(old):
        if members in new:
            old.remove(members)
            new.remove(members)
    for members in old:
        nearest = max(new, key=lambda other: len(other & members), default=None)
        if nearest is not None:
            new.remove(nearest)
        yield members, nearest
    for members in new:
        yield None, members


def _compare(key: tuple[str, str], was: frozenset | None, is_: frozenset | None) -> Change | None:
    if was is None or is_ is None:
        members = tuple(sorted(is_ or was or ()))
        return Change(*key, "added", added=members) if was is None else Change(*key, "removed", removed=members)
    gone, come = was - is_, is_ - was
    moved = tuple(sorted((name, role, new) for name, role in gone for other, new in come if name == other))
    stayed = {name for name, _, _ in moved}
    return Change(
        *key,
        "changed",
        added=tuple(sorted(member for member in come if member[0] not in stayed)),
        removed=tuple(sorted(member for member in gone if member[0] not in stayed)),
        moved=moved,
    )
