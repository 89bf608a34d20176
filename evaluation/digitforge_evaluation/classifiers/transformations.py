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
    n, height, width, channels = images.shape
    angle = np.deg2rad(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, n))
    scale = np.exp(rng.uniform(-SCALE, SCALE, n))
    shear = rng.uniform(-SHEAR, SHEAR, n)
    shift_x, shift_y = rng.uniform(-SHIFT, SHIFT, (2, n)) * width

    # The inverse map: from each output pixel to a point of the input.
    y, x = np.indices((height, width), dtype=np.float32)
    y, x = y - (height - 1) / 2, x - (width - 1) / 2
    sheared = x + _per_image(shear) * y
    cosine, sine = _per_image(np.cos(angle) / scale), _per_image(np.sin(angle) / scale)
    from_x = cosine * sheared + sine * y + _per_image(shift_x) + (width - 1) / 2
    from_y = -sine * sheared + cosine * y + _per_image(shift_y) + (height - 1) / 2
    if elastic:
        from_x = from_x + elastic / 28 * width * _smooth_fields(n, height, width, rng)
        from_y = from_y + elastic / 28 * height * _smooth_fields(n, height, width, rng)
    return np.stack([_bilinear(images[..., c], from_x, from_y) for c in range(channels)], axis=-1)


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


def _bilinear(plane: Images, x: Floats, y: Floats) -> Images:
    """Interpolate the pixels of each image at its points; outside is black. All arguments are (n, H, W)."""
    n, height, width = plane.shape
    margin = 2  # black pixels around the image, wide enough for points outside and their neighbors
    x = np.clip(x, -1, width)
    y = np.clip(y, -1, height)
    stride = width + 2 * margin
    padded = np.pad(plane, ((0, 0), (margin, margin), (margin, margin))).reshape(n, -1).astype(np.float32)
    left, top = np.floor(x), np.floor(y)
    at = ((top.astype(np.int64) + margin) * stride + left.astype(np.int64) + margin).reshape(n, -1)
    right_weight, low_weight = (x - left).reshape(n, -1), (y - top).reshape(n, -1)

    def corner(offset: int) -> Floats:
        return np.take_along_axis(padded, at + offset, axis=1)

    upper = corner(0) * (1 - right_weight) + corner(1) * right_weight
    lower = corner(stride) * (1 - right_weight) + corner(stride + 1) * right_weight
    return np.rint(upper * (1 - low_weight) + lower * low_weight).reshape(n, height, width).astype(np.uint8)


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
