"""calwebb_spec2: slopes of a dispersed exposure to calibrated spectra. Built so far: wide field slitless spectroscopy."""

from flows.field import open_field, save_derived
from flows.stage import Overrides, open_association, prepare, runs, save, save_side, science_url, stage_flow
from infra.monitoring import working_on
from infra.products.header import Header, ProductError
from infra.products.image import read_image
from tasks.assign_wcs import assign_wcs
from tasks.background import background
from tasks.extract_1d import extract_1d
from tasks.extract_2d import extract_2d
from tasks.field import require_brightness, tell_filters
from tasks.flat_field import flat_field
from tasks.pathloss import pathloss
from tasks.photom import photom
from tasks.products import load
from tasks.srctype import srctype
from tasks.wfss_contam import wfss_contam

ALL_STEPS = (assign_wcs, background, flat_field, extract_2d, srctype, pathloss, wfss_contam, photom, extract_1d)

WFSS_TYPES = frozenset("MIR_WFSS NIS_WFSS NRC_WFSS".split())


@stage_flow("spec2")
def spec2(association: str, output: str, overrides: Overrides | None = None) -> list[str]:
    """Calibrate the spectra of a level 2 association; returns the ``_cal`` and ``_x1d`` written."""
    asn = open_association(association)
    made = []
    for product in asn.products:
        with working_on(product.name):
            science = science_url(association, product, output)
            image = load(science, read_image)
            require_wfss(image.header)
            references, options = prepare(image.header, ALL_STEPS, overrides, "spec2")
            field = open_field(association, asn, product, output, options)
            tell_filters(field, image.header)

            image = image.with_(header=image.header.set(field.cards))
            image = assign_wcs(image, references, options)
            image = background(image, references, options, (), field.catalog)
            image = flat_field(image, references, options)
            slits = extract_2d(image, references, options, field.catalog)
            slits = srctype(slits, references, options)
            if slits.header["EXP_TYPE"] == "MIR_WFSS":
                slits = pathloss(slits, references, options)
            if runs("wfss_contam", options):
                require_brightness(field, image.header)
            slits = wfss_contam(slits, references, options, field.direct, field.segmentation)
            made += save_side(slits, science, output, references)
            slits = photom(slits, references, options)
            slits = slits.with_(header=slits.header.set(field.cards))
            made.append(save(slits, output, f"{product.name}_cal.fits", references, asn))
            made += save_derived(field, product, output, references, asn)

            if runs("extract_1d", options):
                spectra = extract_1d(slits, references, options)
                made.append(save(spectra, output, f"{product.name}_x1d.fits", references, asn))
    return made


def require_wfss(header: Header) -> None:
    """Say so, in words, where the mode of an exposure is not built yet."""
    exp_type = header.require("EXP_TYPE")
    if exp_type not in WFSS_TYPES:
        raise ProductError(
            f"{header.get('FILENAME')}: expected a slitless exposure ({', '.join(sorted(WFSS_TYPES))}), but EXP_TYPE is "
            f"{exp_type}, whose spectroscopic pipelines are not built yet; use the official package for it meanwhile"
        )
