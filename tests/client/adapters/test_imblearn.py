"""`GeneratedDigitsSampler` as an estimator of scikit-learn and imbalanced-learn."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import Any

import numpy as np
import pytest

from digitforge_client import DigitClient, GeneratedDigitsSampler, InvalidInputError, ServerUnavailableError
from digitforge_client.testing import FakeTransport

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier

#: Numbers of columns in the data of some checks of imbalanced-learn. All other checks use 20 columns. The data count
#: as images if the generator's images have that many pixels and pixel_range is wide enough.
COLUMNS = {
    "check_target_type": 2,
    "check_samplers_one_label": 2,
    "check_samplers_fit": 2,
    "check_sampler_get_feature_names_out": 3,
    "check_sampler_get_feature_names_out_pandas": 3,
}


def sampler(columns: int = 784, **options: Any) -> GeneratedDigitsSampler:
    shape = (28, 28, 1) if columns == 784 else (1, columns, 1)
    return GeneratedDigitsSampler(DigitClient(transports=[FakeTransport(image_shape=shape)]), **options)


def imblearn_checks() -> list[Any]:
    checks = pytest.importorskip("imblearn.utils.estimator_checks")
    return [check.func for _, check in checks.estimator_checks_generator(sampler())]


def test_imbalanced_learn_has_checks_for_samplers() -> None:
    assert len(imblearn_checks()) >= 12


@pytest.mark.filterwarnings("ignore")
def test_every_check_of_imbalanced_learn_passes() -> None:
    skipped = pytest.importorskip("unittest").SkipTest
    for check in imblearn_checks():
        estimator = sampler(COLUMNS.get(check.__name__, 20), pixel_range=(-50, 50))
        try:
            check("GeneratedDigitsSampler", estimator)
        except skipped:  # pandas is not installed
            continue


def test_the_sampler_works_in_a_pipeline_of_imbalanced_learn() -> None:
    pipeline = pytest.importorskip("imblearn.pipeline")
    real = DigitClient(transports=[FakeTransport()]).sample(60, seed=9)
    keep = ~((real.labels == 3) & (np.arange(60) > 5))
    X, y = real.images.reshape(60, -1)[keep], real.labels[keep]
    model = pipeline.make_pipeline(sampler(), KNeighborsClassifier(1)).fit(X, y)
    assert set(Counter(model[-1]._y.tolist()).values()) == {6}
    test = DigitClient(transports=[FakeTransport()]).sample(50, seed=10)
    assert model.score(test.images.reshape(50, -1), test.labels) > 0.9


def test_the_sampler_reports_the_added_digits_and_their_addresses() -> None:
    X, y = np.zeros((6, 28, 28), np.uint8), np.array([0, 0, 0, 0, 5, 5])
    fitted = sampler(random_state=4)
    X2, y2 = fitted.fit_resample(X, y)
    assert fitted.sampling_strategy_ == {5: 2}
    assert fitted.n_features_in_ == 784
    assert fitted.addresses_.labels.tolist() == [5, 5]
    np.testing.assert_array_equal(fitted.target.fetch(fitted.addresses_).images, X2[6:])
    assert y2.tolist() == [0, 0, 0, 0, 5, 5, 5, 5]
    assert sampler().fit(X, y).sampling_strategy_ == {5: 2}


def test_the_digits_of_the_sampler_can_be_expanded() -> None:
    X, y = np.zeros((6, 28, 28), np.uint8), np.array([0, 0, 0, 0, 5, 5])
    fitted = sampler(expansion=1.3)
    X2, _ = fitted.fit_resample(X, y)
    np.testing.assert_array_equal(X2[4:], np.concatenate([X[4:], fitted.target.fetch(fitted.addresses_).images]))
    assert fitted.addresses_.expansion == 1.3
    assert (sampler().fit_resample(X, y)[0] != X2).any()


def test_the_sampler_can_be_cloned_copied_and_pickled() -> None:
    original = sampler(sampling_strategy={1: 5}, pixel_range=(0, 1), random_state=9)
    for copied in (clone(original), copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert copied.get_params(deep=False).keys() == original.get_params(deep=False).keys()  # type: ignore[attr-defined, union-attr]
        assert copied.pixel_range == (0, 1)
        X, y = np.zeros((2, 784), np.float32), [0, 1]
        assert copied.fit_resample(X, y)[0].shape == (6, 784)


@pytest.mark.parametrize("random_state", [2**21, 2**32 - 1, np.uint32(2**31)])
def test_a_large_seed_draws_a_seed_of_its_own(random_state: Any) -> None:
    X, y = np.zeros((6, 784), np.uint8), [0, 0, 0, 0, 5, 5]
    one, again, small = (sampler(random_state=state) for state in (random_state, random_state, 0))
    results = [each.fit_resample(X, y)[0] for each in (one, again, small)]
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()
    with pytest.raises(InvalidInputError, match="below 2³²"):
        sampler(random_state=2**32).fit_resample(X, y)


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_a_random_number_generator_gives_other_digits_for_each_call(make: Any) -> None:
    X, y = np.zeros((6, 784), np.uint8), [0, 0, 0, 0, 5, 5]
    fitted, again = sampler(random_state=make(3)), clone(sampler(random_state=make(3)))
    first, second = fitted.fit_resample(X, y)[0], fitted.fit_resample(X, y)[0]
    assert (first != second).any()
    np.testing.assert_array_equal(again.fit_resample(X, y)[0], first)
    assert len(sampler(random_state=np.random).fit_resample(X, y)[0]) == 8
    for wrong in ("3", 3.5, True):
        with pytest.raises(InvalidInputError, match=r"random_state|seed"):
            sampler(random_state=wrong).fit_resample(X, y)


def test_a_share_balances_two_classes_in_float_labels() -> None:
    X, y = np.zeros((10, 784), np.uint8), np.repeat([0.0, 5.0], [8, 2])
    assert sampler(sampling_strategy=0.5).fit_resample(X, y)[1].tolist() == [*y.tolist(), 5.0, 5.0]
    assert sampler(sampling_strategy={5.0: 3}).fit_resample(X, y)[1].tolist() == [*y.tolist(), 5.0]


def test_parameters_are_checked_when_they_are_used() -> None:
    with pytest.raises(InvalidInputError, match="strategy"):
        sampler(sampling_strategy="most").fit_resample(np.zeros((2, 784), np.uint8), [0, 1])
    with pytest.raises(InvalidInputError, match="seed"):
        sampler(random_state=-1).fit_resample(np.zeros((2, 784), np.uint8), [0, 1])
    with pytest.raises(ServerUnavailableError, match=r"127\.0\.0\.1:1"):
        GeneratedDigitsSampler("127.0.0.1:1").fit_resample(np.zeros((2, 784), np.uint8), [0, 1])
