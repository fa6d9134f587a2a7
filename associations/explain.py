"""Why an exposure is in the associations that it is in, and in no others: every rule answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from associations import naming
from associations.association import Association
from associations.constraints import Condition, first_failure
from associations.exposure import Exposure, describe
from associations.generator import Options, Outcome, evaluate
from associations.pool import Pool, PoolError
from associations.rules.catalogue import LEVEL2, LEVEL3
from associations.rules.rule import Level2Rule, Level3Rule


@dataclass(frozen=True)
class Answer:
    """What a rule says of an exposure.

    Attributes
    ----------
    rule : str
        Name of the rule.
    level : int
        2 or 3.
    matched : bool
        Whether the exposure passes all conditions of the rule.
    lines : tuple of str
        The first condition that failed, with the values; or what became of it in each scope.
    """

    rule: str
    level: int
    matched: bool
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """All that the rules say of an exposure, and the associations that it is in: (association, product, role)."""

    filename: str
    role: str
    candidates: str
    places: tuple[tuple[Association, str, str], ...]
    answers: tuple[Answer, ...]


def explain(pool: Pool, name: str, options: Options | None = None) -> Explanation:
    """Ask every rule about an exposure.

    Parameters
    ----------
    name : str
        The exposure's file, of any stage: the suffix and a folder do not count.

    Raises
    ------
    PoolError
        If the exposure is not in the pool.
    """
    base = _base(name)
    row = next((row for row in pool.rows if _base(str(row["filename"])) == base), None)
    if row is None:
        near = [str(other["filename"]) for other in pool.rows if base and base[:19] in str(other["filename"])]
        hint = f"; near it: {', '.join(near[:3])}" if near else ""
        raise PoolError(f"{pool.name}: expected a row for {base}, but there is none among {len(pool.rows)}{hint}")
    program = replace(pool, rows=tuple(other for other in pool.rows if other["program"] == row["program"]))
    outcome = evaluate(program, options or Options())
    exposure = describe(row)
    rules: tuple[Level2Rule | Level3Rule, ...] = (*LEVEL2, *LEVEL3)
    answers = tuple(_answer(rule, exposure, outcome) for rule in rules)
    places = tuple(
        (association, product.name, member.exptype)
        for association in outcome.associations
        for product in association.products
        for member in product.members
        if _base(member.expname) == base
    )
    return Explanation(str(row["filename"]), exposure["role"], row["asn_candidate"] or "none", places, answers)


def find_orphans(pool: Pool, outcome: Outcome) -> tuple[str, ...]:
    """The files of a pool that are in no association (orphans), sorted."""
    used = {_base(member.expname) for association in outcome.associations for member in association.members}
    return tuple(sorted(name for row in pool.rows if _base(name := str(row["filename"])) not in used))


def _base(name: str) -> str:
    return naming.level2_product(PurePosixPath(name.lower()).name)


def _answer(rule: Level2Rule | Level3Rule, exposure: Exposure, outcome: Outcome) -> Answer:
    if isinstance(rule, Level3Rule):
        failed = _failure(rule.where, exposure)
        if failed and exposure["role"] == "target_acquisition":
            lines = _fate(rule, exposure, outcome, "target_acquisition")
            if lines:
                return Answer(rule.name, 3, True, lines)
        return Answer(rule.name, 3, not failed, (failed,) if failed else _fate(rule, exposure, outcome))
    failed = _failure(rule.seed, exposure)
    if not failed:
        return Answer(rule.name, 2, True, _fate(rule, exposure, outcome))
    if any(first_failure(companions.where, exposure) is None for companions in rule.companions):
        return Answer(rule.name, 2, True, ("joins others as their companion", *_fate(rule, exposure, outcome)))
    return Answer(rule.name, 2, False, (failed,))


def _failure(conditions: Sequence[Condition], exposure: Exposure) -> str:
    condition = first_failure(conditions, exposure)
    if condition is None:
        return ""
    values = ", ".join(f"{column} = {_shown(exposure[column])}" for column in condition.columns)
    return f"fails: {condition.text}; here {values}"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if value else "not set"


def _fate(
    rule: Level2Rule | Level3Rule, exposure: Exposure, outcome: Outcome, role: str | None = None
) -> tuple[str, ...]:
    """In which associations of a rule the exposure is, for which others they were dropped, and what came to nothing."""
    base = _base(exposure["filename"])
    lines = []
    for association in outcome.associations:
        if _rule_of(association) == rule.name:
            lines += [f"{association.file_name}: {as_}" for as_ in _roles(association, base, role)]
    for lesser, kept in outcome.dropped:
        if _rule_of(lesser) == rule.name:
            lines += [
                f"{lesser.asn_id}: {as_}, dropped: {_rule_of(kept)} in {kept.asn_id} makes {kept.products[0].name} "
                + (
                    "of the same members"
                    if len(kept.products[0].members) == len(lesser.products[0].members)
                    else "of more"
                )
                for as_ in _roles(lesser, base, role)
            ]
    if role is None:
        lines += [
            f"{rejection.scope.id}: none made: {rejection.reason}"
            for rejection in outcome.rejections
            if rejection.rule == rule.name and exposure["filename"] in rejection.filenames
        ]
    return tuple(dict.fromkeys(lines))


def _rule_of(association: Association) -> str:
    return (association.asn_rule or "").rpartition("Asn_")[2]


def _roles(association: Association, base: str, role: str | None) -> Iterable[str]:
    roles = (member.exptype for member in association.members if _base(member.expname) == base)
    return dict.fromkeys(r for r in roles if role is None or r == role)
