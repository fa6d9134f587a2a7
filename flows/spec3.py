"""calwebb_spec3: the calibrated spectra of many exposures to one spectrum per source. Built so far: slitless."""

from flows.spec2 import require_wfss
from flows.stage import Overrides, member_urls, open_association, prepare, runs, save, stage_flow
from infra.monitoring import working_on
from infra.products.slits import read_slits
from tasks.combine_1d import combine_1d
from tasks.exp_to_source import exp_to_source
from tasks.extract_1d import extract_1d
from tasks.options import OptionError
from tasks.pixel_replace import pixel_replace
from tasks.products import load
from tasks.step import Options

ALL_STEPS = (exp_to_source, pixel_replace, extract_1d, combine_1d)


@stage_flow("spec3")
def spec3(association: str, output: str, overrides: Overrides | None = None) -> list[str]:
    """Combine the spectra of a level 3 association by source; returns the ``_x1d`` and ``_c1d`` written."""
    asn = open_association(association)
    made = []
    for product in asn.products:
        with working_on(product.name):
            exposures = tuple(load(url, read_slits) for url in member_urls(association, product, "science", output))
            require_wfss(exposures[0].header)
            references, options = prepare(exposures[0].header, ALL_STEPS, overrides, "spec3")

            require_steps(options)
            sources = exp_to_source(exposures, references, options)
            sources = pixel_replace(sources, references, options)
            spectra = extract_1d(sources, references, options)
            made.append(save(spectra, output, f"{product.name}_x1d.fits", references, asn))
            if runs("combine_1d", options):
                combined = combine_1d(spectra, references, options)
                made.append(save(combined, output, f"{product.name}_c1d.fits", references, asn))
    return made


def require_steps(options: Options) -> None:
    """Nothing comes of spec3 without the steps that sort and extract: say so before the work."""
    for name in ("exp_to_source", "extract_1d"):
        if not runs(name, options):
            raise OptionError(f"{name}.skip=true leaves spec3 nothing to make; leave the association out instead")
