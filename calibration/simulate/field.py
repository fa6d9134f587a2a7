"""Where a point of the sky falls on the detector.

Two short maps and their inverses: detector pixel to telescope angles (V2, V3) by a cubic polynomial, and (V2, V3) to the
sky by one rotation. The code is written with unit vectors and Newton steps, on purpose unlike the WCS of the pipelines, so
that one tests the other.

Frames: JWST documentation, "Coordinate systems": V3I_YANG is the angle from +V3 to the ideal y axis, VPARITY the sense of
the ideal x axis, ROLL_REF the position angle (north over east) of +V3 at the reference point.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

ARCSEC = np.pi / 180.0 / 3600.0  # [rad]


@dataclass(frozen=True)
class Distortion:
    """Detector pixels to (V2, V3).

    Parameters
    ----------
    x_ref, y_ref
        Reference pixel, zero-based, of the full frame.
    x_coeffs, y_coeffs
        Arrays ``c[i, j]`` of shape (4, 4): ideal x and y are the sums of ``c[i, j] dx**i dy**j`` [arcsec].
    v2_ref, v3_ref
        Telescope angles of the reference pixel [arcsec].
    v3i_yang
        Angle from +V3 to the ideal y axis [deg].
    vparity
        +1 or -1, the sense of the ideal x axis.
    """

    x_ref: float
    y_ref: float
    x_coeffs: np.ndarray
    y_coeffs: np.ndarray
    v2_ref: float
    v3_ref: float
    v3i_yang: float
    vparity: int

    def ideal(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Ideal coordinates [arcsec] of full-frame pixels."""
        dx, dy = np.asarray(x, float) - self.x_ref, np.asarray(y, float) - self.y_ref
        return (
            np.polynomial.polynomial.polyval2d(dx, dy, self.x_coeffs),
            np.polynomial.polynomial.polyval2d(dx, dy, self.y_coeffs),
        )

    def jacobian(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """d(ideal x)/dx, d(ideal x)/dy, d(ideal y)/dx, d(ideal y)/dy [arcsec/pixel]."""
        dx, dy = np.asarray(x, float) - self.x_ref, np.asarray(y, float) - self.y_ref
        derivatives = []
        for coeffs in (self.x_coeffs, self.y_coeffs):
            for axis in (0, 1):
                derivative = np.polynomial.polynomial.polyder(coeffs, axis=axis)
                derivatives.append(np.polynomial.polynomial.polyval2d(dx, dy, derivative))
        return derivatives[0], derivatives[1], derivatives[2], derivatives[3]

    def pixel_area(self, x: ArrayLike, y: ArrayLike) -> np.ndarray:
        """Area of pixels [arcsec^2]."""
        xx, xy, yx, yy = self.jacobian(x, y)
        return np.abs(xx * yy - xy * yx)

    def pixel_area_map(self, shape: tuple[int, int], origin: tuple[int, int]) -> np.ndarray:
        """Areas [arcsec^2] of all pixels of an array (ny, nx) that starts at full-frame column and row ``origin``."""
        dx, dy = np.arange(shape[1]) + origin[0] - self.x_ref, np.arange(shape[0]) + origin[1] - self.y_ref
        # On a grid a polynomial is a product of small matrices.
        xx, xy, yx, yy = (
            np.polynomial.polynomial.polygrid2d(dy, dx, np.polynomial.polynomial.polyder(coeffs, axis=axis).T)
            for coeffs in (self.x_coeffs, self.y_coeffs)
            for axis in (0, 1)
        )
        return np.abs(xx * yy - xy * yx)

    def to_v2v3(self, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """(V2, V3) [arcsec] of full-frame pixels."""
        xi, yi = self.ideal(x, y)
        sin, cos = np.sin(np.deg2rad(self.v3i_yang)), np.cos(np.deg2rad(self.v3i_yang))
        return (
            self.v2_ref + self.vparity * xi * cos + yi * sin,
            self.v3_ref - self.vparity * xi * sin + yi * cos,
        )

    def to_pixel(self, v2: ArrayLike, v3: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Full-frame pixels of (V2, V3) [arcsec], by Newton's method to 1e-9 pixel."""
        sin, cos = np.sin(np.deg2rad(self.v3i_yang)), np.cos(np.deg2rad(self.v3i_yang))
        d2, d3 = np.asarray(v2, float) - self.v2_ref, np.asarray(v3, float) - self.v3_ref
        xi, yi = self.vparity * (d2 * cos - d3 * sin), d2 * sin + d3 * cos
        x = self.x_ref + xi / self.x_coeffs[1, 0]
        y = self.y_ref + yi / self.y_coeffs[0, 1]
        for _ in range(4):
            xx, xy, yx, yy = self.jacobian(x, y)
            at_x, at_y = self.ideal(x, y)
            rx, ry, det = xi - at_x, yi - at_y, xx * yy - xy * yx
            x, y = x + (yy * rx - xy * ry) / det, y + (xx * ry - yx * rx) / det
        return x, y


@dataclass(frozen=True)
class Pointing:
    """Where the reference point of the aperture looks: position [deg], roll [deg], velocity aberration scale."""

    ra_ref: float
    dec_ref: float
    roll_ref: float
    va_scale: float


def pixel_to_sky(distortion: Distortion, pointing: Pointing, x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, ...]:
    """Right ascension and declination [deg] of full-frame pixels (zero-based)."""
    return angles_to_sky(distortion, pointing, *distortion.to_v2v3(x, y))


def angles_to_sky(distortion: Distortion, pointing: Pointing, v2: ArrayLike, v3: ArrayLike) -> tuple[np.ndarray, ...]:
    """Right ascension and declination [deg] of telescope angles (V2, V3) [arcsec]."""
    v2, v3 = np.asarray(v2, float), np.asarray(v3, float)
    v2 = distortion.v2_ref + (v2 - distortion.v2_ref) * pointing.va_scale
    v3 = distortion.v3_ref + (v3 - distortion.v3_ref) * pointing.va_scale
    vector = _unit_vector(v2 * ARCSEC, v3 * ARCSEC)
    turned = np.einsum("ij,...j->...i", _sky_axes(pointing).T @ _telescope_axes(distortion), vector)
    ra = np.rad2deg(np.arctan2(turned[..., 1], turned[..., 0])) % 360.0
    return ra, np.rad2deg(np.arcsin(np.clip(turned[..., 2], -1, 1)))


def sky_to_pixel(
    distortion: Distortion, pointing: Pointing, ra: ArrayLike, dec: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Full-frame pixels (zero-based) of right ascension and declination [deg]."""
    vector = _unit_vector(np.deg2rad(ra), np.deg2rad(dec))
    turned = np.einsum("ij,...j->...i", _telescope_axes(distortion).T @ _sky_axes(pointing), vector)
    v2 = np.arctan2(turned[..., 1], turned[..., 0]) / ARCSEC
    v3 = np.arcsin(np.clip(turned[..., 2], -1, 1)) / ARCSEC
    v2 = distortion.v2_ref + (v2 - distortion.v2_ref) / pointing.va_scale
    v3 = distortion.v3_ref + (v3 - distortion.v3_ref) / pointing.va_scale
    return distortion.to_pixel(v2, v3)


def step_on_sky(distortion: Distortion, pointing: Pointing, v2: float, v3: float) -> Pointing:
    """The pointing after a small step [arcsec] that moves the reference point along (V2, V3) on the sky."""
    roll, dec = np.deg2rad(pointing.roll_ref), np.deg2rad(pointing.dec_ref)
    east, north = v2 * np.cos(roll) + v3 * np.sin(roll), -v2 * np.sin(roll) + v3 * np.cos(roll)
    dra = east / np.cos(dec) / 3600.0
    # The meridians converge: keeping the position angle of the field fixed turns ROLL_REF with the right ascension.
    return Pointing(
        (pointing.ra_ref + dra) % 360.0,
        pointing.dec_ref + north / 3600.0,
        pointing.roll_ref + dra * np.sin(dec),
        pointing.va_scale,
    )


def pointing_of(distortion: Distortion, pointing: Pointing, other: Distortion) -> Pointing:
    """Where ``other`` (another detector, or another instrument) looks while ``distortion`` has this ``pointing``."""
    step = 0.01  # [arcsec]
    v2, v3 = np.full(2, other.v2_ref), other.v3_ref + np.array([0.0, step])
    ra, dec = np.deg2rad(angles_to_sky(distortion, pointing, v2, v3))
    east = np.sin(ra[1] - ra[0]) * np.cos(dec[1])
    north = np.cos(dec[0]) * np.sin(dec[1]) - np.sin(dec[0]) * np.cos(dec[1]) * np.cos(ra[1] - ra[0])
    roll = np.rad2deg(np.arctan2(east, north)) % 360
    return Pointing(float(np.rad2deg(ra[0])), float(np.rad2deg(dec[0])), float(roll), pointing.va_scale)


def _unit_vector(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    return np.stack(
        (np.cos(longitude) * np.cos(latitude), np.sin(longitude) * np.cos(latitude), np.sin(latitude)), axis=-1
    )


def _local_axes(longitude: float, latitude: float) -> np.ndarray:
    """Rows: the direction, the direction of growing longitude, the direction of growing latitude."""
    sl, cl, sb, cb = np.sin(longitude), np.cos(longitude), np.sin(latitude), np.cos(latitude)
    return np.array([[cl * cb, sl * cb, sb], [-sl, cl, 0.0], [-cl * sb, -sl * sb, cb]])


def _telescope_axes(distortion: Distortion) -> np.ndarray:
    return _local_axes(distortion.v2_ref * ARCSEC, distortion.v3_ref * ARCSEC)


def _sky_axes(pointing: Pointing) -> np.ndarray:
    """Rows: the reference point, +V2 and +V3 there, in equatorial coordinates."""
    axes = _local_axes(np.deg2rad(pointing.ra_ref), np.deg2rad(pointing.dec_ref))
    sin, cos = np.sin(np.deg2rad(pointing.roll_ref)), np.cos(np.deg2rad(pointing.roll_ref))
    return np.stack((axes[0], cos * axes[1] - sin * axes[2], sin * axes[1] + cos * axes[2]))
