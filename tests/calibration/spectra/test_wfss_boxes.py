"""Boxes of spectra and their wavelengths, against a plain loop over the gwcs, one call at a time."""

import numpy as np
import pytest
from wfss_scene import RANGE, WAVELENGTHRANGE, Place, catalog_of, wcs_of

from calibration.spectra.extract_2d import clip_traces, cutout_wavelengths, locate_traces, wavelength_ranges
from calibration.spectra.sources import sources_of

SIZE = 512
GRISMS = pytest.mark.parametrize("grism", ["GR150R", "GR150C"])


def field(grism, n=40, seed=3):
    """Sources in and about the field, half of them extended."""
    rng = np.random.default_rng(seed)
    places = [
        Place(k + 1, *rng.uniform(-60, SIZE + 60, 2), rng.uniform(2, 9), rng.uniform(18, 26), bool(rng.random() < 0.5))
        for k in range(n)
    ]
    wcs = wcs_of(grism, SIZE)
    return wcs, sources_of(catalog_of(places, wcs))


def by_definition(wcs, sources, order, half_height):
    """Box of each source, from the corners of its box at both ends of the range, by calls of the gwcs."""
    to_grism = wcs.get_transform("world", "grism_detector")
    axis = 1 if "Row" in type(wcs.get_transform("grism_detector", "detector")[0]).__name__ else 2
    boxes = {}
    for k in range(len(sources)):
        ends = [to_grism(sources.corner_ra[k], sources.corner_dec[k], end, order)[:2] for end in RANGE]
        x, y = (np.concatenate([end[i] for end in ends]) for i in (0, 1))
        box = [x.min(), x.max(), y.min(), y.max()]
        if not sources.extended[k]:
            centre = to_grism(sources.ra[k], sources.dec[k], np.mean(RANGE), order)[2 - axis]
            low = 2 if axis == 1 else 0
            box[low], box[low + 1] = float(centre - half_height), float(centre + half_height)
        boxes[int(sources.label[k])] = [int(np.floor(edge + 0.5)) for edge in box]
    return boxes


@GRISMS
@pytest.mark.parametrize("order", [1, 2, 0])
def test_boxes_are_those_of_the_definition(grism, order):
    wcs, sources = field(grism)
    traces = locate_traces(wcs, sources, {order: RANGE}, (SIZE, SIZE), half_height=5)
    expected = by_definition(wcs, sources, order, 5)
    found = {
        int(sources.label[s]): [int(edge) for edge in box]
        for s, *box in zip(traces.source, traces.xmin, traces.xmax, traces.ymin, traces.ymax, strict=True)
    }
    assert len(found) > 5
    assert found == {label: expected[label] for label in found}
    seen = {
        label for label, (x0, x1, y0, y1) in expected.items() if x1 > 0 and y1 > 0 and x0 < SIZE - 1 and y0 < SIZE - 1
    }
    assert seen <= set(found)


@GRISMS
def test_wavelengths_of_cutouts_are_those_of_the_trace(grism):
    wcs, sources = field(grism)
    traces = clip_traces(locate_traces(wcs, sources, {1: RANGE}, (SIZE, SIZE), half_height=5), (SIZE, SIZE))
    to_grism = wcs.get_transform("detector", "grism_detector")
    for k, wavelength in enumerate(cutout_wavelengths(traces)):
        assert wavelength.dtype == np.float32
        ny, nx = wavelength.shape
        assert (ny, nx) == (traces.ymax[k] - traces.ymin[k] + 1, traces.xmax[k] - traces.xmin[k] + 1)
        x, y, *_ = to_grism(traces.x0[k], traces.y0[k], float(wavelength[-1, -1]), 1)
        last = traces.xmax[k] if traces.axis == 1 else traces.ymax[k]
        assert float(x if traces.axis == 1 else y) == pytest.approx(last, abs=1e-3)
        across = 0 if traces.axis == 1 else 1
        assert (np.ptp(wavelength, axis=across) == 0).all()


def test_clipped_boxes_lie_on_the_detector():
    wcs, sources = field("GR150R")
    traces = clip_traces(locate_traces(wcs, sources, {1: RANGE, 2: RANGE}, (SIZE, SIZE)), (SIZE, SIZE))
    assert (traces.xmin >= 0).all()
    assert (traces.ymin >= 0).all()
    assert (traces.xmax < SIZE).all()
    assert (traces.ymax < SIZE).all()
    assert (traces.ymax > traces.ymin).all()


def test_only_the_brightest_with_a_spectrum_on_the_detector_are_taken():
    wcs, sources = field("GR150R")
    everything = locate_traces(wcs, sources, {1: RANGE}, (SIZE, SIZE))
    few = locate_traces(wcs, sources, {1: RANGE}, (SIZE, SIZE), most=4)
    assert few.source.tolist() == everything.source[:4].tolist()


def test_sources_fainter_than_the_limit_are_left_out_but_not_those_of_unknown_magnitude():
    wcs = wcs_of("GR150R", SIZE)
    places = [Place(k, 200 + 20 * k, 400, abmag=mag) for k, mag in enumerate([20.0, 23.0, 22.0, np.nan])]
    sources = sources_of(catalog_of(places, wcs))
    traces = locate_traces(wcs, sources, {1: RANGE}, (SIZE, SIZE), faintest=22.0)
    assert sources.label[traces.source].tolist() == [0, 3]


def test_a_catalog_without_sources_has_no_traces():
    wcs, sources = field("GR150R")
    traces = locate_traces(wcs, sources.select(np.zeros(len(sources), bool)), {1: RANGE}, (SIZE, SIZE))
    assert len(traces) == 0
    assert cutout_wavelengths(clip_traces(traces, (SIZE, SIZE))) == []


def test_ranges_come_from_the_reference():
    assert wavelength_ranges(WAVELENGTHRANGE, "F150W") == {1: (1.29, 1.71)}
    assert wavelength_ranges(WAVELENGTHRANGE, "F200W", [2, 1]) == {2: RANGE, 1: RANGE}


def test_a_filter_or_order_that_the_reference_lacks_is_named():
    with pytest.raises(ValueError, match=r"no orders for the filter F999W, only for F150W, F200W"):
        wavelength_ranges(WAVELENGTHRANGE, "F999W")
    with pytest.raises(ValueError, match=r"no order 2 for the filter F150W, only \[1\]"):
        wavelength_ranges(WAVELENGTHRANGE, "F150W", [2])
