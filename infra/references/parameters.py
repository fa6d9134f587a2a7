"""Step options from parameter references: ``pars-<step>step`` and ``pars-<pipeline>pipeline``."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from infra.references.content import ReferenceInvalid, References
from infra.references.select import select_references

log = logging.getLogger(__name__)

# Where the reference type is not the name of the step without underscores (peer: names of its step classes).
_CLASSES = {"bkg_subtract": "background", "msa_flagging": "msaflagopen", "srctype": "sourcetype"}

# What the peer's steps have in common is about its files and hooks, not about calibration.
_NOT_CALIBRATION = frozenset(
    "pre_hooks post_hooks output_file output_dir output_ext output_use_model output_use_index save_results suffix "
    "search_output_file input_dir".split()
)


def parameter_reftype(step: str) -> str:
    """Reference type of the parameters of a step: ``"ramp_fit"`` -> ``"pars-rampfitstep"``."""
    return f"pars-{_CLASSES.get(step, step).replace('_', '')}step"


def select_parameters(
    header: Mapping[str, Any], steps: Iterable[str], context: str | None = None, pipeline: str | None = None
) -> References:
    """The parameter references of an exposure, as ``select_references`` gives them: None where there is none."""
    reftypes = [parameter_reftype(step) for step in steps]
    if pipeline is not None:
        reftypes.append(f"pars-{pipeline}pipeline")
    return select_references(header, reftypes, context)


def step_parameters(
    header: Mapping[str, Any], steps: Iterable[str], context: str | None = None, pipeline: str | None = None
) -> dict[str, dict[str, Any]]:
    """Options of steps that the parameter references set for this exposure.

    Parameters
    ----------
    header : mapping
        FITS keyword -> value of the exposure.
    steps : iterable of str
        Official step names.
    context : str, optional
        Name of the context.
    pipeline : str, optional
        Name of the pipeline, such as ``"image2"``: what its own reference sets goes over those of the steps.

    Returns
    -------
    dict
        Step -> option -> value, for those steps for which anything is set.

    Raises
    ------
    ReferenceInvalid
        If a file is not a tree with ``parameters``.
    """
    steps = list(steps)
    references = select_parameters(header, steps, context, pipeline)
    found: dict[str, dict[str, Any]] = {}
    for step in steps:
        reftype = parameter_reftype(step)
        tree = references.asdf(reftype)
        if tree is not None:
            found[step] = _parameters(tree, references.name(reftype))
    if pipeline is not None:
        reftype = f"pars-{pipeline}pipeline"
        for part in (references.asdf(reftype) or {}).get("steps", []):
            if part.get("name") in steps:
                found.setdefault(part["name"], {}).update(_parameters(part, references.name(reftype)))
    for step, values in found.items():
        log.debug("%s: parameter references set %s", step, values)
    return {step: values for step, values in found.items() if values}


def _parameters(tree: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    values = tree.get("parameters")
    if not isinstance(values, Mapping):
        raise ReferenceInvalid(
            f"{name} must be a parameter reference, a tree with 'parameters', but has {', '.join(tree)}"
        )
    return {key: value for key, value in values.items() if key not in _NOT_CALIBRATION}
