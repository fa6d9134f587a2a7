"""calwebb_dark: dark exposures, corrected for everything but the dark itself."""

from flows.detector1 import load_ramp, steps_for
from flows.stage import Overrides, prepare, save, stage_flow
from infra.monitoring import working_on
from infra.products.header import Header
from infra.products.names import base_of, rename
from tasks.dark_current import dark_current


def dark_steps(header: Header) -> tuple:
    """The steps of a dark exposure, in order."""
    steps = steps_for(header)
    return steps[: steps.index(dark_current)]


@stage_flow("dark")
def dark(exposure: str, output: str, overrides: Overrides | None = None) -> list[str]:
    """Correct the ramps of one dark exposure; returns the ``_dark`` that it wrote."""
    with working_on(base_of(exposure)):
        ramp = load_ramp(exposure)
        steps = dark_steps(ramp.header)
        references, options = prepare(ramp.header, steps, overrides, "dark")
        for step in steps:
            ramp = step(ramp, references, options)
        return [save(ramp, output, rename(exposure, "dark"), references)]
