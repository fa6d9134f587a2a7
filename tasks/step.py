"""``@step``: the one decorator, which makes a function of a product a calibration step.

It names the Prefect task, hands the step its own options, honours ``skip``, and records in the product what happened:
``S_*`` (COMPLETE or SKIPPED), ``R_*`` (the reference files) and, in the recipe, the options and the reason of a skip.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, Field

from infra.monitoring import product_at_work
from infra.products.header import Header, keyword_of
from infra.references.content import References
from infra.reported import as_task

log = logging.getLogger(__name__)


class StepSkipped(Exception):
    """Nothing to do for this product; the message is the reason, which is recorded in it. Not an error."""


class NothingToDo(Exception):
    """The exposure holds nothing for this pipeline (no source on the detector); the command ends with 64, not 1."""


class NoOptions(BaseModel, frozen=True, extra="forbid"):
    """A step without options of its own."""


@dataclass(frozen=True)
class Step:
    """What the flows and the command line know of a step.

    ``references`` gives the reference types that it reads for a header; ``default`` tells whether it runs when nobody
    says otherwise; ``keyword`` is its ``S_*`` card; ``description`` the first line of its docstring.
    """

    name: str
    references: Callable[[Header], tuple[str, ...]]
    options: type[BaseModel]
    default: bool
    keyword: str | None
    description: str


STEPS: dict[str, Step] = {}


class Detector1Options(BaseModel, frozen=True, extra="forbid"):
    """What stage 1 writes beside the rates."""

    save_calibrated_ramp: bool = Field(False, description="write the corrected ramps too, _ramp")


class Spec2Options(BaseModel, frozen=True, extra="forbid"):
    """Files of the user's own that stage 2 takes in place of those of image3."""

    catalog: str | None = Field(None, description="catalog of sources: ECSV, FITS table or CSV with positions")
    direct_image: str | None = Field(None, description="direct image with a FITS WCS, such as a drizzled one")
    segmentation: str | None = Field(None, description="map of the source numbers on the pixels of the direct image")


#: Options of whole pipelines; they cannot be skipped.
PIPELINES: dict[str, type[BaseModel]] = {"detector1": Detector1Options, "spec2": Spec2Options}

#: Steps whose ``S_*`` card has another name in the data models.
_NAME_IN_SCHEMA = {"dark_current": "dark_sub"}


@dataclass(frozen=True)
class StepOptions:
    """The options of one step in one run: whether to skip it (None: as the step's default says), and its own values.

    ``values`` is of the class that the step, or pipeline, has for its options.
    """

    values: Any
    skip: bool | None = None


@dataclass(frozen=True)
class Options:
    """The options of every step in one run; a step that is not named has its defaults."""

    steps: Mapping[str, StepOptions] = field(default_factory=dict)

    def of(self, name: str) -> StepOptions:
        """The options of one step, or of a pipeline."""
        return self.steps.get(name) or StepOptions(PIPELINES[name]() if name in PIPELINES else STEPS[name].options())


def step(
    name: str,
    references: Iterable[str] | Callable[[Header], tuple[str, ...]] = (),
    options: type[BaseModel] = NoOptions,
    default: bool = True,
) -> Callable[[Callable], Any]:
    """Make ``function(product, references, own options, ...)`` the calibration step ``name``.

    ``references`` names the reference types that it reads, or is a function of the header that does: the dispersion of
    a grism is asked for where there is a grism.

    In a flow it is called with the run's whole ``Options``: ``product = jump(product, references, options)``. Its
    result is a product, or a tuple of them. Without a flow, call ``jump.fn(product, references, JumpOptions())``:
    the same, without Prefect.
    """

    def decorate(function: Callable) -> Any:
        info = Step(
            name=name,
            references=references if callable(references) else _always(tuple(references)),
            options=options,
            default=default,
            keyword=keyword_of(f"meta.cal_step.{_NAME_IN_SCHEMA.get(name, name)}"),
            description=(function.__doc__ or "").strip().splitlines()[0],
        )
        STEPS[name] = info

        @functools.wraps(function)
        def run(product: Any, references: References, options: Options | BaseModel, *more: Any, **named: Any) -> Any:
            freeze(product)
            chosen = options.of(name) if isinstance(options, Options) else StepOptions(options, skip=False)
            skip = not info.default if chosen.skip is None else chosen.skip
            if skip:
                reason = "switched off" if chosen.skip else "off by default"
                return record(product, info, "SKIPPED", reason=reason)
            try:
                result = function(product, references, chosen.values, *more, **named)
            except StepSkipped as why:
                log.info("%s: skipped, %s", name, why)
                return record(product, info, "SKIPPED", reason=str(why))
            wanted = reference_types(name, header_of(product), chosen.values)
            used = {reftype: references.name(reftype) for reftype in wanted if reftype in references.files}
            return record(result, info, "COMPLETE", "", used, chosen.values.model_dump(mode="json"), references.sha1)

        return as_task(run, name, task_run_name=lambda: f"{name} {product_at_work()}".rstrip())

    return decorate


def reference_types(name: str, header: Header, values: Any) -> tuple[str, ...]:
    """The reference types that a step reads for a header: with these options, of which a few ask for one (``reftypes``)."""
    return (*STEPS[name].references(header), *getattr(values, "reftypes", ()))


def _always(reftypes: tuple[str, ...]) -> Callable[[Header], tuple[str, ...]]:
    return lambda header: reftypes


def header_of(product: Any) -> Header:
    """The header of a product, or of the first of a tuple."""
    return product[0].header if isinstance(product, tuple) else product.header


def freeze(product: Any) -> None:
    """Make the arrays of a product (or of each in a tuple) read-only.

    A step that writes into its input then fails at once, instead of spoiling what a retry would start from.
    """
    if isinstance(product, tuple):
        for one in product:
            freeze(one)
    elif is_dataclass(product):
        for name in (entry.name for entry in fields(product)):
            value = getattr(product, name)
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            elif isinstance(value, tuple):
                freeze(value)


def record(
    product: Any,
    info: Step,
    status: str,
    reason: str = "",
    references: Mapping[str, str | None] | None = None,
    options: Mapping[str, Any] | None = None,
    sha1: Mapping[str, str] | None = None,
) -> Any:
    """``product`` (or a tuple, each of them) with the card and the recipe of a step that ended."""
    if isinstance(product, tuple):
        return tuple(record(one, info, status, reason, references, options, sha1) for one in product)
    if not hasattr(product, "recipe"):
        return product
    cards = {} if info.keyword is None else {info.keyword: status}
    entry: dict[str, Any] = {"number": len(product.recipe) + 1, "status": status}
    if reason:
        entry["reason"] = reason
    if options:
        entry["options"] = dict(options)
    for reftype, file_name in (references or {}).items():
        keyword = keyword_of(f"meta.ref_file.{reftype}.name")
        if keyword is not None:
            cards[keyword] = f"crds://{file_name}" if file_name else "N/A"
    named = {file_name: (sha1 or {}).get(file_name, "") for file_name in (references or {}).values() if file_name}
    if named:
        entry["references"] = named
    recipe = {**product.recipe, info.name: entry}
    if not hasattr(product, "header"):  # a catalog
        return product.with_(recipe=recipe)
    return product.with_(header=product.header.set(cards), recipe=recipe)
