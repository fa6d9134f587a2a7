"""calwebb_dark: dark exposures, corrected for everything but the dark itself."""

from flows.blocks import calibrate
from flows.detector1 import check_shape, steps_for
from flows.stage import Overrides, prepare, save, save_side, stage_flow
from infra.monitoring import working_on
from infra.products.header import Header
from infra.products.names import base_of, rename
from infra.products.ramp import open_ramp
from infra.storage.store import fetched
from tasks.dark_current import dark_current


def dark_steps(header: Header) -> tuple:
    """The steps of a dark exposure, in order."""
    steps = steps_for(header)
    return steps[: steps.index(dark_current)]


@stage_flow("dark")
def dark(exposure: str, output: str, overrides: Overrides | None = None, memory: float | None = None) -> list[str]:
    """Correct the ramps of one dark exposure; returns the ``_dark`` that it wrote.

    It takes no more than ``memory`` [byte] beside the program itself (None: what the exposure needs).
    """
    with working_on(base_of(exposure)), fetched(exposure) as path, open_ramp(path) as file:
        header = check_shape(file)
        steps = dark_steps(header)
        references, options = prepare(header, steps, overrides, "dark")
        ramp = calibrate(file, steps, references, options, memory)
        beside = save_side(ramp, exposure, output, references)
        return [save(ramp, output, rename(exposure, "dark"), references), *beside]
