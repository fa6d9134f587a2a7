"""The association: products to make, and the members that each is made of; its checks and its JSON.

A file that we write carries the keys of the official schema (``jwst`` documentation, "Associations", section "Level 2
and level 3 association technical specifications"). A file that we read needs only ``products`` and, in each, ``members``
with ``expname`` and ``exptype``: observers edit these files by hand. Keys that we do not know are kept.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

#: The two values of ``degraded_status``, as the archive expects them.
NOT_DEGRADED = "No known degraded exposures in association."
DEGRADED = (
    "One or more members have an error associated with them.\nDetails can be found in the member.exposerr attribute."
)

_HEADER_KEYS = (
    "asn_type",
    "asn_rule",
    "version_id",
    "code_version",
    "degraded_status",
    "program",
    "constraints",
    "asn_id",
    "target",
    "asn_pool",
)
_TYPE_IN_NAME = re.compile(r"_([a-z0-9-]+)_\d+_asn\.json$")


class AssociationError(Exception):
    """An association cannot be used; the message says which file, where in it, why and what to do, in one line."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a product, and the role that it plays (``exptype``: science, background ...)."""

    expname: str
    exptype: str
    exposerr: str | None = None
    asn_candidate: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> tuple[str, str]:
        """What two members have in common when they are the same."""
        return self.expname, self.exptype


@dataclass(frozen=True, slots=True)
class Product:
    """A product to make, by the root of its file names, and its members."""

    name: str
    members: tuple[Member, ...]
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def of_role(self, *roles: str) -> tuple[Member, ...]:
        """The members that play one of these roles."""
        return tuple(member for member in self.members if member.exptype in roles)


@dataclass(frozen=True, slots=True)
class Association:
    """What one run of a stage 2 or stage 3 pipeline works on.

    ``file_name`` is not a key of the file: it is what the file is called.
    """

    asn_type: str
    products: tuple[Product, ...]
    file_name: str
    asn_id: str | None = None
    asn_rule: str | None = None
    program: str | None = None
    target: str | None = None
    asn_pool: str | None = None
    version_id: str | None = None
    code_version: str | None = None
    degraded_status: str | None = None
    constraints: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def members(self) -> Iterator[Member]:
        """The members of all products."""
        return (member for product in self.products for member in product.members)

    @property
    def level(self) -> int:
        """2 or 3: the last digit of the type."""
        return int(self.asn_type[-1]) if self.asn_type[-1:].isdigit() else 3

    def with_(self, **changes: Any) -> "Association":
        """A copy with other values."""
        return replace(self, **changes)

    def to_json(self) -> str:
        """The text of the association file."""
        tree: dict[str, Any] = {}
        for key in _HEADER_KEYS:
            value = getattr(self, key)
            if value is not None or key == "version_id":
                tree[key] = value
        tree.update(self.extra)
        tree["products"] = [
            {"name": product.name, "members": [_member_tree(member) for member in product.members], **product.extra}
            for product in self.products
        ]
        return json.dumps(tree, indent=4) + "\n"


def _member_tree(member: Member) -> dict[str, Any]:
    tree = {"expname": member.expname, "exptype": member.exptype}
    for key in ("exposerr", "asn_candidate"):
        if (value := getattr(member, key)) is not None:
            tree[key] = value
    return {**tree, **member.extra}


def read_association(text: str, name: str) -> Association:
    """The association that a file holds.

    Parameters
    ----------
    text : str
        Content of the file.
    name : str
        What the file is called, for messages and for ``file_name``.

    Raises
    ------
    AssociationError
        If the text is no JSON (with line and column) or no association (with the place in it), or if a member or a
        product would be read or written outside the folder of the association.
    """
    try:
        tree = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_refuse_repeated_keys)
    except json.JSONDecodeError as error:
        hint = (
            "; JSON has no comments" if text[error.pos : error.pos + 2] in ("//", "/*") or _is_hash(text, error) else ""
        )
        raise AssociationError(
            f"{name}, line {error.lineno}, column {error.colno}: expected an association as JSON, but: {error.msg}{hint}; "
            "correct the file"
        ) from None
    except RecursionError:
        raise AssociationError(f"{name}: expected an association as JSON, but it is nested too deeply") from None
    except _RepeatedKey as error:
        line, column = _place_of_key(text, error.key, error.pairs)
        raise AssociationError(
            f"{name}, line {line}, column {column}: the key {error.key!r} stands twice in one object; keep one of them"
        ) from None
    check = _Checker(name)
    tree = dict(check.mapping(tree, "the file"))
    if "products" not in tree:
        raise AssociationError(f"{name}: expected the key 'products', but found {_names(tree)}; is it an association?")
    products = []
    for i, product in enumerate(check.sequence(tree.pop("products"), "products")):
        products.append(_read_product(product, f"products[{i}]", check))
    if not products:
        raise AssociationError(f"{name}: expected at least one product, but 'products' is empty; add one")
    header = {key: check.text(tree.pop(key, None), key) for key in _HEADER_KEYS}
    if header["asn_type"] is None:
        found = _TYPE_IN_NAME.search(name)
        header["asn_type"] = found[1] if found else "none"
    return Association(products=tuple(products), file_name=name, extra=tree, **header)  # type: ignore[arg-type]


def _read_product(tree: Any, place: str, check: "_Checker") -> Product:
    tree = dict(check.mapping(tree, place))
    if "members" not in tree:
        raise AssociationError(f"{check.name}: expected the key 'members' in {place}, but found {_names(tree)}; add it")
    members = []
    for i, member in enumerate(check.sequence(tree.pop("members"), f"{place}.members")):
        here = f"{place}.members[{i}]"
        member = dict(check.mapping(member, here))
        words = {}
        for key in ("expname", "exptype"):
            words[key] = (check.text(member.pop(key, None), f"{here}.{key}") or "").strip()
            if not words[key]:
                raise AssociationError(f"{check.name}: expected a text in {here}.{key}, but there is none; fill it in")
        check.inside(words["expname"], f"{here}.expname")
        notes = {key: check.text(member.pop(key, None), f"{here}.{key}") for key in ("exposerr", "asn_candidate")}
        members.append(Member(words["expname"], words["exptype"].lower(), extra=member, **notes))
    if not members:
        raise AssociationError(f"{check.name}: expected at least one member in {place}, but it has none; add one")
    name = check.text(tree.pop("name", None), f"{place}.name")
    if name is None:
        name = next((m.expname for m in members if m.exptype == "science"), members[0].expname).rpartition("_")[0]
    check.inside(name, f"{place}.name")
    return Product(name, tuple(members), tree)


@dataclass(frozen=True)
class _Checker:
    """Raises the error of a value that is of the wrong kind, with its place in the file."""

    name: str

    def mapping(self, value: Any, place: str) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise AssociationError(f"{self.name}: expected an object {{...}} for {place}, but found {_brief(value)}")
        return value

    def sequence(self, value: Any, place: str) -> Sequence[Any]:
        if not isinstance(value, list):
            raise AssociationError(f"{self.name}: expected a list [...] for {place}, but found {_brief(value)}")
        return value

    def text(self, value: Any, place: str) -> str | None:
        if value is not None and not isinstance(value, str):
            raise AssociationError(f"{self.name}: expected a text for {place}, but found {_brief(value)}; quote it")
        return value

    def inside(self, path: str, place: str) -> None:
        parts = re.split(r"[/\\]", path)
        if parts[0] == "" or ".." in parts or ":" in path or any(ord(letter) < 32 for letter in path):
            raise AssociationError(
                f"{self.name}: expected a file in the folder of the association for {place}, but found {_brief(path)}, "
                "which leads out of it; write the name alone"
            )


class _RepeatedKey(Exception):
    def __init__(self, key: str, pairs: list[tuple[str, Any]]) -> None:
        self.key, self.pairs = key, pairs


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKey(next(key for key in keys if keys.count(key) > 1), pairs)
    return tree


def _place_of_key(text: str, key: str, pairs: list[tuple[str, Any]]) -> tuple[int, int]:
    """Line and column of the repetition: the key's second stand in an object whose other keys are around it."""
    stands = [found.start() for found in re.finditer(re.escape(json.dumps(key)) + r"\s*:", text)]
    # The parser meets the objects in order, so the first object that repeats the key is the first whose two stands
    # have no brace of another object's end between them.
    for first, second in pairwise(stands):
        between = text[first:second]
        if between.count("}") == between.count("{"):
            return text.count("\n", 0, second) + 1, second - text.rfind("\n", 0, second)
    return 1, 1


def _is_hash(text: str, error: json.JSONDecodeError) -> bool:
    return text[error.pos : error.pos + 1] == "#"


def _names(tree: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, list(tree)[:8])) or "nothing"


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def single_association(expname: str, product: str) -> Association:
    """The stand-in of a single file: an association of level 2 with that file as the only science member."""
    return Association("none", (Product(product, (Member(expname, "science"),)),), f"{product}_asn.json")
