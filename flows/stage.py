"""What the stage flows share: the flow itself, the start (references, options) and the end (save)."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from associations.association import Association, Product, read_association, single_association
from infra.products.header import Header, ProductError
from infra.products.names import base_of, rename, stem_of
from infra.provenance import stamp
from infra.references.content import References
from infra.references.parameters import parameter_reftype, step_parameters
from infra.references.select import select_references
from infra.reported import as_flow
from infra.storage.store import exists, folder_of, join, name_of, read_text
from tasks.options import resolve_options
from tasks.products import EXTENSIONS
from tasks.products import save as save_product
from tasks.step import STEPS, Options, reference_types

log = logging.getLogger(__name__)

#: Modes whose exposures are direct images.
IMAGE_TYPES = frozenset("FGS_IMAGE MIR_IMAGE NRC_IMAGE NIS_IMAGE NRS_MIMF".split())

#: Options of the parameter file and the command line: step -> option -> value.
Overrides = Mapping[str, Mapping[str, Any]]


def stage_flow(stage: str) -> Callable[[Callable], Any]:
    """Make ``function(input, output, overrides)`` the flow of a stage; its runs are named by what they work on."""

    def run_name() -> str:
        from prefect.runtime import flow_run

        parameters = flow_run.parameters
        return f"{stage} {stem_of(parameters.get('exposure') or parameters.get('association'))}"

    return lambda function: as_flow(function, name=f"calwebb_{stage}", flow_run_name=run_name)


def prepare(
    header: Header, steps: Iterable[Any], overrides: Overrides | None, pipeline: str
) -> tuple[References, Options]:
    """Choose the options of the steps, then the reference files of those steps that will run.

    Parameters
    ----------
    steps : iterable of tasks
        Made by ``@step``.
    overrides : mapping
        Options of the parameter file and the command line, the latter over the former.

    Raises
    ------
    OptionError
        For an option that does not exist or a value out of bounds.
    ReferenceNotFound, ReferenceCacheError
        If a reference file is missing.
    """
    steps = tuple(steps)
    options = choose_options(header, steps, overrides, pipeline)
    return select_references(header, running_reftypes(header, steps, options)), options


def choose_options(header: Header, steps: Iterable[Any], overrides: Overrides | None, pipeline: str) -> Options:
    """The options of the steps of a pipeline: of the parameter references, and ``overrides`` over them."""
    names = [step.name for step in steps]
    return resolve_options(step_parameters(header, names, pipeline=pipeline), overrides or {})


def running_reftypes(header: Header, steps: Iterable[Any], options: Options) -> list[str]:
    """The reference types that those of the steps read that will run."""
    running = [step.name for step in steps if runs(step.name, options)]
    return sorted({kind for name in running for kind in reference_types(name, header, options.of(name).values)})


def reftypes_of(header: Header, steps: Iterable[Any], pipeline: str) -> list[str]:
    """All the reference types that a pipeline may ask for: those of the steps that are off, and of parameters, too."""
    names = [step.name for step in steps]
    reftypes = {reftype for name in names for reftype in STEPS[name].references(header)}
    return sorted(reftypes | set(parameter_reftypes(names, pipeline)))


def parameter_reftypes(names: Iterable[str], pipeline: str) -> list[str]:
    """The types of the parameter references of these steps and their pipeline."""
    return [*(parameter_reftype(name) for name in names), f"pars-{pipeline}pipeline"]


def runs(name: str, options: Options) -> bool:
    """Whether a step is on: by its option ``skip``, else by its default."""
    skip = options.of(name).skip
    return STEPS[name].default if skip is None else not skip


def save(product: Any, output: str, name: str, references: References, association: Association | None = None) -> str:
    """Stamp a product with versions, context and association, and publish it as ``output/name``; returns that URL."""
    if hasattr(product, "header"):
        header = stamp(product.header, references.context)
        if association is not None:
            header = header.set(ASNPOOL=association.asn_pool or None, ASNTABLE=association.file_name)
        product = product.with_(header=header)
    url = save_product(product, join(output, name))
    log.info("wrote %s", name)
    return url


#: Members that associations which are opened now are made without: they failed, or hold nothing.
_left_out: ContextVar[frozenset[str]] = ContextVar("left_out", default=frozenset())


@contextmanager
def leaving_out(members: frozenset[str]) -> Iterator[None]:
    """Associations that are opened within have none of these members."""
    token = _left_out.set(members)
    try:
        yield
    finally:
        _left_out.reset(token)


def save_side(product: Any, exposure: str, output: str, references: References) -> list[str]:
    """Publish what steps made beside a product of an exposure on request; returns those URLs."""
    made = []
    for key, one in product.side.items():
        if "/" in key or "." in key:  # a name that the user gave
            made.append(save_product(one, key))
            log.info("wrote %s", key)
        else:
            made.append(save(one, output, rename(exposure, key, EXTENSIONS.get(type(one), "fits")), references))
    return made


def open_association(url: str) -> Association:
    """The association of a file; a product's file stands for an association with it as the only science member.

    Without the members that the run leaves out.

    Raises
    ------
    AssociationError
        If the file is not a valid association.
    """
    name = name_of(url)
    if not name.endswith(".json"):
        return single_association(name, base_of(name))
    association = read_association(read_text(url), name)
    absent = _left_out.get()
    if not absent:
        return association
    log.warning("%s: without %s, which did not come to be", name, ", ".join(sorted(absent)))
    products = (
        replace(product, members=tuple(member for member in product.members if member.expname not in absent))
        for product in association.products
    )
    return association.with_(products=tuple(products))


def member_urls(url: str, product: Product, role: str, output: str) -> tuple[str, ...]:
    """Where the members of one role are: in the output folder, else beside the association (or product) file ``url``.

    Raises
    ------
    ProductError
        If a member is in neither, or there is no science member.
    """
    found = []
    for member in product.members:
        if member.exptype == role:
            places = [join(output, member.expname), join(folder_of(url), member.expname)]
            there = [place for place in places if exists(place)]
            if not there:
                raise ProductError(
                    f"{name_of(url)}: its {role} member {member.expname} is neither in {output} nor in {folder_of(url)}; "
                    "make it or put it there, or take it out of the association"
                )
            found.append(there[0])
    if role == "science" and not found:
        raise ProductError(f"{name_of(url)}: {product.name} has no science member; name the exposures it is made of")
    return tuple(found)


def science_url(url: str, product: Product, output: str) -> str:
    """Where the one science member of a product of level 2 is.

    Raises
    ------
    ProductError
        If there is none, or more than one, or it is not there.
    """
    found = member_urls(url, product, "science", output)
    if len(found) > 1:
        raise ProductError(
            f"{name_of(url)}: expected one science member of {product.name}, but it has {len(found)}; an association of "
            "level 2 has a product for each science exposure"
        )
    return found[0]


def candidate_name(name: str, association: Association) -> str:
    """The name of an exposure's product of stage 3: with the candidate, ``jw..._nis_o001_crf.fits``."""
    if association.asn_id is None:
        return name
    base, _, suffix = name.rpartition("_")
    return f"{base}_{association.asn_id}_{suffix}"
