"""1/f noise of the readout, removed from the differences of groups as a median over each line of pixels read together.

What a pixel gets from the sky must not be taken for noise: bright pixels of a draft rate image are masked, and of each
difference the background is taken out first and put back after. Source: JWST pipeline documentation,
"clean_flicker_noise", methods "median" and "model".
"""

import warnings

import numpy as np
from astropy.stats import SigmaClip, sigma_clipped_stats
from astropy.utils.exceptions import AstropyUserWarning

from calibration import dq

_UNUSABLE = dq.GROUP["DO_NOT_USE"] | dq.GROUP["JUMP_DET"]

#: Clipping of the background, and of the dark side of the mask [sigma].
CLIP = 3.0
#: Width of an amplifier of a full frame [pixel].
AMPLIFIER_WIDTH = 512


def background_pixels(rate: np.ndarray, n_sigma: float) -> np.ndarray:
    """Which pixels of a draft rate image show background only, (ny, nx) bool.

    Parameters
    ----------
    rate : (ny, nx) float32
        Draft count rates; NaN or 0 where there is none.
    n_sigma : float
        How far above the background a pixel may be [sigma]; 0 for no limit.
    """
    mask = np.isfinite(rate) & (rate != 0)
    return _clip(rate, mask, CLIP, n_sigma, symmetric=False) if n_sigma > 0 else mask


def clean_flicker_noise(
    data: np.ndarray,
    groupdq: np.ndarray,
    mask: np.ndarray,
    fast_axis: int,
    background_method: str = "median",
    box_size: tuple[int, int] | None = None,
    n_sigma: float = 2.0,
    by_amplifier: bool = False,
    flat: np.ndarray | None = None,
) -> np.ndarray:
    """Ramps without 1/f noise.

    Parameters
    ----------
    data : (nints, ngroups, ny, nx) float32
        Ramp signal [DN].
    groupdq : (nints, ngroups, ny, nx) uint8
    mask : (ny, nx) or (nints, ny, nx) bool
        True where a pixel shows background only.
    fast_axis : int
        0 when pixels that are read one after the other lie along y, 1 when along x.
    background_method : str
        "median", one level; "model", a smooth map; "none".
    box_size : (int, int), optional
        Box of the smooth map (ny, nx) [pixel]; default: the largest up to 32 that divides the image.
    n_sigma : float
        Clipping of what is left after the background [sigma]; 0 for none.
    by_amplifier : bool
        Whether each amplifier of a full frame has a noise of its own.
    flat : (ny, nx) float32, optional
        Divided out before and multiplied after; no zero, no NaN.

    Returns
    -------
    (nints, ngroups, ny, nx) float32
    """
    if mask.shape[-2:] != data.shape[-2:] or (mask.ndim == 3 and len(mask) != len(data)):
        raise ValueError(f"mask must have the shape {data.shape[-2:]}, or that per integration, but has {mask.shape}")
    cleaned = data.copy()
    for i in range(data.shape[0]):
        for g in range(data.shape[1] - 1):
            usable = (mask[i] if mask.ndim == 3 else mask) & ((groupdq[i, g + 1] & _UNUSABLE) == 0)
            difference = data[i, g + 1] - data[i, g]
            noise = _noise(difference, usable, fast_axis, background_method, box_size, n_sigma, by_amplifier, flat)
            cleaned[i, g + 1] = cleaned[i, g] + (difference - noise)
    return cleaned


def _noise(
    difference: np.ndarray,
    usable: np.ndarray,
    fast_axis: int,
    background_method: str,
    box_size: tuple[int, int] | None,
    n_sigma: float,
    by_amplifier: bool,
    flat: np.ndarray | None,
) -> np.ndarray:
    image = difference if flat is None else difference / flat
    finite = np.isfinite(image)
    image, usable = np.where(finite, image, np.float32(0)), usable & finite
    if not usable.any():
        return np.zeros_like(difference)
    if background_method != "none":
        usable = _clip(image, usable, CLIP, CLIP, symmetric=True)
        image = image - _background(image, usable, background_method, box_size)
        if n_sigma > 0:
            usable = _clip(image, usable, n_sigma, n_sigma, symmetric=True)
    noise = np.zeros_like(image)
    length = image.shape[fast_axis]
    width = AMPLIFIER_WIDTH if by_amplifier and length == 4 * AMPLIFIER_WIDTH else length
    for start in range(0, length, width):
        part = np.s_[start : start + width, :] if fast_axis == 0 else np.s_[:, start : start + width]
        lines = np.where(usable[part], image[part], np.nan)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
            noise[part] = np.nan_to_num(np.nanmedian(lines, axis=fast_axis, keepdims=True))
    return noise if flat is None else noise * flat


def _clip(image: np.ndarray, mask: np.ndarray, below: float, above: float, symmetric: bool) -> np.ndarray:
    """Where ``mask`` holds and the image is within so many sigma of its level.

    ``symmetric``: sources add light, so that only the dark half of the distribution tells level and scatter.
    """
    if not mask.any():
        return mask
    values = image[mask].astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        _, level, sigma = sigma_clipped_stats(values, sigma=CLIP)
        if symmetric:
            dark = values[values <= level] - level
            _, level, sigma = sigma_clipped_stats(np.concatenate([dark, -dark]) + level, sigma=CLIP)
    return mask & (image >= level - below * sigma) & (image <= level + above * sigma)


def _background(
    image: np.ndarray, mask: np.ndarray, method: str, box_size: tuple[int, int] | None
) -> float | np.ndarray:
    if method == "median":
        return float(np.median(image[mask]))
    if method != "model":
        raise ValueError(f"the background must be median, model or none, but is {method!r}")
    from photutils.background import Background2D, MedianBackground

    box = box_size or [max(n for n in range(1, 33) if size % n == 0) for size in image.shape]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)
        background = Background2D(
            image,
            box,
            filter_size=(5, 5),
            mask=~mask,
            sigma_clip=SigmaClip(sigma=CLIP, maxiters=5),
            bkg_estimator=MedianBackground(),
        )
    return background.background.astype(np.float32)
