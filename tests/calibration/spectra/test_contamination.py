"""The model of the neighbours, against a scene dispersed pixel by pixel, and laws of it."""

import numpy as np
import pytest
from astropy.modeling.models import Scale, Shift
from gwcs import WCS
from wfss_scene import POINTING, RANGE, distortion, wcs_of

from calibration.spectra.photom import dispersed_conversion
from calibration.spectra.wfss_contam import (
    OrderResponse,
    Scene,
    add_traces,
    fit_shape,
    model_cutout,
    model_exposure,
    order_response,
    scene_of,
)
from calibration.wcs.grism import dispersion_of, place, wavelengths_along
from calibration.wcs.imaging import imaging_wcs
from calibration.wcs.pointing import detector_frame

SIZE = 256
WAVES, RESPONSE = np.linspace(1.6, 2.4, 60), 1 + 0.2 * np.linspace(-1, 1, 60)


def points(*sources):
    numbers, x0, y0, brightness = (np.array(column, float) for column in zip(*sources, strict=True))
    return Scene(numbers.astype(int), x0, y0, brightness)


def response(dispersion, order=1):
    return order_response(dispersion, order, (128.0, 128.0), RANGE, 0.3, WAVES, RESPONSE)


@pytest.mark.parametrize("grism", ["GR150R", "GR150C"])
def test_the_model_of_a_flat_source_is_flat_when_it_is_calibrated(grism):
    dispersion = dispersion_of(wcs_of(grism, SIZE))
    x0, y0 = (200.0, 130.0) if dispersion.axis == 1 else (130.0, 230.0)
    image = model_exposure(points((1, x0, y0, 2.0)), dispersion, {1: response(dispersion)}, (SIZE, SIZE))
    counts = image.sum(axis=0 if dispersion.axis == 1 else 1)
    index = np.array([dispersion.index(1)])
    wavelength = wavelengths_along(dispersion, index, np.array([x0]), np.array([y0]), np.array([0]), SIZE)
    conversion = dispersed_conversion(np.broadcast_to(wavelength, (3, SIZE)), 1, 0.3, WAVES, RESPONSE)[1]
    inside = (wavelength[0] > RANGE[0] + 0.02) & (wavelength[0] < RANGE[1] - 0.02)
    assert inside.sum() > 80
    np.testing.assert_allclose((counts * conversion)[inside], 2.0, rtol=0.02)


def test_light_is_laid_where_the_trace_is_and_none_is_lost():
    dispersion = dispersion_of(wcs_of("GR150R", SIZE))
    one = OrderResponse(np.array([2.0]), np.array([5.0]))
    image = np.zeros((SIZE, SIZE))
    add_traces(image, (0, 0), points((1, 100.3, 180.7, 3.0)), dispersion, 1, one)
    assert image.sum() == pytest.approx(15.0)
    y, x = np.mgrid[:SIZE, :SIZE]
    at = place(dispersion, np.array([dispersion.index(1)]), np.array([100.3]), np.array([180.7]), np.array([2.0]))
    assert ((image * x).sum() / 15, (image * y).sum() / 15) == pytest.approx((at[0][0, 0], at[1][0, 0]))


def test_the_cutout_of_a_source_is_the_part_of_the_exposure_that_is_its_own():
    dispersion = dispersion_of(wcs_of("GR150R", SIZE))
    responses = {order: response(dispersion, order) for order in (1, 2)}
    scene = points((1, 100, 230, 2.0), (1, 101, 230, 1.0), (4, 108, 222, 5.0))
    total = model_exposure(scene, dispersion, responses, (SIZE, SIZE))
    alone = {n: model_exposure(scene.of(n), dispersion, responses, (SIZE, SIZE)) for n in (1, 4)}
    np.testing.assert_allclose(total, alone[1] + alone[4], atol=1e-12)
    part = model_cutout(scene, 1, dispersion, 1, responses[1], (95, 100), (120, 20))
    whole = model_exposure(scene.of(1), dispersion, {1: responses[1]}, (SIZE, SIZE))
    np.testing.assert_allclose(part, whole[100:220, 95:115], atol=1e-12)
    assert part.sum() > 0


def by_definition(scene, dispersion, order, response, shape):
    """Each pixel on its own trace, light by light."""
    image = np.zeros((shape[0] + 8, shape[1] + 8))
    index = np.full(scene.source.size, dispersion.index(order))
    x, y = place(dispersion, index, scene.x0, scene.y0, response.wavelength)

    def weights(f):
        return (
            np.array([f * (f * (2 - f) - 1), f * f * (3 * f - 5) + 2, f * (f * (4 - 3 * f) + 1), f * f * (f - 1)]) / 2
        )

    for p, l in np.ndindex(x.shape):
        left, low = int(np.floor(x[p, l])), int(np.floor(y[p, l]))
        if -2 <= left <= shape[1] and -2 <= low <= shape[0]:
            part = scene.brightness[p] * response.counts[l] * np.outer(weights(y[p, l] - low), weights(x[p, l] - left))
            image[low + 3 : low + 7, left + 3 : left + 7] += part
    return image[4:-4, 4:-4]


@pytest.mark.parametrize("grism", ["GR150R", "GR150C"])
def test_a_large_source_is_dispersed_as_pixel_by_pixel(grism):
    dispersion = dispersion_of(wcs_of(grism, SIZE))
    y, x = np.mgrid[-12:13, -12:13]
    glow = 3 * np.exp(-(x**2 + 2 * y**2) / 40).ravel()
    # Its spectrum of order 2 leaves the detector, and its middle may be outside of it.
    for x0, y0 in ((130.0, 210.0), (258.0, 240.0)):
        scene = points(*((3, x0 + dx, y0 + dy, b) for dy, dx, b in zip(y.ravel(), x.ravel(), glow, strict=True)))
        for order in (1, 2):
            image = np.zeros((SIZE, SIZE))
            add_traces(image, (0, 0), scene, dispersion, order, response(dispersion, order))
            truth = by_definition(scene, dispersion, order, response(dispersion, order), (SIZE, SIZE))
            np.testing.assert_allclose(image, truth, atol=0.02 * truth.max())
            assert truth.any()


def test_a_source_that_is_not_in_the_scene_adds_nothing():
    dispersion = dispersion_of(wcs_of("GR150R", SIZE))
    scene = points((1, 100, 230, 2.0))
    assert not model_cutout(scene, 7, dispersion, 1, response(dispersion), (95, 100), (120, 20)).any()
    none = Scene(np.empty(0, int), np.empty(0), np.empty(0), np.empty(0))
    assert not model_exposure(none, dispersion, {1: response(dispersion)}, (SIZE, SIZE)).any()


def test_the_shape_of_a_spectrum_is_found_again():
    dispersion = dispersion_of(wcs_of("GR150R", SIZE))
    scene, flat = points((1, 130.0, 230.0, 2.0)), response(dispersion)
    origin, shape = (120, 40), (180, 20)
    truth = np.array([-1.0, 1.0])  # rises from 0.7 to 1.28
    bright = model_cutout(scene, 1, dispersion, 1, flat, origin, shape, shapes={1: truth})
    model = model_cutout(scene, 1, dispersion, 1, flat, origin, shape)
    wavelength = np.broadcast_to(
        wavelengths_along(
            dispersion, np.array([dispersion.index(1)]), np.array([130.0]), np.array([230.0]), np.array([40]), 180
        ).T,
        shape,
    )
    err = np.full(shape, 1e-4)
    found = fit_shape(bright, err, model, wavelength, 2, 1)
    np.testing.assert_allclose(np.polynomial.polynomial.polyval([1.75, 2.2], found), [0.75, 1.2], rtol=0.02)
    assert fit_shape(bright, 1e5 * err, model, wavelength, 2, 1) is None, "noise has no shape"
    assert fit_shape(1.5 * bright, err, model, wavelength, 2, 1, 0.1) is None, "the direct image says otherwise"
    np.testing.assert_allclose(fit_shape(bright, err, model, wavelength, 2, 1, 0.1), found)
    # A profile that is wider in the mosaic than in the exposure does not make a source brighter.
    mosaic = points((1, 129.0, 230.0, 0.5), (1, 130.0, 230.0, 1.0), (1, 131.0, 230.0, 0.5))
    wider = model_cutout(mosaic, 1, dispersion, 1, flat, origin, shape)
    np.testing.assert_allclose(fit_shape(bright, err, wider, wavelength, 2, 1), found, rtol=0.03)


def test_pixels_of_the_mosaic_are_placed_with_their_area():
    grism = wcs_of("GR150C", SIZE)
    imaging = imaging_wcs(POINTING, distortion(SIZE), (SIZE, SIZE))
    # A mosaic whose pixels are half as wide, and shifted.
    finer = (Scale(0.5) & Scale(0.5)) | (Shift(10.0) & Shift(20.0))
    mosaic = WCS([(detector_frame(), finer | imaging.forward_transform), (imaging.output_frame, None)])
    direct, segmentation = np.full((40, 50), 0.25, np.float32), np.zeros((40, 50), np.uint32)
    segmentation[10, 20], segmentation[30, 5], segmentation[11, 20] = 7, 2, 7
    direct[segmentation > 0] = 3.25  # 3, on a sky that is left
    direct[11, 20] = np.nan
    scene = scene_of(direct, segmentation, mosaic, grism)
    assert scene.source.tolist() == [2, 7]
    np.testing.assert_allclose(scene.x0, [12.5, 20.0], atol=0.1)
    np.testing.assert_allclose(scene.y0, [35.0, 25.0], atol=0.1)
    np.testing.assert_allclose(scene.brightness, 3.0 / 4, rtol=1e-2)


def test_a_segmentation_map_of_another_mosaic_is_refused():
    grism = wcs_of("GR150C", SIZE)
    with pytest.raises(ValueError, match=r"\(4, 5\) and the segmentation map \(5, 4\) must be of the same mosaic"):
        scene_of(np.zeros((4, 5)), np.zeros((5, 4), np.uint32), grism, grism)
