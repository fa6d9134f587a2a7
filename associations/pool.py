"""The pool: a table with one row for each exposure file (one detector, one segment), and what the headers say of it.

In a file the columns are separated by ``|``; the first line that is no comment has their names. Names and values are
compared in lower case, as text. A value that means "not set" is None in memory.
"""

import ast
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

log = logging.getLogger(__name__)

Row = Mapping[str, str | None]

#: The columns that the rules look at (design of the associations, section 2); a pool may lack any but the first two.
COLUMNS = tuple(
    """filename exp_type program obs_num obs_id act_id visitype instrume detector module channel filter pupil grating band
    fxd_slit subarray targetid targname pntgtype expspcin dithptin mostilno patttype numdthpt patt_num subpxpts is_psf
    is_imprt bkgdtarg tsovisit msametfl msastate opmode lamp nints exposerr dms_note asn_candidate""".split()
)

#: What a value is when it is not set, in lower case.
NOT_SET = frozenset(("", "null", "--", "n", "f", "false", "n/a"))

#: The keyword of a column where it has another name in the header of an exposure.
KEYWORDS = {"obs_num": "OBSERVTN"}

#: What a column is when a header does not have it.
DEFAULTS = {"pntgtype": "science", "mostilno": "1"}

#: Longest list of candidates [characters]; longer ones would take the parser minutes.
_LONGEST_LIST = 100_000

#: Longest piece of a value that an error message quotes.
_QUOTED = 60


class PoolError(Exception):
    """A pool cannot be read; the message says which file, row and column, what was expected and what to do."""


@dataclass(frozen=True)
class Pool:
    """Exposures and what is known of each.

    Attributes
    ----------
    name : str
        What the pool is called.
    columns : tuple of str
        Lower case, in the order of the file.
    rows : tuple of mappings
        Column -> value in lower case, None where it is not set. Every row has all of ``COLUMNS``.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_text(self) -> str:
        """The text of the pool file."""
        lines = ["|".join(self.columns)]
        lines += ["|".join(row.get(column) or "null" for column in self.columns) for row in self.rows]
        return "\n".join(lines) + "\n"


def read_pool(text: str, name: str, delimiter: str = "|") -> Pool:
    """The pool that a file holds.

    Parameters
    ----------
    text : str
        Content of the file.
    name : str
        What the file is called, for messages and for the associations made of it.
    delimiter : str
        What stands between two columns.

    Returns
    -------
    Pool
        A file that is listed twice with the same values is there once.

    Raises
    ------
    PoolError
        If it is no table of exposures: with the line, the column and what was expected there.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    columns: tuple[str, ...] = ()
    rows: dict[str, dict[str, str | None]] = {}
    lines_of: dict[str, int] = {}
    unplanned: list[int] = []
    repeated: list[str] = []
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if not stripped or stripped[0] == "#":
            continue
        if "\0" in line:
            raise PoolError(
                f"{name}, line {number}, column {line.index(chr(0)) + 1}: expected text, but found a NUL byte; is the file "
                "whole and a pool?"
            )
        cells = [_clean(cell) for cell in stripped.split(delimiter)]
        if not columns:
            columns = _check_header(cells, line, name, number, delimiter)
            continue
        if len(cells) != len(columns):
            raise PoolError(
                f"{name}, line {number}: expected {len(columns)} columns separated by {delimiter!r}, as in the first line, "
                f"but found {len(cells)}: {_quote(line)}; correct the line"
            )
        row: dict[str, str | None] = dict.fromkeys(COLUMNS)
        row.update(zip(columns, map(_value, cells), strict=True))
        if row["subpxpts"] is None and row.get("subpxpns"):
            row["subpxpts"] = row["subpxpns"]
        filename = row["filename"]
        if filename is None:
            raise PoolError(f"{name}, line {number}, column filename: expected the name of a file, but it is empty")
        filename = row["filename"] = PurePosixPath(filename).name or filename
        if not _is_candidate_list(row["asn_candidate"], f"{name}, line {number}, column asn_candidate"):
            unplanned.append(number)
        if filename in rows and rows[filename] != row:
            other = ", ".join(column for column in columns if row[column] != rows[filename][column])
            repeated.append(f"line {number} has {filename} as line {lines_of[filename]}, with another {other}")
        rows[filename], lines_of[filename] = row, number
    if unplanned:
        log.warning(
            "%s: asn_candidate of %d lines is no list, first in line %d; these exposures belong to no candidate",
            name, len(unplanned), unplanned[0],
        )  # fmt: skip
    if repeated:
        log.warning("%s: %d lines repeat a file, first: %s; the later line counts", name, len(repeated), repeated[0])
    if not columns:
        raise PoolError(f"{name}: expected a line of column names separated by {delimiter!r}, but the file is empty")
    return Pool(name, columns, tuple(rows.values()))


def _clean(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _value(cell: str) -> str | None:
    cell = cell.lower()
    return None if cell in NOT_SET else cell


def _quote(text: str) -> str:
    return repr(text if len(text) <= _QUOTED else text[:_QUOTED] + "...")


def _check_header(cells: Sequence[str], line: str, name: str, number: int, delimiter: str) -> tuple[str, ...]:
    columns = tuple(cell.lower() for cell in cells)
    if len(columns) == 1:
        others = [other for other in ("|", ",", "\t", ";") if other != delimiter and line.count(other) > 1]
        hint = f"; the columns seem to be separated by {others[0]!r}" if others else ""
        raise PoolError(
            f"{name}, line {number}: expected column names separated by {delimiter!r}, but found {_quote(line)}{hint}"
        )
    for place, column in enumerate(columns, 1):
        if column in columns[: place - 1]:
            raise PoolError(
                f"{name}, line {number}, column {place}: {column!r} stands twice; remove one of the columns"
            )
    missing = [column for column in ("filename", "exp_type") if column not in columns]
    if missing:
        raise PoolError(
            f"{name}, line {number}: a pool needs the columns filename and exp_type, but {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing among {_quote(', '.join(columns))}"
        )
    if "asn_candidate" not in columns:
        log.warning("%s: there is no column asn_candidate; only associations of the whole pool can be made", name)
    return columns


def _is_candidate_list(text: str | None, place: str) -> bool:
    """Whether a cell is a list or empty; a broken list is an error, other text is none."""
    if text is None or not text.startswith("["):
        return text is None
    try:
        candidates_of(text)
    except ValueError as error:
        raise PoolError(f"{place}: {error}") from None
    return True


@lru_cache(maxsize=65536)
def candidates_of(text: str | None) -> tuple[tuple[str, str], ...]:
    """The candidates that a cell lists, as pairs (id, type), each once.

    Raises
    ------
    ValueError
        If the text begins like a list but is no list of such pairs.
    """
    if text is None or not text.startswith("["):
        return ()
    try:
        pairs = ast.literal_eval(text) if len(text) <= _LONGEST_LIST else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pairs = None
    if not isinstance(pairs, list) or not all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(word, str) and word for word in pair)
        for pair in pairs
    ):
        raise ValueError(f"expected a list such as [('o001', 'observation')], but found {_quote(text)}")
    return tuple(dict.fromkeys((ident.strip(), kind.strip()) for ident, kind in pairs))


def pool_row(header: Mapping[str, Any]) -> dict[str, str | None]:
    """What a pool says of an exposure: the columns that its header tells.

    The number of the target (``targetid``) needs all exposures of the program: ``make_pool`` gives it.

    Parameters
    ----------
    header : mapping
        FITS keyword -> value.
    """
    row: dict[str, str | None] = {}
    for column in COLUMNS:
        value = header.get(KEYWORDS.get(column, column.upper()))
        if isinstance(value, bool):
            value = "t" if value else "f"
        text = "" if value is None else " ".join(str(value).split()).replace("|", "/")
        row[column] = _value(text) or DEFAULTS.get(column)
    for column in ("program", "obs_num"):
        if row[column] is not None:
            row[column] = str(row[column]).lstrip("0") or "0"
    if row["expspcin"] is None:
        row["expspcin"] = _order_in_visit(header)
    if row["dithptin"] is None:
        row["dithptin"] = row["patt_num"] or "1"
    number = row["obs_num"]
    if row["asn_candidate"] is None and number is not None:
        row["asn_candidate"] = f"[('o{number.zfill(3)}', 'observation')]"
    row["filename"] = PurePosixPath(row["filename"]).name if row["filename"] else None
    return row


def _order_in_visit(header: Mapping[str, Any]) -> str | None:
    """A number that grows with the exposure specifications of an observation.

    Headers do not have ``expspcin``. The visit group, sequence and activity (base 36 text) grow with it, and the rules
    compare only its order.
    """
    words = [str(header.get(key) or "") for key in ("VISITGRP", "SEQ_ID", "ACT_ID")]
    if not all(word.isalnum() and word.isascii() for word in words):
        return None
    return str(int("".join(words), 36))


def make_pool(
    headers: Mapping[str, Mapping[str, Any]],
    name: str = "calweave_pool.csv",
    candidates: Iterable[tuple[str, str]] = (),
    start: Pool | None = None,
) -> Pool:
    """A pool of exposures, from their headers.

    Parameters
    ----------
    headers : mapping
        Name of the file -> its header (FITS keyword -> value).
    candidates : iterable of pairs (id, type)
        Candidates that all these exposures belong to, beside their observation.
    start : Pool
        A pool to add to: a file that it has already gets its new values, a target that it knows keeps its number.

    Notes
    -----
    Targets are numbered in each program by the order in which they are met in the sorted file names, and a target that
    is met again has its number again (the official tool gives it a new one).
    """
    rows = {str(row["filename"]): dict(row) for row in (start.rows if start else ())}
    targets: dict[str | None, dict[str, str]] = {}
    for row in rows.values():
        if row["targetid"] is not None:
            targets.setdefault(row["program"], {}).setdefault(str(row["targname"]), row["targetid"])
    extra = list(candidates)
    for filename in sorted(headers):
        row = pool_row(headers[filename])
        base = PurePosixPath(filename).name.lower()
        row["filename"] = base
        if extra:
            row["asn_candidate"] = repr([*candidates_of(row["asn_candidate"]), *extra]).lower()
        if row["targetid"] is None and row["targname"] is not None:
            known = targets.setdefault(row["program"], {})
            taken = {int(number) for number in known.values() if number.isdigit()}
            row["targetid"] = known.setdefault(row["targname"], str(max(taken, default=0) + 1))
        rows[base] = row
    columns = COLUMNS if start is None else (*start.columns, *(c for c in COLUMNS if c not in start.columns))
    return Pool(name, columns, tuple(rows.values()))


def merge_pools(pools: Sequence[Pool]) -> Pool:
    """One pool with the exposures of all; of a file that several list, the last one's values count."""
    if len(pools) == 1:
        return pools[0]
    columns = dict.fromkeys(column for pool in pools for column in pool.columns)
    empty = dict.fromkeys(columns)
    rows = {row["filename"]: {**empty, **row} for pool in pools for row in pool.rows}
    return Pool("+".join(pool.name for pool in pools), tuple(columns), tuple(rows.values()))
