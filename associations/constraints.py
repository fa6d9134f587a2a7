"""Conditions on an exposure and keys to group by: the words that the rules are written in.

A condition says in plain text what it asks and which columns it looks at, so that ``explain`` can tell why an exposure is
not in an association.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from associations.exposure import Exposure

Test = Callable[[Exposure], bool]


@dataclass(frozen=True)
class Condition:
    """A question about one exposure.

    Attributes
    ----------
    text : str
        What is asked, as a statement.
    columns : tuple of str
        The columns that decide it.
    holds : function
        Exposure -> whether the statement is true.
    """

    text: str
    columns: tuple[str, ...]
    holds: Test


def one_of(column: str, values: Iterable[str | None]) -> Condition:
    """The column has one of these values; None means not set."""
    allowed = frozenset(values)
    listed = ", ".join(sorted("not set" if value is None else value for value in allowed))
    return Condition(
        f"{column} is {'one of ' if len(allowed) > 1 else ''}{listed}", (column,), lambda e: e[column] in allowed
    )


def none_of(column: str, values: Iterable[str]) -> Condition:
    """The column has none of these values; it may be unset."""
    refused = frozenset(values)
    return Condition(f"{column} is not {' or '.join(sorted(refused))}", (column,), lambda e: e[column] not in refused)


def is_set(*columns: str) -> Condition:
    """All these columns are set (a flag is true)."""
    if len(columns) == 1:
        column = columns[0]
        return Condition(f"{column} is set", columns, lambda e: bool(e[column]))
    return Condition(f"{', '.join(columns)} are set", columns, lambda e: all(e[column] for column in columns))


def is_unset(column: str) -> Condition:
    """The column is not set (a flag is false)."""
    return Condition(f"{column} is not set", (column,), lambda e: not e[column])


def unless(text: str, **values: Any) -> Condition:
    """Not all these columns have these values; a value may be a tuple of values, None means not set."""
    wanted = {column: value if isinstance(value, tuple) else (value,) for column, value in values.items()}
    items = tuple(wanted.items())
    return Condition(text, tuple(wanted), lambda e: not all(e[column] in options for column, options in items))


def either(text: str, *conditions: tuple[Condition, ...]) -> Condition:
    """All conditions of at least one of these sets hold."""
    columns = tuple(dict.fromkeys(column for group in conditions for c in group for column in c.columns))
    return Condition(text, columns, lambda e: any(all(c.holds(e) for c in group) for group in conditions))


def first_failure(conditions: Iterable[Condition], exposure: Exposure) -> Condition | None:
    """The first condition that does not hold; None if all hold."""
    return next((condition for condition in conditions if not condition.holds(exposure)), None)


def meets(conditions: Iterable[Condition], exposure: Exposure) -> bool:
    """Whether all conditions hold."""
    return all(condition.holds(exposure) for condition in conditions)


def key_of(exposure: Exposure, columns: Iterable[str]) -> tuple[Any, ...]:
    """What the exposure is grouped by. A value that is not set agrees with nothing but itself."""
    return tuple([exposure[column] for column in columns])
