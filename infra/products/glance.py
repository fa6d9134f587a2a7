"""The header of an exposure at a glance: its first two header units and nothing else, for plans of thousands of exposures.

``infra.products.fits.read_header`` looks at every extension of a file, to see that it is whole, and takes fifteen times as
long. What reads the arrays looks at all of it anyway.
"""

import re
from pathlib import Path
from typing import Any

from astropy.io import fits

from infra.products.fits import read_header
from infra.products.header import Header, keywords

_BLOCK = 2880
_LONGEST = 400  # blocks of a header, more than which no exposure has
_NUMBER = re.compile(r"[+-]?\d+$")


def glance(path: str | Path) -> Header:
    """The keywords of PRIMARY and SCI that the data models know, as ``read_header`` gives them.

    Where the file is not of the usual form (an array in PRIMARY, another extension first, gzip), all of
    it is read by ``read_header``.

    Raises
    ------
    ProductError
        If the file is not FITS; that it is cut short after its headers is not seen.
    """
    try:
        with Path(path).open("rb") as file:
            primary = _parse(_unit(file))
            science = _parse(_unit(file)) if primary.get("NAXIS") == 0 else {}
    except (OSError, ValueError):
        return read_header(path)
    if science.get("EXTNAME") != "SCI":
        return read_header(path)
    known = keywords()
    cards: dict[str, Any] = {}
    for hdu, found in (("PRIMARY", primary), ("SCI", science)):
        for key, value in found.items():
            if value is not None and key in known and (key not in cards or known[key].hdu == hdu):
                cards[key] = value
    return Header(cards)


def _unit(file: Any) -> str:
    """The text of one header unit, up to its END card."""
    text = ""
    for _ in range(_LONGEST):
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            raise ValueError("the file ends within a header")
        text += block.decode("ascii")
        end = re.search(r"END {77}", text[-_BLOCK:])
        if end is not None:
            return text[: len(text) - _BLOCK + end.start()]
    raise ValueError("this header has no end")


def _parse(text: str) -> dict[str, Any]:
    cards: dict[str, Any] = {}
    images = [text[start : start + 80] for start in range(0, len(text), 80)]
    for at, card in enumerate(images):
        key = card[:8].rstrip()
        if card[8:10] == "= ":
            if key not in cards:
                long = at + 1 < len(images) and images[at + 1].startswith("CONTINUE")
                cards[key] = _long_value(images, at) if long else _value(card)
        elif key == "HIERARCH":
            raise ValueError("a card HIERARCH")
    return cards


def _long_value(images: list[str], at: int) -> Any:
    end = at + 1
    while end < len(images) and images[end].startswith("CONTINUE"):
        end += 1
    return fits.Card.fromstring("".join(images[at:end])).value


def _value(card: str) -> Any:
    body = card[10:].lstrip()
    if body.startswith("'"):
        end = body.find("'", 1)
        if end > 0 and body[end + 1 : end + 2] != "'":
            return body[1:end].rstrip()
    else:
        word = body.partition("/")[0].strip()
        if word in ("T", "F"):
            return word == "T"
        if _NUMBER.match(word):
            return int(word)
        try:
            return float(word)
        except ValueError:
            if not word:
                return None
    return fits.Card.fromstring(card).value
