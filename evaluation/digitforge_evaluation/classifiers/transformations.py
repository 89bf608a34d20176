"""Classical augmentation, and the cheap generators (noise and SMOTE): new images from real ones by plain arithmetic.

Everything takes and returns (n, H, W, C) uint8, 0 … 255. Nothing mirrors an image: a mirrored 2 is not a digit.

References: N. V. Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 16 (2002); P. Simard,
D. Steinkraus and J. Platt, "Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis",
ICDAR (2003), for elastic distortions.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

# These ranges keep a digit recognizable. They were chosen on a held-out part of MNIST's training set.
ROTATION_DEGREES: Final = 15.0  #: largest rotation
SCALE: Final = 0.15  #: largest natural logarithm of the scale: 1/1.16 to 1.16
SHEAR: Final = 0.15  #: largest shear
SHIFT: Final = 2.0 / 28.0  #: largest shift, relative to the side of the image
ELASTIC: Final = 0.7  #: root mean square displacement along each axis, in pixels of a 28-pixel image
ELASTIC_SMOOTHNESS: Final = 4.0 / 28.0  #: standard deviation of the smoothing Gaussian, relative to the side
NOISE_SIGMA: Final = 25.0  #: gray levels
SMOTE_NEIGHBORS: Final = 5
BLOCK: Final = 64  #: images to transform at once: few enough for the processor's cache


def shift_rotate_scale(images: Images, rng: np.random.Generator, *, elastic: float = ELASTIC) -> Images:
    """Shift, rotate, scale, shear and elastically distort each image a little, with bilinear interpolation.

    Pixels from outside the image are black (0).

    Args:
        images: (n, H, W, C) uint8.
        rng: random generator of the transformations.
        elastic: root mean square displacement of the elastic distortion along each axis, in pixels of a 28-pixel
            image; 0: no elastic distortion.

    Returns:
        (n, H, W, C) uint8.
    """
    n, height, width = images.shape[:3]
    angle = np.deg2rad(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, n))
    scale = np.exp(rng.uniform(-SCALE, SCALE, n))
    shear = rng.uniform(-SHEAR, SHEAR, n)
    shift_x, shift_y = rng.uniform(-SHIFT, SHIFT, (2, n)) * width
    fields = [elastic / 28 * side * _smooth_fields(n, height, width, rng) for side in (width, height) if elastic]

    # The inverse map: from each output pixel to a point of the input.
    y, x = np.indices((height, width), dtype=np.float32)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    cosine, sine = _per_image(np.cos(angle) / scale), _per_image(np.sin(angle) / scale)
    shears, shifts_x, shifts_y = _per_image(shear), _per_image(shift_x), _per_image(shift_y)
    changed = np.empty_like(images)
    for start in range(0, n, BLOCK):
        rows = slice(start, start + BLOCK)
        sheared = x + shears[rows] * y
        from_x = cosine[rows] * sheared + sine[rows] * y + shifts_x[rows] + (width - 1) / 2
        from_y = -sine[rows] * sheared + cosine[rows] * y + shifts_y[rows] + (height - 1) / 2
        if elastic:
            from_x, from_y = from_x + fields[0][rows], from_y + fields[1][rows]
        changed[rows] = _bilinear(images[rows], from_x, from_y)
    return changed


def _smooth_fields(n: int, height: int, width: int, rng: np.random.Generator) -> Floats:
    """Gaussian noise, smoothed by a Gaussian, with variance 1 at each pixel: (n, height, width) float32."""
    rows, columns = _smoother(height), _smoother(width)
    noise = rng.standard_normal((n * rows.shape[1], columns.shape[1]), dtype=np.float32)
    along_x = (noise @ columns.T).reshape(n, rows.shape[1], width)
    return np.matmul(rows, along_x)


def _smoother(side: int) -> Floats:
    """(side, side / 2) matrix from white noise at every other pixel to smooth noise of equal variance at all pixels."""
    to, at = np.arange(side, dtype=np.float32), np.arange(0.5, side, 2, dtype=np.float32)
    weights = np.exp(-0.5 * ((to[:, np.newaxis] - at) / (ELASTIC_SMOOTHNESS * side)) ** 2)
    return weights / np.linalg.norm(weights, axis=1, keepdims=True)


def _per_image(values: npt.ArrayLike) -> Floats:
    """(n,) => (n, 1, 1), for arithmetic with (n, H, W)."""
    return np.asarray(values, np.float32)[:, np.newaxis, np.newaxis]


def _bilinear(images: Images, x: Floats, y: Floats) -> Images:
    """Interpolate the pixels of (n, H, W, C) *images* at the points *x*, *y*, both (n, H, W). Outside is black."""
    n, height, width, channels = images.shape
    margin = 2  # black pixels around the image, wide enough for points outside and their neighbors
    x = np.clip(x, -1, width)
    y = np.clip(y, -1, height)
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0))).astype(np.float32)
    stride = width + 2 * margin
    left, top = np.floor(x), np.floor(y)
    first = np.arange(n)[:, np.newaxis, np.newaxis] * (height + 2 * margin) + margin  # row of each image in `padded`
    at = (first + top.astype(np.int64)) * stride + left.astype(np.int64) + margin
    right_weight, low_weight = x - left, y - top

    def interpolated(plane: Floats) -> Floats:
        def corner(offset: int) -> Floats:
            return plane[offset:].take(at)

        upper = corner(0) * (1 - right_weight) + corner(1) * right_weight
        lower = corner(stride) * (1 - right_weight) + corner(stride + 1) * right_weight
        return np.rint(upper * (1 - low_weight) + lower * low_weight)

    planes = [interpolated(padded[..., channel].ravel()) for channel in range(channels)]
    return np.stack(planes, axis=-1).astype(np.uint8)


def add_noise(images: Images, rng: np.random.Generator) -> Images:
    """Add Gaussian noise of ``NOISE_SIGMA`` gray levels to every pixel.

    Args:
        images: (n, H, W, C) uint8.
        rng: random generator of the noise.

    Returns:
        (n, H, W, C) uint8.
    """
    noise = rng.standard_normal(images.shape, dtype=np.float32) * NOISE_SIGMA
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


class Smote:
    """SMOTE in pixel space: mixes an image with one of its nearest neighbors of the same class.

    An image that is alone in its class is repeated unchanged.
    """

    def __init__(self, images: Images, labels: Labels, *, neighbors: int = SMOTE_NEIGHBORS) -> None:
        """Find the neighbors of each image.

        Args:
            images: (n, H, W, C) uint8.
            labels: (n,) int64.
            neighbors: number of nearest neighbors of each image, in its class.
        """
        from sklearn.neighbors import NearestNeighbors

        self._images = images
        self._neighbors = np.repeat(np.arange(len(images))[:, None], neighbors, axis=1)
        flat = images.reshape(len(images), -1).astype(np.float32)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            k = min(neighbors, len(members) - 1)
            if k < 1:
                continue
            # kneighbors without points excludes each point from its own neighbors.
            nearest = NearestNeighbors(n_neighbors=k).fit(flat[members]).kneighbors(return_distance=False)
            self._neighbors[members] = members[np.resize(nearest.T, (neighbors, len(members))).T]

    def mix(self, indices: npt.NDArray[np.int64], rng: np.random.Generator) -> Images:
        """Mix each image at *indices* with one of its neighbors, in a random proportion.

        Args:
            indices: (m,) indices of images.
            rng: random generator of neighbors and proportions.

        Returns:
            (m, H, W, C) uint8.
        """
        partner = self._neighbors[indices, rng.integers(0, self._neighbors.shape[1], len(indices))]
        share = rng.random((len(indices), 1, 1, 1), dtype=np.float32)
        mixed = self._images[indices] * (1 - share) + self._images[partner] * share
        return np.rint(mixed).astype(np.uint8)
