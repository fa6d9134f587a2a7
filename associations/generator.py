"""One loop: pool x scopes x rules -> associations.

Every rule is data. The exposures that pass a rule's conditions are put into groups by a dictionary, so the time grows with
the number of exposures and of members written, not with pairs of exposures. The pool is sorted by file name first: the
order of its rows changes nothing.
"""

import gc
import logging
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from associations import naming
from associations.association import DEGRADED, NOT_DEGRADED, Association, Member, Product
from associations.candidates import Scope, find_scopes
from associations.constraints import key_of, meets
from associations.exposure import Exposure, describe
from associations.pool import Pool
from associations.prune import merge, prune
from associations.rules.catalogue import LEVEL2, LEVEL3
from associations.rules.rule import Companions, Finish, Level2Rule, Level3Rule

log = logging.getLogger(__name__)

#: Candidates that join observations: a level 3 association of theirs must have at least two.
SEVERAL_OBSERVATIONS = frozenset(("group", "background", "mosaic"))


@dataclass(frozen=True)
class Options:
    """What to generate.

    Attributes
    ----------
    ids : tuple of str or None
        Only these candidates.
    candidates, discover : bool
        Whether candidates are used, and whether associations are looked for in the whole pool.
    with_backgrounds : bool
        Let background candidates that share exposures with ``ids`` compete, then keep only the associations of ``ids``
        (as the archive does).
    levels : tuple of int
        2 and 3, or one of them.
    merge : bool
        Fold the level 2 associations of a candidate into one of each type.
    version_id, code_version : str or None
        Written into the associations; the version also into their names.
    """

    ids: tuple[str, ...] | None = None
    candidates: bool = True
    discover: bool = True
    with_backgrounds: bool = False
    levels: tuple[int, ...] = (2, 3)
    merge: bool = False
    version_id: str | None = None
    code_version: str | None = None


@dataclass(frozen=True, slots=True)
class _Attached:
    """An exposure in a role; ``own``: by its own flags."""

    exposure: Exposure
    role: str
    own: bool = True


@dataclass(frozen=True)
class Rejection:
    """Exposures that pass the conditions of a rule, and why no association came of it in a scope."""

    rule: str
    scope: Scope
    filenames: frozenset[str]
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of a pool.

    Attributes
    ----------
    associations : tuple of Association
        Those that stay.
    dropped : tuple of (Association, Association)
        Each duplicate with the association that stands for it.
    rejections : tuple of Rejection
        Groups that became no association.
    """

    associations: tuple[Association, ...]
    dropped: tuple[tuple[Association, Association], ...]
    rejections: tuple[Rejection, ...]


@dataclass(frozen=True)
class _Run:
    """What is the same for all associations of a run, and a note book of the groups that came to nothing."""

    pool_name: str
    options: Options
    rejections: list[Rejection]

    def reject(self, rule: Level2Rule | Level3Rule, scope: Scope, exposures: Iterable[Exposure], reason: str) -> None:
        self.rejections.append(Rejection(rule.name, scope, frozenset(e["filename"] for e in exposures), reason))


def generate(pool: Pool, options: Options = Options()) -> list[Association]:
    """The associations of a pool, numbered and named, in a fixed order."""
    return list(evaluate(pool, options).associations)


def evaluate(pool: Pool, options: Options) -> Outcome:
    """``generate``, with what was dropped and rejected."""
    run = _Run(pool.name, options, [])
    with _collector_at_rest():
        exposures = [describe(row) for row in sorted(pool.rows, key=lambda row: str(row["filename"]))]
        odd = [e["filename"] for e in exposures if not naming.is_raw(e["filename"])]
        if odd:
            log.warning("%s: %d files do not end in _uncal, and keep their names: %s", pool.name, len(odd), odd[0])
        scopes = find_scopes(
            exposures,
            options.ids,
            candidates=options.candidates,
            discovered=options.discover and options.ids is None,
            with_backgrounds=options.with_backgrounds,
        )
        kept: list[Association] = []
        dropped: list[tuple[Association, Association]] = []
        for level, rules in ((2, LEVEL2), (3, LEVEL3)):
            if level in options.levels:
                unique, duplicates = prune(_evaluate_level(rules, exposures, scopes, run))
                kept += unique
                dropped += duplicates
        if options.with_backgrounds and options.ids is not None:
            named = {ident.lower() for ident in options.ids}
            kept = [association for association in kept if association.asn_id in named]
        kept.sort(key=lambda a: (a.program, a.asn_id, a.level, a.asn_type, a.products[0].name, a.asn_rule))
        if options.merge:
            kept = merge(kept)
        return Outcome(tuple(_numbered(kept)), tuple(dropped), tuple(run.rejections))


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Without the cyclic garbage collector, which walks all members again and again: the time is linear without it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _numbered(associations: Iterable[Association]) -> Iterator[Association]:
    counts: Counter[tuple] = Counter()
    for association in associations:
        key = (association.program, association.asn_id, association.asn_type)
        counts[key] += 1
        name = naming.file_name(
            association.program or "",
            association.asn_id or "",
            association.version_id,
            association.asn_type,
            counts[key],
        )
        yield association.with_(file_name=name)


def _evaluate_level(
    rules: Sequence[Level2Rule | Level3Rule],
    exposures: Sequence[Exposure],
    scopes: Sequence[Scope],
    run: _Run,
) -> list[Association]:
    """All associations of a level, before pruning.

    Each set of conditions is asked once for each exposure; a scope then only collects its exposures by what they passed.
    """
    sets: dict[Any, None] = {}
    for rule in rules:
        sets |= dict.fromkeys(_condition_sets(rule))
    conditions = tuple(sets)
    passed = {id(e): [which for which in conditions if meets(which, e)] for e in exposures}
    made: list[Association] = []
    for scope in scopes:
        if scope.is_discovered and rules is LEVEL2:
            continue
        buckets: dict[Any, list[Exposure]] = defaultdict(list)
        for exposure in scope.exposures:
            for which in passed[id(exposure)]:
                buckets[which].append(exposure)
        acquisitions = _acquisitions(scope) if rules is LEVEL3 else {}
        for rule in rules:
            passing = buckets.get(rule.seed if isinstance(rule, Level2Rule) else rule.where)
            if not passing:
                continue
            if not _works_in(rule, scope):
                where = ", ".join(rule.scopes) or f"all but {', '.join(getattr(rule, 'not_scopes', ()))}"
                run.reject(rule, scope, passing, f"it is of type {scope.kind}, and the rule works in: {where}")
            elif isinstance(rule, Level2Rule):
                made += _level2(rule, scope, buckets, run)
            else:
                made += _level3(rule, scope, passing, acquisitions, run)
    return made


def _works_in(rule: Level2Rule | Level3Rule, scope: Scope) -> bool:
    if isinstance(rule, Level2Rule):
        return scope.kind in rule.scopes
    return scope.kind not in rule.not_scopes and (not rule.scopes or scope.kind in rule.scopes)


def _condition_sets(rule: Level2Rule | Level3Rule) -> Iterator[tuple]:
    if isinstance(rule, Level3Rule):
        yield rule.where
    else:
        yield rule.seed
        yield from (companions.where for companions in rule.companions)


# ---- level 2


def _level2(rule: Level2Rule, scope: Scope, buckets: dict[Any, list[Exposure]], run: _Run) -> Iterator[Association]:
    tables = [_index(buckets.get(companions.where, ()), companions.key) for companions in rule.companions]
    groups = _index(buckets[rule.seed], rule.key)
    choosers: dict[tuple, _Images] = {}
    for seed in buckets[rule.seed]:
        members = [_member(naming.stage1_member(seed, rule), "science", seed)]
        others: list[_Attached] = []
        if rule.finish in (Finish.DIRECT_IMAGE, Finish.PARALLEL_IMAGE):
            key = key_of(seed, rule.key)
            if key not in tables[0]:
                run.reject(rule, scope, [seed], f"no direct image agrees in {', '.join(rule.key)}")
                continue
            if key not in choosers:
                choosers[key] = _Images.sort(tables[0][key])
            image = choosers[key].after(seed) if rule.finish is Finish.DIRECT_IMAGE else choosers[key].long_wave
            root = naming.direct_image_product(image, scope)
            members += [
                Member(f"{root}_i2d.fits", "direct_image"),
                Member(f"{root}_cat.ecsv", "sourcecat"),
                Member(f"{root}_segm.fits", "segmap"),
            ]
        else:
            for companions, table in zip(rule.companions, tables, strict=True):
                others += _joining(seed, companions, table)
            if rule.finish is Finish.PRUNE_IMPRINTS:
                others = _suitable_imprints([seed], others)
            elif rule.finish is Finish.PRUNE_GROUP_IMPRINTS:
                others = _suitable_imprints(groups[key_of(seed, rule.key)], others)
            members += [_member(naming.stage1_member(o.exposure, rule), o.role, o.exposure) for o in others]
        if scope.kind == "background" and not any(other.own and other.role == "background" for other in others):
            run.reject(rule, scope, [seed], f"no background exposure agrees in {', '.join(rule.key)}")
            continue
        product = Product(naming.level2_product(members[0].expname), tuple(members))
        yield _association(rule, scope, seed, product, seed["targetid"], run)


def _index(exposures: Iterable[Exposure], key: Sequence[str]) -> dict[tuple, list[Exposure]]:
    table: dict[tuple, list[Exposure]] = defaultdict(list)
    for exposure in exposures:
        table[key_of(exposure, key)].append(exposure)
    return table


def _joining(seed: Exposure, companions: Companions, table: dict[tuple, list[Exposure]]) -> Iterator[_Attached]:
    for other in table.get(key_of(seed, companions.key), ()):
        if other is not seed and not (companions.unless is not None and companions.unless(seed, other)):
            yield _Attached(other, companions.role or other["role"], own=companions.role is None)


def _suitable_imprints(science: Sequence[Exposure], others: list[_Attached]) -> list[_Attached]:
    """``others`` without the imprints that suit the science exposures less than others do.

    Only imprints of the same kind (target or background) as the science compete. Those of the same target go first; if
    there are more than science exposures, those of the same dither points.
    """
    on_background = science[0]["bkgdtarg"] == "t"
    rivals = [o for o in others if o.role == "imprint" and (o.exposure["bkgdtarg"] == "t") == on_background]
    targets = {exposure["targetid"] for exposure in science}
    left = [o for o in rivals if o.exposure["targetid"] in targets] or rivals
    if len(science) < len(left):
        points = {exposure["dithptin"] for exposure in science}
        left = [o for o in left if o.exposure["dithptin"] in points] or left
    out = {id(o) for o in rivals} - {id(o) for o in left}
    return [o for o in others if id(o) not in out]


@dataclass(frozen=True, slots=True)
class _Images:
    """The direct images of a group, in the order in which they were taken (``expspcin``), then by name."""

    ordinals: tuple[int, ...]
    images: tuple[Exposure, ...]
    first: Exposure
    long_wave: Exposure

    @staticmethod
    def sort(images: Sequence[Exposure]) -> "_Images":
        ranked = sorted(images, key=lambda image: (_ordinal(image), image["filename"]))
        first = min(images, key=lambda image: image["filename"])
        long_wave = min([i for i in images if "long" in i["filename"]] or [first], key=lambda image: image["filename"])
        return _Images(tuple(map(_ordinal, ranked)), tuple(ranked), first, long_wave)

    def after(self, grism: Exposure) -> Exposure:
        """The image taken next after the grism exposure; if none is, or nobody knows, the first by name."""
        place = bisect_right(self.ordinals, _ordinal(grism)) if _ordinal(grism) else len(self.images)
        return self.images[place] if place < len(self.images) else self.first


def _ordinal(exposure: Exposure) -> int:
    text = exposure["expspcin"]
    return int(text) if text is not None and text.isdecimal() else 0


# ---- level 3


def _acquisitions(scope: Scope) -> dict[tuple, list[Exposure]]:
    acquisitions = [e for e in scope.exposures if e["role"] == "target_acquisition" and not e["is_imprt"]]
    return _index(acquisitions, ("program", "instrume", "obs_num"))


def _level3(
    rule: Level3Rule,
    scope: Scope,
    exposures: Sequence[Exposure],
    acquisitions: dict[tuple, list[Exposure]],
    run: _Run,
) -> Iterator[Association]:
    columns = ("program", "instrume", *rule.key)
    with_target = rule.target and scope.kind != "direct_image"
    groups: dict[tuple, list[Exposure]] = defaultdict(list)
    loose: dict[tuple, list[Exposure]] = defaultdict(list)
    for exposure in exposures:
        key = key_of(exposure, columns)
        if rule.loose(exposure):
            loose[key].append(exposure)
        elif not with_target:
            groups[key, None].append(exposure)
        elif exposure["targetid"] is not None:
            groups[key, exposure["targetid"]].append(exposure)
        else:
            run.reject(rule, scope, [exposure], "targetid is not set")
    for (key, _), own in groups.items():
        group = own + loose.get(key, [])
        association = _level3_association(rule, scope, group, acquisitions, run)
        if isinstance(association, str):
            run.reject(rule, scope, group, association)
        else:
            yield association
    begun = {key for key, _ in groups}
    for key, companions in loose.items():
        if key not in begun:
            run.reject(rule, scope, companions, f"no science exposure agrees in {', '.join(columns)}")


def _level3_association(
    rule: Level3Rule,
    scope: Scope,
    group: list[Exposure],
    acquisitions: dict[tuple, list[Exposure]],
    run: _Run,
) -> Association | str:
    """The association of a group, or why there is none."""
    observations = {e["obs_num"] for e in group if e["role"] != "target_acquisition"}
    if rule.several_observations and scope.kind in SEVERAL_OBSERVATIONS and len(observations) < 2:
        return f"all is of one observation ({', '.join(map(str, observations))}), and the rule joins at least two"
    attached = []
    for exposure in group:
        role = exposure["role"]
        attached.append(_Attached(exposure, "science" if rule.auxiliary and role != "target_acquisition" else role))
    first = group[0]
    there = {id(exposure) for exposure in group}
    for number in sorted(number for number in observations if number is not None):
        for exposure in acquisitions.get((first["program"], first["instrume"], number), ()):
            if id(exposure) not in there:
                attached.append(_Attached(exposure, "target_acquisition"))
    if rule.x1d_twice:
        nods = [member for member in attached if member.role == "science"]
        if len(nods) >= 2:
            attached += [_Attached(nod.exposure, "background", own=False) for nod in nods]
    missing = [role for role in rule.needs if not any(member.role == role for member in attached)]
    if missing:
        return f"there is no {' and no '.join(missing)} exposure that agrees in {', '.join(('program', *rule.key))}"
    if len(attached) < rule.least:
        return f"it needs {rule.least} exposures, and there is {len(attached)}"
    members = []
    for member in attached:
        listed = first["asn_candidate"] if scope.is_discovered else f"[('{scope.id}', '{scope.kind}')]"
        expname = naming.stage2_member(member.exposure, member.role, rule)
        members.append(_member(expname, member.role, member.exposure, listed))
    product = Product(naming.level3_product(rule, scope, group), tuple(members))
    target = naming.target_name(first, scope, rule.target)
    return _association(rule, scope, first, product, target, run)


# ---- both


def _member(expname: str, role: str, exposure: Exposure, candidate: str | None = None) -> Member:
    return Member(expname, role, exposure["exposerr"], candidate)


def _association(
    rule: Level2Rule | Level3Rule,
    scope: Scope,
    first: Exposure,
    product: Product,
    target: str | None,
    run: _Run,
) -> Association:
    prefix = "discover" if scope.is_discovered else "candidate"
    columns = dict.fromkeys(("program", "instrume", *rule.key))
    return Association(
        asn_type=rule.asn_type,
        products=(product,),
        file_name="",
        asn_id=scope.id,
        asn_rule=f"{prefix}_Asn_{rule.name}",
        program=first["program"],
        target=target or "none",
        asn_pool=run.pool_name,
        version_id=run.options.version_id,
        code_version=run.options.code_version,
        degraded_status=DEGRADED if any(member.exposerr for member in product.members) else NOT_DEGRADED,
        constraints="; ".join(f"{column}: {first[column]}" for column in columns if first[column] is not None),
    )
