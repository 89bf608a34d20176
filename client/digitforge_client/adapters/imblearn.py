"""`GeneratedDigitsSampler`: synthetic digits in a scikit-learn or imbalanced-learn pipeline.

With scikit-learn installed the sampler is one of its estimators; without, it works by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from digitforge_client.augmentation.resampling import PixelRange, Strategy, class_labels, wanted
from digitforge_client.client import DEFAULT_TARGET, DigitClient

if TYPE_CHECKING:

    class _Estimator:
        """What scikit-learn's base classes give."""
else:
    try:
        from sklearn.base import BaseEstimator, OneToOneFeatureMixin

        class _Estimator(OneToOneFeatureMixin, BaseEstimator):
            """An estimator whose columns stay what they are."""

    except ImportError:
        _Estimator = object


class GeneratedDigitsSampler(_Estimator):
    """Balances a data set of images with digits from a server, as imbalanced-learn's over-samplers do.

    Parameters
    ----------
    target : str, list of str or DigitClient, default="localhost:8500"
        Where the server listens, or a client to ask.
    sampling_strategy : str, dict or callable, default="auto"
        As imbalanced-learn has it for over-sampling: "auto" or "not majority", "minority", "not minority", "all", a
        dictionary of totals afterwards, or a function of y that returns one. A dictionary may name classes that y
        lacks.
    synthetic_per_real : float, default=None
        Instead of a strategy, synthetic digits for each real image.
    pixel_range : tuple of float, default=None
        Values of black and of white in X. It is never guessed: None is right for uint8 only.
    expansion : float, default=None
        What the generator's latents are multiplied by: above 1 for more variety. None: nothing.
    random_state : int or None, default=0
        The seed, 0 to 2097151. None draws one.

    Attributes
    ----------
    sampling_strategy_ : dict
        Number of synthetic digits for each class.
    addresses_ : Addresses
        Where the synthetic digits come from; `DigitClient.fetch` gives them again.
    n_features_in_ : int
        Pixels of an image.
    feature_names_in_ : ndarray of str
        Names of the columns, where X had such.

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
        random_state: int | None = 0,
    ) -> None:
        self.target = target
        self.sampling_strategy = sampling_strategy
        self.synthetic_per_real = synthetic_per_real
        self.pixel_range = pixel_range
        self.expansion = expansion
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Find out what the data set needs, without asking a server.

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
        self.sampling_strategy_ = wanted(class_labels(y), self.sampling_strategy, self.synthetic_per_real)
        self._remember(X)
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Add the digits that the data set needs, after the real images.

        Parameters
        ----------
        X : array-like of shape (n, pixels), (n, H, W) or (n, H, W, C)
            Images, of the generator's size.
        y : array-like of shape (n,)
            Class numbers or class names.

        Returns
        -------
        X_resampled : the kind of container of X
            Real images, then synthetic ones, in the layout, dtype and range of X.
        y_resampled : the kind of container of y
            Their labels.

        Raises
        ------
        InvalidInputError
            The images do not fit the generator, or the labels are none of its classes.
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
                seed=self.random_state,
                expansion=self.expansion,
            )
        finally:
            if not given:
                client.close()
        self.sampling_strategy_ = augmented.added
        self.addresses_ = augmented.batch.addresses
        self._remember(X)
        return augmented.X, augmented.y

    def _remember(self, X: Any) -> None:
        """What scikit-learn wants to know of the data afterwards."""
        columns = getattr(X, "columns", None)
        if columns is not None and all(isinstance(name, str) for name in columns):
            self.feature_names_in_ = np.array(list(columns), dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_
        shape = np.shape(X)
        self.n_features_in_ = int(np.prod(shape[1:]))

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn and imbalanced-learn ask of an estimator."""
        try:
            from imblearn.base import BaseSampler
        except ImportError:
            tags = super().__sklearn_tags__()  # type: ignore[misc]
        else:
            tags = BaseSampler.__sklearn_tags__(self)  # its tags have more fields
        tags.estimator_type = "sampler"
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        tags.input_tags.sparse = False
        return tags
