"""An exposure in blocks of integrations is the exposure as a whole, to the last bit: its products, its record, its log."""

import logging
from types import SimpleNamespace

import pytest
from hard_ramps import Exposure, make_exposure, write_raw

from flows.blocks import PIXEL, SAMPLE, calibrate, integrations_at_once, rescale
from flows.cli import _bytes
from flows.detector1 import steps_for
from infra.monitoring import ROOMS
from infra.products.header import ProductError
from infra.products.image import write_image
from infra.products.ramp import open_ramp, write_ramp
from infra.products.stored import Stored
from tasks.gain_scale import gain_scale
from tasks.ramp_fit import ramp_fit
from tasks.step import STEPS, Options, StepOptions

EXPOSURES = {
    "near infrared": Exposure(
        "nir", (3, 6, 16, 2048), start=(1, 1), noutputs=1, zeroframe=True, nframes=2, gain_factor=2.0
    ),
    "MIRI": Exposure("mir", (3, 7, 8, 72), "MIRI", "MIRIMAGE", cards={"EXP_TYPE": "MIR_IMAGE", "READPATT": "FASTR1"}),
    "second segment": Exposure("seg", (3, 5, 8, 64), start=(1000, 1000), cards={"INTSTART": 4, "INTEND": 6}),
}
#: Steps that are off by default, and look at all integrations or carry something from one to the next.
CHOSEN = {
    "charge_migration": {"signal_threshold": 20_000.0},
    "clean_flicker_noise": {},
    "persistence": {"persistence_time": 100},
    "jump": {"after_jump_flag_dn1": 500.0, "after_jump_flag_time1": 20.0, "flag_4_neighbors": True},
}


@pytest.fixture(params=EXPOSURES)
def exposure(request, tmp_path):
    """An open exposure of three integrations, with its references."""
    ramp, references = make_exposure(tmp_path, EXPOSURES[request.param])
    write_raw(ramp, tmp_path / "x_uncal.fits")
    with open_ramp(tmp_path / "x_uncal.fits") as file:
        yield file, references


def memory_for(shape: tuple[int, ...], integrations: int) -> float:
    _, ngroups, ny, nx = shape
    return PIXEL * ny * nx + integrations * ngroups * ny * nx * SAMPLE + 1


def run(exposure, memory, options, folder):
    """The products, as the bytes that are in their files but for names and dates, and the recipe."""
    file, references = exposure
    ramp = calibrate(file, steps_for(file.header), references, options, memory)
    on_disk = isinstance(ramp.data, Stored)
    write_ramp(ramp, folder / "x_ramp.fits")
    for rate, suffix in zip(ramp_fit(ramp, references, options)[:2], ("rate", "rateints"), strict=True):
        write_image(rescale(gain_scale, rate, references, options), folder / f"x_{suffix}.fits")
    content = {}
    for path in sorted(folder.glob("x_*.fits")):
        if "uncal" not in path.name:
            raw = path.read_bytes()
            at = raw.index(b"DATE    =")
            content[path.name] = raw[:at] + raw[at + 80 :]
    return content, ramp.recipe, on_disk


def ours(caplog):
    """The lines of our rooms; a server of other tests may still say something."""
    return [record.getMessage() for record in caplog.records if record.name.split(".")[0] in ROOMS]


@pytest.mark.parametrize("chosen", [{}, CHOSEN], ids=["defaults", "all steps"])
def test_products_record_and_log_do_not_depend_on_the_blocks(exposure, chosen, tmp_path, caplog, without_server):
    caplog.set_level(logging.INFO)
    options = Options({name: StepOptions(STEPS[name].options(**values), skip=False) for name, values in chosen.items()})
    whole, recipe, on_disk = run(exposure, None, options, tmp_path)
    assert not on_disk
    lines = [line for line in ours(caplog) if "read noise" not in line]
    for integrations in (1, 2, 3):
        caplog.clear()
        products, same, on_disk = run(exposure, memory_for(exposure[0].shape, integrations), options, tmp_path)
        assert on_disk or integrations == 3
        assert same == recipe
        assert [line for line in ours(caplog) if "in blocks of" not in line] == lines
        assert products.keys() == whole.keys() >= {"x_ramp.fits", "x_rate.fits", "x_rateints.fits"}
        for name, content in products.items():
            assert content == whole[name], f"{name} differs in blocks of {integrations}"


def test_an_exposure_that_fits_is_one_block():
    shape = (10, 20, 256, 256)
    assert integrations_at_once(shape, None, "x") == 10
    assert integrations_at_once(shape, 1e9, "x") == 10
    assert integrations_at_once(shape, memory_for(shape, 4), "x") == 4


def test_an_integration_that_does_not_fit_is_an_error_that_says_how_much_it_needs():
    with pytest.raises(
        ProductError, match=r"x_uncal.fits: one integration of 100 groups .* needs 5\.\d\d GB .* --memory 5\.\d\dGB"
    ):
        integrations_at_once((1, 100, 2048, 2048), 1e9, "x_uncal.fits")
    with pytest.raises(ProductError, match="run fewer at a time"):
        integrations_at_once((1, 100, 2048, 2048), -1e9, "x_uncal.fits")


def test_a_record_that_depends_on_the_block_is_found(tmp_path):
    ramp, references = make_exposure(tmp_path, EXPOSURES["second segment"])
    write_raw(ramp, tmp_path / "x_uncal.fits")

    class Step:
        name = "forgetful"

        def __call__(self, ramp, references, options):
            return ramp.with_(header=ramp.header.set(PRIMECRS=float(ramp.data.sum())))

    with open_ramp(tmp_path / "x_uncal.fits") as file, pytest.raises(RuntimeError, match="must be named in"):
        calibrate(file, [Step()], references, Options(), memory_for(file.shape, 1))


@pytest.mark.parametrize(
    ("words", "size"),
    [("4GB", 4e9), ("4", 4e9), ("1.5GiB", 1.5 * 2**30), ("900 MB", 9e8), ("2g", 2e9), ("512MiB", 2**29)],
)
def test_a_size_is_read_as_it_is_written(words, size):
    assert _bytes(float, [SimpleNamespace(value=words)]) == size


@pytest.mark.parametrize("words", ["4XB", "-1GB", "0", "GB", "", "1.2.3GB"])
def test_what_is_no_size_is_refused(words):
    with pytest.raises(ValueError, match="expected a size such as 4GB"):
        _bytes(float, [SimpleNamespace(value=words)])
