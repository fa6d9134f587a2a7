"""pathloss: the light that the entrance of a spectrograph cuts off."""

from infra.products.slits import SlitSet
from infra.references.content import References
from tasks.step import StepSkipped, step


@step("pathloss")
def pathloss(slits: SlitSet, references: References, options: object) -> SlitSet:
    """Leave slitless spectra as they are, and say so: there is no slit that could cut light off.

    Section "MIRI WFSS" of the pipelines calls for this step between srctype and photom. The official package calls it there,
    and skips it in every case: in the pipeline by the mode, and by itself because the exposure as a whole is no point source.
    """
    raise StepSkipped(f"{slits.header.require('EXP_TYPE')} has no slit that could cut light off")
