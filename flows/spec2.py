"""calwebb_spec2: slopes of a dispersed exposure to calibrated spectra. Built so far: wide field slitless spectroscopy."""

from flows.stage import Overrides, member_urls, open_association, prepare, runs, save, science_url, stage_flow
from infra.monitoring import working_on
from infra.products.catalog import read_catalog
from infra.products.header import Header, ProductError
from infra.products.image import read_image, read_segmentation
from infra.storage.store import name_of
from tasks.assign_wcs import assign_wcs
from tasks.background import background
from tasks.extract_1d import extract_1d
from tasks.extract_2d import extract_2d
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
            members = {
                role: member_urls(association, product, role, output)
                for role in ("sourcecat", "segmap", "direct_image")
            }
            absent = [role for role, urls in members.items() if not urls]
            if absent:
                raise ProductError(
                    f"{asn.file_name or name_of(association)}: {product.name} is a slitless exposure and needs members of the "
                    f"roles sourcecat, segmap and direct_image, but {', '.join(absent)} "
                    f"{'is' if len(absent) == 1 else 'are'} missing; make them with image3 and name them in the association"
                )
            catalog = load(members["sourcecat"][0], read_catalog)
            references, options = prepare(image.header, ALL_STEPS, overrides, "spec2")

            cards = {
                "SCATFILE": members["sourcecat"],
                "SEGMFILE": members["segmap"],
                "DIRIMAGE": members["direct_image"],
            }
            image = image.with_(header=image.header.set({key: name_of(urls[0]) for key, urls in cards.items()}))
            image = assign_wcs(image, references, options)
            image = background(image, references, options, (), catalog)
            image = flat_field(image, references, options)
            slits = extract_2d(image, references, options, catalog)
            slits = srctype(slits, references, options)
            if slits.header["EXP_TYPE"] == "MIR_WFSS":
                slits = pathloss(slits, references, options)
            direct = load(members["direct_image"][0], read_image)
            segmentation = load(members["segmap"][0], read_segmentation)
            slits = wfss_contam(slits, references, options, direct, segmentation)
            slits = photom(slits, references, options)
            cards = {
                "SCATFILE": members["sourcecat"],
                "SEGMFILE": members["segmap"],
                "DIRIMAGE": members["direct_image"],
            }
            slits = slits.with_(header=slits.header.set({key: name_of(urls[0]) for key, urls in cards.items()}))
            made.append(save(slits, output, f"{product.name}_cal.fits", references, asn))

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
