"""`GeneratedDigitsSampler`: synthetic digits in a scikit-learn or imbalanced-learn pipeline.

If scikit-learn is installed, the sampler is a scikit-learn estimator. It works without scikit-learn too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from digitforge_client.augmentation.resampling import PixelRange, Strategy, class_labels, digits_to_add
from digitforge_client.client import DEFAULT_TARGET, DigitClient
from digitforge_client.contract import SEEDS
from digitforge_client.errors import InvalidInputError

if TYPE_CHECKING:

    class _Estimator:
        """Base class for type checkers."""
else:
    try:
        from sklearn.base import BaseEstimator, OneToOneFeatureMixin

        class _Estimator(OneToOneFeatureMixin, BaseEstimator):
            """A scikit-learn estimator that keeps the columns."""

    except ImportError:
        _Estimator = object


class GeneratedDigitsSampler(_Estimator):
    """Balances a data set of images with digits from a server, like imbalanced-learn's over-samplers.

    Parameters
    ----------
    target : str, list of str or DigitClient, default="localhost:8500"
        Where the server listens, or a client.
    sampling_strategy : str, float, dict or callable, default="auto"
        The sampling strategy of imbalanced-learn's over-samplers: "auto" or "not majority", "minority",
        "not minority", "all", a dictionary with the total number of images per class afterwards, or a function that
        takes y and returns such a dictionary. A dictionary may contain classes that y lacks. For two classes, a number
        up to 1 is the size of the smaller class afterwards, as a share of the larger one.
    synthetic_per_real : float, default=None
        Number of synthetic digits per real image, instead of a strategy.
    pixel_range : tuple of float, default=None
        The values of black and white in X. They are never guessed: use None only for uint8.
    expansion : float, default=None
        Factor for the generator's latents. A factor above 1 gives more variety. None leaves the latents unchanged.
    random_state : int, RandomState, Generator or None, default=0
        The seed. Integers up to 2097151 mean the same as for `DigitClient.sample`, and larger ones draw a seed. A
        random number generator of NumPy draws a seed for each call. None draws one without a fixed state.

    Attributes
    ----------
    sampling_strategy_ : dict
        Number of synthetic digits for each class.
    addresses_ : Addresses
        Addresses of the synthetic digits. `DigitClient.fetch` returns the same digits for them.
    n_features_in_ : int
        Pixels per image.
    feature_names_in_ : ndarray of str
        Names of the columns, if X has names.

    Examples
    --------
    >>> from digitforge_client import GeneratedDigitsSampler
    >>> sampler = GeneratedDigitsSampler("localhost:8500", pixel_range=(0, 1))
    >>> X_more, y_more = sampler.fit_resample(X, y)  # doctest: +SKIP
    """

    _estimator_type = "sampler"
    _sampling_type = "over-sampling"

    def __init__(
        self,
        target: Any = DEFAULT_TARGET,
        *,
        sampling_strategy: Strategy = "auto",
        synthetic_per_real: float | None = None,
        pixel_range: PixelRange | None = None,
        expansion: float | None = None,
        random_state: int | np.random.RandomState | np.random.Generator | None = 0,
    ) -> None:
        self.target = target
        self.sampling_strategy = sampling_strategy
        self.synthetic_per_real = synthetic_per_real
        self.pixel_range = pixel_range
        self.expansion = expansion
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Compute the number of synthetic digits for each class, without asking a server.

        Parameters
        ----------
        X : array-like of shape (n, pixels), (n, H, W) or (n, H, W, C)
            Images.
        y : array-like of shape (n,)
            Class numbers or class names.

        Returns
        -------
        self : object
            The sampler.
        """
        self.sampling_strategy_ = digits_to_add(class_labels(y), self.sampling_strategy, self.synthetic_per_real)
        self._set_features(X)
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Append synthetic digits to the data set.

        Parameters
        ----------
        X : array-like of shape (n, pixels), (n, H, W) or (n, H, W, C)
            Images, of the generator's size.
        y : array-like of shape (n,)
            Class numbers or class names.

        Returns
        -------
        X_resampled : same container as X
            Real images, then synthetic ones, in the layout, dtype and range of X.
        y_resampled : same container as y
            Their labels.

        Raises
        ------
        InvalidInputError
            The images do not fit the generator, or the generator lacks a class.
        ServerError
            The server could not answer.
        """
        given = isinstance(self.target, DigitClient)
        client = self.target if given else DigitClient(self.target)
        try:
            augmented = client._augment(
                X,
                y,
                strategy=self.sampling_strategy,
                synthetic_per_real=self.synthetic_per_real,
                pixel_range=self.pixel_range,
                seed=_seed(self.random_state),
                expansion=self.expansion,
            )
        finally:
            if not given:
                client.close()
        self.sampling_strategy_ = augmented.added
        self.addresses_ = augmented.batch.addresses
        self._set_features(X)
        return augmented.X, augmented.y

    def _set_features(self, X: Any) -> None:
        """Set the attributes that scikit-learn expects after ``fit``."""
        columns = getattr(X, "columns", None)
        if columns is not None and all(isinstance(name, str) for name in columns):
            self.feature_names_in_ = np.array(list(columns), dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        shape = np.shape(X)
        self.n_features_in_ = int(np.prod(shape[1:]))

    def __sklearn_tags__(self) -> Any:
        """Tags that scikit-learn and imbalanced-learn expect of an estimator."""
        try:
            from imblearn.base import BaseSampler
        except ImportError:
            tags = super().__sklearn_tags__()  # type: ignore[misc]
        else:
            tags = BaseSampler.__sklearn_tags__(self)  # imbalanced-learn's tags have more fields
        tags.estimator_type = "sampler"
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        tags.input_tags.sparse = False
        return tags


def _seed(random_state: Any) -> int | None:
    """Turn a *random_state* into a seed.

    Raises:
        InvalidInputError: it is not a random state.
    """
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(SEEDS))
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool) and random_state >= SEEDS:
        if random_state >= 2**32:
            raise InvalidInputError(f"random_state is {random_state}; expected an integer below 2³²")
        random_state = np.random.RandomState(int(random_state))
    if isinstance(random_state, np.random.RandomState) or random_state is np.random:
        return int(random_state.randint(SEEDS))
    if random_state is None or isinstance(random_state, int | np.integer):
        return random_state  # type: ignore[return-value]
    raise InvalidInputError(
        f"random_state is {random_state!r}; expected a seed (an integer), a RandomState or Generator of NumPy, or None"
    )
