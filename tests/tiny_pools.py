"""Small pools, written in the tests that use them: one call for each exposure, with what matters for the test."""

from associations.pool import COLUMNS, Pool

PROGRAM = "1571"


def exposure(
    observation: int, number: int, detector: str = "nis", candidates: tuple = (), **columns: str
) -> dict[str, str]:
    """A row: a NIRISS image unless ``columns`` say otherwise. ``number`` goes into the name."""
    listed = [(f"o{observation:03}", "observation"), *candidates]
    program = columns.get("program", PROGRAM)
    row = {
        "filename": f"jw{program:0>5}{observation:03}001_02101_{number:05}_{detector}_uncal.fits",
        "program": program,
        "obs_num": str(observation),
        "exp_type": "nis_image",
        "instrume": "niriss",
        "detector": detector,
        "filter": "clear",
        "pupil": "f200w",
        "subarray": "full",
        "targetid": "1",
        "pntgtype": "science",
        "expspcin": "1",
        "mostilno": "1",
        "dithptin": "1",
        "visitype": "prime_targeted_fixed",
        "asn_candidate": repr(listed),
    }
    return {**row, **columns}


def direct(observation: int, number: int, **columns: str) -> dict[str, str]:
    """A NIRISS direct image."""
    return exposure(observation, number, **columns)


def grism(observation: int, number: int, **columns: str) -> dict[str, str]:
    """A NIRISS slitless exposure through the same blocking filter."""
    return exposure(observation, number, **{"exp_type": "nis_wfss", "filter": "gr150c", **columns})


def pool_text(*rows: dict[str, str]) -> str:
    """The pool file of some rows."""
    columns = dict.fromkeys(column for row in rows for column in row)
    lines = ["|".join(columns), *("|".join(row.get(column, "null") for column in columns) for row in rows)]
    return "\n".join(lines) + "\n"


def make(*rows: dict[str, str]) -> Pool:
    """The pool in memory; the strings are used as they are."""
    complete = tuple({**dict.fromkeys(COLUMNS), **row} for row in rows)
    return Pool("tiny_pool.csv", COLUMNS, complete)
