"""The options of a run: defaults < parameter reference < parameter file < command line, checked, with the source of each.

An unknown step or option, or a value out of bounds, is an error that names the nearest valid one.
"""

import difflib
import importlib
import json
import logging
import pkgutil
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

import tasks
from tasks.step import PIPELINES, STEPS, Options, Step, StepOptions

log = logging.getLogger(__name__)


class OptionError(ValueError):
    """An option that does not exist or a value that it does not take; the message names what is valid."""


@cache
def all_steps() -> Mapping[str, Step]:
    """Every step that there is: one file of this room each."""
    for module in pkgutil.iter_modules(tasks.__path__):
        importlib.import_module(f"tasks.{module.name}")
    return dict(sorted(STEPS.items()))


def resolve_options(
    parameter_references: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Mapping[str, Any]]
) -> Options:
    """The options of every step, and pipeline, that somebody set something for.

    Parameters
    ----------
    parameter_references : mapping
        Step -> option -> value of the ``pars-*`` reference files. They are written for the official package: options
        of theirs that we do not have are left out, and named in the log.
    overrides : mapping
        What the user set, by file and command line; see ``merge_overrides``. ``skip`` is an option of every step.

    Raises
    ------
    OptionError
        For an unknown step or option or a bad value.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for name, values in parameter_references.items():
        if name in STEPS or name in PIPELINES:
            known = set(_known_options(name))
            left = sorted(set(values) - known)
            if left:
                log.debug("%s: its parameter reference has options that are not ours: %s", name, ", ".join(left))
            chosen.setdefault(name, {}).update({key: values[key] for key in values if key in known})
    for name, values in overrides.items():
        if name not in PIPELINES:
            require_step(name)
        for key in values:
            _require_option(name, key)
        chosen.setdefault(name, {}).update(values)
    return Options({name: _checked(name, values) for name, values in chosen.items()})


def merge_overrides(*sources: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options of several sources in one, a later source over an earlier one, all checked.

    Raises
    ------
    OptionError
        For an unknown step or option or a bad value.
    """
    merged: dict[str, dict[str, Any]] = {}
    for source in sources:
        for name, values in source.items():
            merged.setdefault(name, {}).update(values)
    resolve_options({}, merged)
    return merged


def require_step(name: str) -> Step:
    """The step of that name, or an error that names the nearest."""
    if name not in all_steps():
        raise OptionError(
            f"there is no step {name!r}{_nearest(name, [*STEPS, *PIPELINES])}; `calweave steps` lists them"
        )
    return STEPS[name]


def _require_option(name: str, key: str) -> None:
    known = _known_options(name)
    if key not in known:
        raise OptionError(f"{name} has no option {key!r}{_nearest(key, known)}; it has {', '.join(known)}")


def _known_options(name: str) -> list[str]:
    return list(PIPELINES[name].model_fields) if name in PIPELINES else ["skip", *STEPS[name].options.model_fields]


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1, 0.4)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _checked(name: str, values: Mapping[str, Any]) -> StepOptions:
    own = {key: value for key, value in values.items() if key != "skip"}
    options = PIPELINES[name] if name in PIPELINES else STEPS[name].options
    try:
        skip = None if values.get("skip") is None else _Skip(skip=values["skip"]).skip
        return StepOptions(options(**own), skip)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        field = options.model_fields.get(key)
        default = "" if field is None else f"; the default is {field.default!r} ({field.description})"
        raise OptionError(f"{name}.{key}={first['input']!r} is not valid: {first['msg'].lower()}{default}") from None


class _Skip(BaseModel, frozen=True):
    skip: bool


def parse_assignments(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read ``step.option=value`` words of a command line; a value is JSON where it reads as such, else text."""
    parsed: dict[str, dict[str, Any]] = {}
    for word in words:
        target, equals, text = word.partition("=")
        name, dot, key = target.strip().partition(".")
        if not (equals and dot and name and key):
            raise OptionError(f"expected STEP.OPTION=VALUE, such as jump.rejection_threshold=5, but got {word!r}")
        try:
            value = json.loads(text)
        except ValueError:
            value = {"true": True, "false": False, "none": None}.get(text.strip().lower(), text.strip())
        parsed.setdefault(name, {})[key] = value
    return parsed


def read_parameter_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """Options by step from a TOML, JSON or ASDF file (the last as the official package writes them).

    Raises
    ------
    OptionError
        If the file is absent, is of another kind or does not hold a table of options per step.
    """
    path = Path(path)
    try:
        if path.suffix == ".toml":
            tree = tomllib.loads(path.read_text())
        elif path.suffix == ".json":
            tree = json.loads(path.read_text())
        elif path.suffix == ".asdf":
            import asdf

            with asdf.open(path, lazy_load=False, memmap=False) as contents:
                tree = official_parameters(contents.tree)
        else:
            raise OptionError(
                f"{path}: expected a parameter file .toml, .json or .asdf, but it ends in {path.suffix!r}"
            )
    except OSError as error:
        raise OptionError(f"{path}: cannot read this parameter file: {error.strerror or error}") from None
    except ValueError as error:
        raise OptionError(f"{path}: this parameter file is not valid: {error}") from None
    wrong = [key for key, value in tree.items() if not isinstance(value, Mapping)]
    if wrong:
        raise OptionError(f"{path}: expected a table of options for each step, but {wrong[0]!r} is none")
    return {name: dict(values) for name, values in tree.items()}


def official_parameters(tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Options by step from the tree of a ``pars-*`` file: of a step, or of a pipeline and its steps."""
    steps = {entry["name"]: dict(entry["parameters"]) for entry in tree.get("steps", ())}
    name = str(tree.get("name", "")).lower()
    if name in STEPS:
        steps[name] = dict(tree.get("parameters", {}))
    elif not steps and tree.get("parameters"):
        # A step's file names its class: jwst.jump.jump_step.JumpStep.
        module = str(tree.get("class", "")).split(".")[-2:-1]
        if module and module[0].removesuffix("_step") in STEPS:
            steps[module[0].removesuffix("_step")] = dict(tree["parameters"])
    return steps
