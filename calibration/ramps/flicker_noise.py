"""1/f noise of the readout, taken out of the differences of groups (or out of images of count rates).

    image / flat - background -> noise, fitted to the pixels that show background only -> image - noise

Pixels that are read one after the other share the slow part of the noise. Two models of it: "median", the median of each
line of pixels across the slow axis, and "fft", slow Fourier components along the lines (``fourier_noise``). What a pixel
gets from the sky must not be taken for noise: bright pixels of a draft rate image are masked, of each difference the
background is taken out first and put back after, and what still stands out is masked then.

Every clipping of an image is read off one sorted array with running sums of its values and their squares: a pass of
clipping is then two searches, and the median and the scatter of what is left cost nothing.

Source: JWST pipeline documentation, "clean_flicker_noise".
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from calibration import dq
from calibration.robust import PASSES, Ordered, clip
from calibration.strips import map_rows, rows_of, zeros

_UNUSABLE = dq.GROUP["DO_NOT_USE"] | dq.GROUP["JUMP_DET"]

#: Clipping of the background, and of the dark side of the mask [sigma].
CLIP = 3.0
#: Amplifiers of a full frame of the near infrared.
FULL_SIZE, AMPLIFIERS = 2048, 4
#: Bins of the histogram of values, and half its width [sigma].
BINS, HALF_WIDTH = 2000, 4.0
#: Largest box of the smooth background [pixel].
BOX = 32


@dataclass(frozen=True)
class Model:
    """How the noise of one image is fitted.

    Attributes
    ----------
    method : str
        "median" or "fft".
    fast_axis : int
        0 when pixels that are read one after the other lie along y, 1 when along x.
    background : str
        "median", one level; "smooth", a map; "none".
    box_size : (int, int), optional
        Box of the smooth map (ny, nx) [pixel]; default: the largest up to 32 that divides the image.
    n_sigma : float
        Clipping of what is left after the background [sigma]; 0 for none.
    by_amplifier : bool
        Whether each amplifier of a full frame has a noise of its own ("median" only).
    slow : (float, float)
        Frequencies [Hz] up to which noise of a subarray is fitted, and from which on it is not ("fft" only).
    flipped : bool
        Whether lines are read from the far end of the slow axis ("fft" only): NRS2.
    """

    method: str = "median"
    fast_axis: int = 1
    background: str = "median"
    box_size: tuple[int, int] | None = None
    n_sigma: float = 2.0
    by_amplifier: bool = False
    slow: tuple[float, float] = (1061.0, 1211.0)
    flipped: bool = False


def background_pixels(
    rate: np.ndarray, n_sigma: float, by_histogram: bool = False, excluded: np.ndarray | None = None
) -> np.ndarray:
    """Which pixels of a draft rate image show background only, (ny, nx) bool.

    Parameters
    ----------
    rate : (ny, nx) float32
        Draft count rates; NaN or 0 where there is none.
    n_sigma : float
        How far above the background a pixel may be [sigma]; 0 for no limit.
    by_histogram : bool
        Whether level and scatter come from a Gaussian fitted to the histogram of the values.
    excluded : (ny, nx) bool, optional
        Pixels of slits, traces and the like.
    """
    mask = np.isfinite(rate) & (rate != 0)
    if excluded is not None:
        mask &= ~excluded
    if n_sigma > 0 and mask.any():
        level, sigma = _level(Ordered.of(rate[mask]), by_histogram)
        mask &= (rate >= level - CLIP * sigma) & (rate <= level + n_sigma * sigma)
    return mask


@dataclass(frozen=True)
class Scene:
    """What all integrations see; each differs from it by noise and by a factor.

    Attributes
    ----------
    median : (ngroups, ny, nx), or (1, ny, nx) of images, float32
    factor : (nints,) float32
    """

    median: np.ndarray
    factor: np.ndarray

    def of(self, integration: int) -> np.ndarray:
        return self.factor[integration] * self.median


def clean_ramps(
    data: np.ndarray,
    groupdq: np.ndarray,
    mask: np.ndarray,
    model: Model,
    flat: np.ndarray | None = None,
    scene: Scene | None = None,
    backgrounds: np.ndarray | None = None,
) -> np.ndarray:
    """Ramps without 1/f noise, integration by integration.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    groupdq : (nints, ngroups, ny, nx) uint8
    mask : (ny, nx) or (nints, ny, nx) bool
        True where a pixel shows background only.
    model : Model
    flat : (ny, nx) float32, optional
        Divided out before and multiplied after; no zero, no NaN.
    scene : Scene, optional
        Then groups are cleaned one by one, not their differences, and the first one too.
    backgrounds : (nints, ngroups, ny, nx) float32, optional
        Is filled with the background of each difference.

    Returns
    -------
    (nints, ngroups, ny, nx) float32
        A group without a usable pixel is left as it is.
    """
    _require_mask(mask, data.shape[0], data.shape[-2:])
    cleaned = zeros(data, data.shape, np.float32)
    for i in range(data.shape[0]):
        ramp, flags, seen = data[i], groupdq[i], None if scene is None else scene.of(i)
        one, levels = ramp.copy(), np.zeros_like(ramp) if backgrounds is not None else None
        for g in range(0 if seen is not None else 1, len(ramp)):
            usable = mask[i] if mask.ndim == 3 else mask
            if seen is None:
                before, image = one[g - 1], ramp[g] - ramp[g - 1]
                usable = usable & ((flags[g] & _UNUSABLE) == 0)
            else:
                before, image = seen[g], ramp[g] - seen[g]
            found = find_noise(image, usable, model, flat)
            if found is not None:
                one[g] = before + (image - found[0])
                if levels is not None:
                    levels[g] = found[1] if seen is None else seen[g]
        cleaned[i] = one
        if backgrounds is not None:
            backgrounds[i] = levels
    return cleaned


def clean_images(
    data: np.ndarray,
    mask: np.ndarray,
    model: Model,
    flat: np.ndarray | None = None,
    scene: Scene | None = None,
    backgrounds: np.ndarray | None = None,
) -> np.ndarray:
    """Images (ny, nx), or (nints, ny, nx), float32, without 1/f noise; see ``clean_ramps``."""
    whole = data.reshape(-1, *data.shape[-2:])
    _require_mask(mask, len(whole), data.shape[-2:])
    cleaned = whole.copy()
    for i, image in enumerate(whole):
        difference = image if scene is None else image - scene.of(i)[0]
        found = find_noise(difference, mask[i] if mask.ndim == 3 else mask, model, flat)
        if found is not None:
            cleaned[i] = image - found[0]
            if backgrounds is not None:
                backgrounds.reshape(whole.shape)[i] = found[1] if scene is None else scene.of(i)[0]
    return cleaned.reshape(data.shape)


def find_noise(
    image: np.ndarray, mask: np.ndarray, model: Model, flat: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | np.float32] | None:
    """The noise (ny, nx) float32 of an image, and the background that was told from it.

    None where no pixel of ``mask`` (not changed) is usable.
    """
    flattened = image if flat is None else image / flat
    usable = mask & np.isfinite(flattened)
    if not usable.any():
        return None
    background: np.ndarray | np.float32 = np.float32(0)
    if model.background != "none":
        part = _background(Ordered.of(flattened[usable]), CLIP, CLIP)
        if model.background == "median":
            # The values are in order, and a constant does not change that: the second clipping needs no new ones.
            background = np.float32(part.median)
            if model.n_sigma > 0:
                part = _background(part, model.n_sigma, model.n_sigma)
            usable &= (flattened >= part.first) & (flattened <= part.last)
        else:
            usable &= (flattened >= part.first) & (flattened <= part.last)
            background = smooth_background(flattened, usable, model.box_size)
            if model.n_sigma > 0:
                rest = flattened - background
                part = _background(Ordered.of(rest[usable]), model.n_sigma, model.n_sigma)
                usable &= (rest >= part.first) & (rest <= part.last)
    rest = np.where(np.isfinite(flattened), flattened - background, np.float32(0))
    if model.method == "median":
        noise = _medians(rest, usable, model)
    else:
        from calibration.ramps.fourier_noise import fit_full_frame, fit_subarray

        # In the order of the readout: lines along the fast axis, the first one first.
        turned = np.s_[::-1] if model.flipped else np.s_[:]
        if model.fast_axis == 0:
            lines, good = rest.T[turned], usable.T[turned]
        else:
            lines, good = rest[turned], usable[turned]
        fitted = (
            fit_full_frame(lines, good)
            if lines.shape == (FULL_SIZE, FULL_SIZE)
            else fit_subarray(lines, good, model.slow)
        )
        noise = fitted[turned].T if model.fast_axis == 0 else fitted[turned]
    return noise if flat is None else noise * flat, background


def smooth_background(
    image: np.ndarray, mask: np.ndarray, box_size: tuple[int, int] | None = None
) -> np.ndarray | np.float32:
    """A smooth map (ny, nx) float32 of the background that the pixels of ``mask`` show; their median where it fails."""
    from astropy.stats import SigmaClip
    from astropy.utils.exceptions import AstropyUserWarning
    from photutils.background import Background2D, MedianBackground

    box = box_size or tuple(max(n for n in range(1, BOX + 1) if size % n == 0) for size in image.shape)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyUserWarning)
            background = Background2D(
                np.where(np.isfinite(image), image, np.float32(0)),
                box,
                filter_size=(5, 5),
                mask=~mask,
                sigma_clip=SigmaClip(sigma=CLIP, maxiters=PASSES),
                bkg_estimator=MedianBackground(),
            )
    except ValueError:  # too few boxes have enough pixels
        return np.float32(np.median(image[mask]))
    return background.background.astype(np.float32)


def fill_flat(flat: np.ndarray) -> np.ndarray:
    """A flat (ny, nx) float32 without zeros and NaN: there it has the level of its surroundings."""
    bad = ~np.isfinite(flat) | (flat == 0)
    if not bad.any():
        return flat
    if bad.all():
        raise ValueError("the flat has no value at all; choose another reference file")
    filled, usable = np.where(bad, np.float32(0), flat), ~bad
    part = _background(Ordered.of(flat[usable]), CLIP, CLIP)
    usable &= (flat >= part.first) & (flat <= part.last)
    return np.where(bad, smooth_background(filled, usable), flat)


def light_of(rate: np.ndarray, source: np.ndarray | None) -> float:
    """How much light an image of count rates (ny, nx) has: of the pixels of a source that varies, else in the median."""
    if source is not None:
        return float(np.nansum(rate[source], dtype=np.float64))
    return float(np.nanmedian(rate)) if np.isfinite(rate).any() else np.nan


def scene_of_integrations(data: np.ndarray, light: np.ndarray) -> Scene:
    """What all integrations see: their median, and a factor of each.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) or (nints, ny, nx) float32
        Two integrations or more.
    light : (nints,) float
        How bright each is (``light_of``).
    """
    if data.shape[0] < 2:
        raise ValueError("the median of integrations needs two or more, but there is one; use another background")
    usable = np.isfinite(light)
    middle = np.median(light[usable]) if usable.any() else 0.0
    if middle == 0:
        raise ValueError("the integrations have no light to compare; use another background")
    factor = np.where(usable, light, middle) / middle
    median = np.empty((data.shape[1] if data.ndim == 4 else 1, *data.shape[-2:]), np.float32)

    def work(rows: slice) -> None:
        part, first = rows_of(data, rows)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
            for g, plane in enumerate(median):
                strip = part[:, g] if part.ndim == 4 else part
                plane[rows] = np.nanmedian(strip[:, rows.start - first : rows.stop - first], axis=0)

    map_rows(work, data)
    return Scene(median, factor.astype(np.float32))


# ---- level and scatter


def _background(values: Ordered, below: float, above: float) -> Ordered:
    """Those within so many sigma of the level; sources add light, so that only the dark side tells the scatter."""
    level = clip(values).median
    sigma = _dark_sigma(values, level)
    return values.within(level - below * sigma, level + above * sigma)


def _dark_sigma(values: Ordered, level: float) -> float:
    end = min(max(values.end(level), values.low + 1), values.high)
    dark = replace(values, high=end)
    for _ in range(PASSES):
        low = values.begin(level - CLIP * dark.sigma_about(level))
        if low <= dark.low or low >= dark.high:
            break
        dark = replace(dark, low=low)
    return dark.sigma_about(level)


def _level(values: Ordered, by_histogram: bool) -> tuple[float, float]:
    """Level and scatter of the background."""
    kept = clip(values)
    level, sigma = kept.median, kept.sigma
    if not by_histogram or not sigma > 0:
        return level, sigma
    from scipy.optimize import curve_fit

    level = kept.mean
    edges = np.linspace(level - HALF_WIDTH * sigma, level + HALF_WIDTH * sigma, BINS + 1)
    ends = np.array([*(values.begin(edge) for edge in edges[:-1]), values.end(edges[-1])])
    counts, middles = np.diff(ends), 0.5 * (edges[1:] + edges[:-1])
    peak = int(np.argmax(counts))
    try:
        (_, level, sigma), _ = curve_fit(
            _gaussian,
            middles,
            counts,
            (counts[peak], middles[peak], sigma),
            bounds=((0, middles[0], 0), (np.inf, middles[-1], middles[-1] - middles[0])),
        )
    except RuntimeError:  # no Gaussian fits: the clipped values have to do
        return kept.mean, kept.sigma
    return float(level), float(sigma)


def _gaussian(value: np.ndarray, height: float, level: float, sigma: float) -> np.ndarray:
    return height * np.exp(-0.5 * ((value - level) / sigma) ** 2)


def _medians(image: np.ndarray, mask: np.ndarray, model: Model) -> np.ndarray:
    """The median of each line across the fast axis, or of each amplifier's part of it; 0 where no pixel is usable."""
    lines = np.where(mask, image, np.float32(np.inf))
    if model.fast_axis == 0:
        lines = np.ascontiguousarray(lines.T)
    parts = AMPLIFIERS if model.by_amplifier and lines.shape[1] == FULL_SIZE else 1
    lines = np.sort(lines.reshape(lines.shape[0], parts, -1), axis=-1)
    counts = np.count_nonzero(lines < np.inf, axis=-1)
    upper = np.take_along_axis(lines, np.minimum(counts // 2, lines.shape[-1] - 1)[..., None], -1)
    lower = np.take_along_axis(lines, np.maximum((counts - 1) // 2, 0)[..., None], -1)
    with np.errstate(invalid="ignore"):
        medians = np.where(counts[..., None] > 0, np.float32(0.5) * (upper + lower), np.float32(0))
    noise = np.broadcast_to(medians, lines.shape).reshape(lines.shape[0], -1)
    return noise.T if model.fast_axis == 0 else noise


def _require_mask(mask: np.ndarray, nints: int, shape: tuple[int, ...]) -> None:
    if mask.shape[-2:] != shape or (mask.ndim == 3 and len(mask) != nints):
        raise ValueError(
            f"mask must have the shape {shape}, or that per integration ({nints}), but has {mask.shape}; "
            "cut it to the subarray of the exposure"
        )


# ---- parameters that suit an image


@dataclass(frozen=True)
class Limits:
    """From which numbers on an image counts as crowded, stepped and tilted (JWST documentation, "autoparam")."""

    masked: float
    step: float
    tilt_if_even: float
    tilt_if_stepped: float
    tilt_ratio: float
    scatter: float


LIMITS: Mapping[str, Limits] = {
    "NIRISS": Limits(0.07, 0.07, 1e-5, 1e-4, 5.0, 0.02),
    "NIRCAM": Limits(0.10, 0.07, 1e-5, 1e-5, 3.0, 0.02),
}


def choose_parameters(rate: np.ndarray, slow_axis: int, instrument: str, flat: np.ndarray | None) -> dict[str, Any]:
    """Background method and whether amplifiers are fitted one by one, as suits an image of NIRISS or NIRCam.

    Parameters
    ----------
    rate : (ny, nx) float32
        Draft count rates [DN/s].
    slow_axis : int
        The axis along which lines follow each other, 1 for x and 2 for y.
    instrument : str
        A key of ``LIMITS``.
    flat : (ny, nx) float32, optional
        No zero, no NaN.

    Returns
    -------
    dict
        ``background`` ("median" or "smooth") and ``by_amplifier``.
    """
    image = rate if flat is None else rate / flat
    mask = np.isfinite(image)
    if not mask.any():
        return {"background": "median", "by_amplifier": False}
    values = Ordered.of(image[mask])
    kept = clip(values)
    dark = _background(values.within(kept.median - CLIP * kept.sigma, kept.median + 2 * kept.sigma), CLIP, CLIP)
    level = dark.median
    dark = _background(dark, CLIP, 2.0)
    mask &= (image >= dark.first) & (image <= dark.last)
    cleaned = image - _medians(image - np.float32(level), mask, Model(fast_axis=slow_axis - 1))
    dark = _background(Ordered.of(cleaned[mask]), CLIP, CLIP)
    mask &= (cleaned >= dark.first) & (cleaned <= dark.last)
    cleaned = np.where(mask, cleaned, smooth_background(cleaned, mask))

    along_x, along_y = _middle(cleaned).mean(axis=0), _middle(cleaned.T).mean(axis=0)
    (tilt_x, scatter), (tilt_y, _) = _line(along_x), _line(along_y)
    if instrument == "NIRISS":
        # Its amplifier at the top differs from the others more than they do among themselves.
        rows = len(cleaned)
        scatter = _line(cleaned[round(rows * 10 / 12) : round(rows * 11 / 12)].mean(axis=0))[1]
    step = _largest_step(along_y if instrument == "NIRISS" else along_x)
    tilt = max(abs(tilt_x), abs(tilt_y))
    ratio = tilt / smaller if (smaller := min(abs(tilt_x), abs(tilt_y))) > 0 else np.inf
    limits = LIMITS[instrument]
    crowded, stepped = np.mean(~mask) >= limits.masked, step >= limits.step
    if stepped and not crowded:
        return {"background": "median", "by_amplifier": True}
    if crowded:
        smooth = tilt >= (limits.tilt_if_stepped if stepped else limits.tilt_if_even)
        return {"background": "smooth" if smooth else "median", "by_amplifier": False}
    smooth = tilt >= limits.tilt_if_stepped or (tilt >= limits.tilt_if_even and ratio < limits.tilt_ratio)
    return {
        "background": "smooth" if smooth else "median",
        "by_amplifier": bool(step > 0 and scatter >= limits.scatter),
    }


def _middle(image: np.ndarray) -> np.ndarray:
    """The middle quarter of the rows."""
    return image[round(len(image) * 3 / 8) : round(len(image) * 5 / 8)]


def _line(profile: np.ndarray) -> tuple[float, float]:
    """Slope of a profile [per pixel], and the scatter about the line."""
    good = np.isfinite(profile)
    x = np.arange(profile.size)[good]
    slope, start = np.polyfit(x, profile[good], 1)
    rest = (profile[good] - slope * x - start).astype(np.float64)
    return float(slope), clip(Ordered.of(rest), 10.0).sigma


def _largest_step(profile: np.ndarray) -> float:
    """Largest step of the level from an amplifier to the next; 0 for a subarray."""
    if profile.size != FULL_SIZE:
        return 0.0
    levels = [clip(Ordered.of(part[np.isfinite(part)])).mean for part in profile.reshape(AMPLIFIERS, -1)]
    return float(np.max(np.abs(np.diff(levels))))
