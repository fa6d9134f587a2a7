"""1/f noise is removed as by the official pipeline (jwst 3.0.0), on the same ramps and images, for every option.

Tolerance: float32 rounding of signals of up to 65535 DN (0.02 DN), and of count rates 2e-4 of the scatter; masks are the same.
Not compared: the background "median_image". Theirs needs a WCS, spectra and apertures of stages 2 and 3 to tell how bright each
integration of a time series is; ours takes the light of the pixels that the mask leaves out.
"""

import numpy as np
import pytest
from astropy.io import fits
from carried_parity import load, run_peer, write_cache
from hard_ramps import Exposure, make_exposure

from calibration import dq
from calibration.simulate.flicker import flicker_noise
from infra.products.image import Image, write_image
from infra.products.ramp import Ramp, write_ramp
from infra.references.content import References
from tasks.clean_flicker_noise import CleanFlickerNoiseOptions, clean_flicker_noise

INSIDE = (1001, 901)
EXPOSURES = {
    "niriss": Exposure("niriss", (3, 5, 64, 96), start=INSIDE, axes=(-2, -1)),
    "nircam": Exposure("nircam", (2, 4, 64, 64), "NIRCAM", "NRCA1", start=INSIDE, axes=(-1, 2),
                       cards={"EXP_TYPE": "NRC_IMAGE"}),
    "nrs1": Exposure("nrs1", (1, 4, 64, 512), "NIRSPEC", "NRS1", start=INSIDE, axes=(2, 1),
                     cards={"EXP_TYPE": "NRS_FIXEDSLIT", "SUBARRAY": "ALLSLITS"}),
    "nrs2": Exposure("nrs2", (1, 4, 32, 512), "NIRSPEC", "NRS2", start=INSIDE, axes=(-2, -1),
                     cards={"EXP_TYPE": "NRS_BRIGHTOBJ", "SUBARRAY": "SUBS200A1"}),
    "miri": Exposure("miri", (2, 6, 64, 72), "MIRI", "MIRIMAGE", start=(101, 201), axes=(1, 2),
                     cards={"EXP_TYPE": "MIR_IMAGE"}),
}  # fmt: skip
CASES = {
    "default": ("niriss", {}),
    "smooth": ("niriss", {"background_method": "model", "n_sigma": 3.0, "background_box_size": [16, 16]}),
    "no_background": ("niriss", {"background_method": None}),
    "no_clipping": ("niriss", {"n_sigma": 0.0}),
    "histogram": ("niriss", {"fit_histogram": True}),
    "a_mask_for_each": ("niriss", {"single_mask": False}),
    "flat": ("niriss", {"apply_flat_field": True}),
    "automatic": ("niriss", {"autoparam": True}),
    "nircam_automatic": ("nircam", {"autoparam": True}),
    "fft_all_slits": ("nrs1", {"fit_method": "fft"}),
    "fft": ("nrs2", {"fit_method": "fft", "background_method": "model"}),
    "miri_regions": ("miri", {"mask_science_regions": True}),
}
FULL_FRAMES = {
    "channels": ("NIRISS", "NIS", "NIS_IMAGE", (-2, -1), {"fit_by_channel": True}),
    "full_fft": ("NIRSPEC", "NRS2", "NRS_MSASPEC", (-2, -1), {"fit_method": "fft"}),
}


def ramps_of(folder, exposure):
    """Ramps as they are after jump: a sky, stars, hits that are flagged, 1/f noise; and their references."""
    raw, references = make_exposure(folder, exposure)
    rng = np.random.default_rng(len(exposure.name))
    nints, ngroups, ny, nx = exposure.shape
    fast = 0 if exposure.instrument == "MIRI" else abs(exposure.axes[1]) - 1
    rate = rng.normal(2.0, 0.02, (ny, nx)) + np.where(rng.random((ny, nx)) < 0.02, rng.exponential(300, (ny, nx)), 0)
    rate[rng.random((ny, nx)) < 0.005] *= np.nan
    data = rate * raw.header["TGROUP"] * np.arange(1, ngroups + 1)[:, None, None] + rng.normal(0, 3, exposure.shape)
    for i in range(nints):
        data[i] += [flicker_noise((ny, nx), fast, 4.0, rng) for _ in range(ngroups)]
    groupdq = np.zeros(exposure.shape, np.uint8)
    hit = rng.random(exposure.shape) < 0.002
    hit[:, 0] = False
    data += np.cumsum(np.where(hit, 800, 0), axis=1)
    groupdq[hit] |= dq.GROUP["JUMP_DET"]
    groupdq[:, -1][:, rng.random((ny, nx)) < 0.01] |= dq.GROUP["DO_NOT_USE"]
    pixeldq = np.where(rng.random((ny, nx)) < 0.01, dq.PIXEL["DO_NOT_USE"], np.uint32(0))
    return Ramp(raw.header, data.astype(np.float32), pixeldq, groupdq), references


def write_flat(path, gain_file, shape, seed):
    rng = np.random.default_rng(seed)
    flat = (1 + 0.05 * np.sin(np.arange(shape[1]) / 9) + rng.normal(0, 0.01, shape)).astype(np.float32)
    flat[rng.random(shape) < 0.01] = np.nan
    flat[rng.random(shape) < 0.01] = 0
    flags = np.where(rng.random(shape) < 0.1, dq.PIXEL["DO_NOT_USE"], np.uint32(0))
    with fits.open(gain_file) as hdus:
        primary = hdus[0].copy()
    primary.header["REFTYPE"] = "FLAT"
    hdus = [fits.ImageHDU(flat, name="SCI"), fits.ImageHDU(flat * 0, name="ERR"), fits.ImageHDU(flags, name="DQ")]
    definitions = fits.BinTableHDU.from_columns(
        [
            fits.Column("BIT", "J", array=[0]), fits.Column("VALUE", "J", array=[1]),
            fits.Column("NAME", "40A", array=["DO_NOT_USE"]), fits.Column("DESCRIPTION", "80A", array=["bad"]),
        ],
        name="DQ_DEF",
    )  # fmt: skip
    fits.HDUList([primary, *hdus, definitions]).writeto(path)
    return str(path)


def full_frame(name, header):
    """Count rates of a full frame with 1/f noise and stars or traces."""
    rng = np.random.default_rng(5)
    shape = (2048, 2048)
    data = rng.normal(0.5, 0.05, shape) + flicker_noise(shape, 0, 0.05, rng)
    if name == "full_fft":
        for y, x in rng.integers(0, 1900, (40, 2)):
            data[y : y + 9, x : x + 700] += 3
    else:
        data[rng.random(shape) < 0.003] += 5
    data[rng.random(shape) < 0.001] = np.nan
    data = data.astype(np.float32)
    return Image(header, data, np.ones_like(data), np.zeros(shape, np.uint32))


@pytest.fixture(scope="module")
def made(tmp_path_factory, peer):
    folder = tmp_path_factory.mktemp("flicker_parity")
    products, files, jobs = {}, {}, []
    for name, exposure in EXPOSURES.items():
        ramp, references = ramps_of(folder, exposure)
        flat = write_flat(folder / f"{name}_flat.fits", references.files["gain"], exposure.shape[-2:], len(name))
        products[name] = ramp, References({**references.files, "flat": flat}, "")
        files[exposure.instrument, exposure.detector] = {
            "gain": references.files["gain"], "readnoise": references.files["readnoise"], "flat": flat
        }  # fmt: skip
        write_ramp(ramp, folder / f"{name}_ramp.fits")
    for case, (name, options) in CASES.items():
        jobs.append({
            "name": case, "step": "clean_flicker_noise", "model": "RampModel", "references": {},
            "exposure": str(folder / f"{name}_ramp.fits"), "options": {"save_mask": True, **options},
        })  # fmt: skip
    for name, (instrument, detector, exp_type, axes, options) in FULL_FRAMES.items():
        header = products["niriss"][0].header.set(
            INSTRUME=instrument, DETECTOR=detector, EXP_TYPE=exp_type, FASTAXIS=axes[0], SLOWAXIS=axes[1],
            SUBARRAY="FULL", SUBSTRT1=1, SUBSTRT2=1, SUBSIZE1=2048, SUBSIZE2=2048,
        )  # fmt: skip
        products[name] = full_frame(name, header), References({"gain": None, "readnoise": None, "flat": None}, "")
        write_image(products[name][0], folder / f"{name}_rate.fits")
        jobs.append({
            "name": name, "step": "clean_flicker_noise", "model": "ImageModel", "references": {},
            "exposure": str(folder / f"{name}_rate.fits"), "options": options,
        })  # fmt: skip
    run_peer(peer, folder, write_cache(folder / "crds", files), jobs)
    return folder, products


@pytest.mark.parametrize("case", CASES)
def test_ramps_are_cleaned_as_by_the_official_pipeline(made, case):
    folder, products = made
    name, options = CASES[case]
    ramp, references = products[name]
    done = clean_flicker_noise.fn(ramp, references, CleanFlickerNoiseOptions(save_mask=True, **options))
    theirs = load(folder, case)
    assert done.recipe["clean_flicker_noise"]["status"] == theirs["status"] == "COMPLETE"
    (path,) = (folder / case).glob("*_mask.fits")
    np.testing.assert_array_equal(done.side["mask"].data, fits.getdata(path, "SCI"))
    np.testing.assert_allclose(done.data, theirs["data"], rtol=1e-6, atol=0.02)
    # It is the noise that is the same, not nothing.
    assert np.nanstd(done.data - ramp.data) > 1


@pytest.mark.parametrize("case", FULL_FRAMES)
def test_full_frames_are_cleaned_as_by_the_official_pipeline(made, case):
    folder, products = made
    image, references = products[case]
    options = CleanFlickerNoiseOptions(**FULL_FRAMES[case][-1])
    done = clean_flicker_noise.fn(image, references, options)
    theirs = load(folder, case)["data"]
    np.testing.assert_allclose(done.data, theirs, rtol=1e-5, atol=1e-5)
    assert np.nanstd(done.data - image.data) > 0.02


def test_a_mask_of_the_user_is_taken(made, peer, tmp_path):
    folder, products = made
    ramp, references = products["niriss"]
    (path,) = (folder / "default").glob("*_mask.fits")
    options = CleanFlickerNoiseOptions(user_mask=str(path))
    done = clean_flicker_noise.fn(ramp, references, options)
    np.testing.assert_allclose(done.data, load(folder, "default")["data"], rtol=1e-6, atol=0.02)
