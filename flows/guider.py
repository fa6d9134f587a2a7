"""calwebb_guider: images of the fine guidance sensor's own work, calibrated."""

from flows.stage import Overrides, prepare, save, stage_flow
from infra.monitoring import working_on
from infra.products.guider import read_guider
from infra.products.names import base_of, rename
from tasks.dq_init import dq_init
from tasks.flat_field import flat_field
from tasks.guider_cds import guider_cds
from tasks.products import load

STEPS = (dq_init, guider_cds, flat_field)


@stage_flow("guider")
def guider(exposure: str, output: str, overrides: Overrides | None = None) -> list[str]:
    """Calibrate one guider exposure; returns the ``_cal`` that it wrote."""
    with working_on(base_of(exposure)):
        product = load(exposure, read_guider)
        references, options = prepare(product.header, STEPS, overrides, "guider")
        for step in STEPS:
            product = step(product, references, options)
        return [save(product, output, rename(exposure, "cal"), references)]
