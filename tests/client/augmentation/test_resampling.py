"""Balancing: the number of added digits, and their form beside the real images."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from digitforge_client import DigitClient, InvalidInputError
from digitforge_client.augmentation.resampling import digits_to_add
from digitforge_client.testing import FakeTransport

Y = np.repeat([0, 1, 7], [30, 10, 4])


@pytest.fixture
def client() -> DigitClient:
    return DigitClient(transports=[FakeTransport()])


def images(n: int, dtype: Any = np.uint8) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, size=(n, 28, 28))
    return values.astype(np.uint8) if dtype == np.uint8 else (values / 255).astype(dtype)


@pytest.mark.parametrize(
    ("strategy", "added"),
    [
        ("auto", {1: 20, 7: 26}),
        ("not majority", {1: 20, 7: 26}),
        ("all", {0: 0, 1: 20, 7: 26}),
        ("minority", {7: 26}),
        ("not minority", {0: 0, 1: 20}),
        ({7: 10, 1: 10}, {7: 6, 1: 0}),
        ({3: 5}, {3: 5}),
        ({7.0: 10.0, np.int8(1): np.int64(11)}, {7: 6, 1: 1}),
        (lambda y: dict.fromkeys(np.unique(y), 40), {0: 10, 1: 30, 7: 36}),
    ],
)
def test_strategies_mean_the_same_as_in_imbalanced_learn(strategy: Any, added: dict[int, int]) -> None:
    assert digits_to_add(Y, strategy, None) == added


def test_strategies_agree_with_imbalanced_learn() -> None:
    utils = pytest.importorskip("imblearn.utils")
    for strategy in ("auto", "not majority", "all", "minority", "not minority", {7: 10, 1: 10}):
        assert digits_to_add(Y, strategy, None) == dict(utils.check_sampling_strategy(strategy, Y, "over-sampling"))


@pytest.mark.parametrize("share", [0.5, 0.37, 1, 1.0, np.float32(0.75)])
def test_a_share_of_the_larger_class_means_the_same_as_in_imbalanced_learn(share: float) -> None:
    utils = pytest.importorskip("imblearn.utils")
    for y in (np.repeat([0, 7], [30, 10]), np.repeat([7, 0], [30, 10]), np.repeat(["a", "b"], [3, 20])):
        assert digits_to_add(y, share, None) == dict(utils.check_sampling_strategy(share, y, "over-sampling"))


def test_a_series_may_hold_the_totals(client: DigitClient) -> None:
    pandas = pytest.importorskip("pandas")
    assert digits_to_add(Y, pandas.Series({7: 10, 1: 12}), None) == {7: 6, 1: 2}
    y = pandas.Series(Y.astype(float))
    totals = y.value_counts().to_dict()  # its keys are floats, like y
    assert client.augment(images(44), y, strategy={**totals, 7.0: 9})[1].tolist() == [*Y.tolist(), *[7] * 5]


def test_synthetic_per_real_counts_class_by_class() -> None:
    assert digits_to_add(Y, "auto", 2.0) == {0: 60, 1: 20, 7: 8}
    assert digits_to_add(Y, "auto", 0.25) == {0: 8, 1: 2, 7: 1}
    assert digits_to_add(Y, "auto", 0.0) == {0: 0, 1: 0, 7: 0}
    assert digits_to_add(np.zeros(5, int), "auto", 1.0) == {0: 5}


@pytest.mark.parametrize(
    ("y", "strategy", "per_real"),
    [
        (Y, "most", None),
        (Y, {7: 3}, None),
        (Y, {7: 10.5}, None),
        (Y, {"7": 10}, None),
        (Y, {7.5: 10}, None),
        (Y, {True: 20}, None),
        (Y, {7: float("nan")}, None),
        (Y, {None: 10}, None),
        (Y, [7], None),
        (Y, 0.5, None),  # three classes
        (np.repeat([0, 1], [10, 5]), 0.5, None),  # nothing to add
        (np.repeat([0, 1], [10, 5]), 0.0, None),
        (np.repeat([0, 1], [10, 5]), 1.5, None),
        (np.repeat([0, 1], [10, 5]), True, None),
        (np.repeat([0, 1], [10, 5]), 0.8, 1.0),
        (Y, "minority", 2.0),
        (Y, "auto", -1.0),
        (Y, "auto", float("nan")),
        (np.zeros(5, int), "auto", None),
        (np.zeros(0, int), "auto", None),
    ],
)
def test_an_impossible_strategy_is_rejected(y: np.ndarray, strategy: Any, per_real: float | None) -> None:
    with pytest.raises(InvalidInputError):
        digits_to_add(y, strategy, per_real)


@given(counts=st.lists(st.integers(1, 20), min_size=2, max_size=10))
def test_balanced_classes_are_as_large_as_the_largest_class(counts: list[int]) -> None:
    y = np.repeat(np.arange(len(counts)), counts)
    added = digits_to_add(y, "auto", None)
    assert all(counts[label] + added.get(label, 0) == max(counts) for label in range(len(counts)))


@pytest.mark.parametrize("shape", [(784,), (28, 28), (28, 28, 1)])
def test_digits_take_the_layout_of_the_real_images(client: DigitClient, shape: tuple[int, ...]) -> None:
    X = images(44).reshape(44, *shape)
    X2, y2 = client.augment(X, Y, seed=3)
    assert X2.shape == (90, *shape)
    np.testing.assert_array_equal(X2[:44], X)
    np.testing.assert_array_equal(y2, np.concatenate([Y, [1] * 20, [7] * 26]))
    expected = client.sample(labels=[1] * 20 + [7] * 26, seed=3)
    np.testing.assert_array_equal(X2[44:].reshape(-1, 28, 28), expected.images)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("pixel_range", [(0, 1), (-1, 1), (0, 255)])
def test_digits_take_the_range_and_dtype_of_the_real_images(
    client: DigitClient, dtype: Any, pixel_range: tuple[float, float]
) -> None:
    low, high = pixel_range
    X = (low + images(44, np.float64) * (high - low)).clip(low, high).astype(dtype)
    X2, _ = client.augment(X, Y, seed=3, pixel_range=pixel_range)
    assert X2.dtype == dtype
    digits = client.sample(labels=[1] * 20 + [7] * 26, seed=3).images
    back = (X2[44:].astype(np.float64) - low) / (high - low) * 255
    assert np.abs(back - digits).max() < (0.5 if dtype != np.float16 else 1.0)
    assert X2.min() >= low
    assert X2.max() <= high


def test_the_range_of_pixels_is_never_guessed(client: DigitClient) -> None:
    with pytest.raises(InvalidInputError, match="never guessed"):
        client.augment(images(44, np.float32), Y)
    with pytest.raises(InvalidInputError, match="never guessed"):
        client.augment(images(44).astype(np.int64), Y)
    with pytest.raises(InvalidInputError, match="within pixel_range"):
        client.augment(images(44, np.float32) * 2, Y, pixel_range=(0, 1))
    with pytest.raises(InvalidInputError, match=r"expected \(0, 255\)"):
        client.augment(images(44), Y, pixel_range=(0, 1))
    for wrong in ((1, 0), (0, 0), (0, float("inf"))):
        with pytest.raises(InvalidInputError, match="pixel_range"):
            client.augment(images(44, np.float32), Y, pixel_range=wrong)
    with pytest.raises(InvalidInputError, match="within pixel_range"):
        client.augment(np.full((44, 28, 28), np.nan), Y, pixel_range=(0, 1))


@pytest.mark.parametrize("shape", [(44, 64), (44, 28), (44, 28, 27), (44, 28, 28, 3), (44,), (44, 1, 28, 28)])
def test_images_of_another_size_are_rejected(client: DigitClient, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"28 × 28 × 1"):
        client.augment(np.zeros(shape, np.uint8), Y)


def test_labels_that_do_not_fit_are_rejected(client: DigitClient) -> None:
    X = images(44)
    with pytest.raises(InvalidInputError, match="44 images and y has 43 labels"):
        client.augment(X, Y[1:])
    with pytest.raises(InvalidInputError, match="no class 12"):
        client.augment(X, np.where(Y == 7, 12, Y))
    with pytest.raises(InvalidInputError, match="no class 12"):
        client.augment(X, Y, strategy={12: 5})
    with pytest.raises(InvalidInputError, match="label type"):
        client.augment(X, Y + 0.5)
    with pytest.raises(InvalidInputError, match="Multilabel"):
        client.augment(X, np.ones((44, 10), int))
    with pytest.raises(InvalidInputError, match="unconditional"):
        DigitClient(transports=[FakeTransport(class_names=())]).augment(X, Y)


def test_class_names_may_be_labels() -> None:
    client = DigitClient(transports=[FakeTransport(class_names=("cat", "ostrich"), image_shape=(4, 4, 3))])
    X, y = np.zeros((3, 48), np.uint8), ["cat", "cat", "cat"]
    X2, y2 = client.augment(X, y, strategy={"ostrich": 2})
    assert X2.shape == (5, 48)
    assert y2 == ["cat", "cat", "cat", "ostrich", "ostrich"]
    _, y3 = client.augment(X, np.array(y), strategy={"ostrich": 1})
    assert y3.tolist() == ["cat", "cat", "cat", "ostrich"]


def test_without_digits_to_add_the_data_do_not_change(client: DigitClient) -> None:
    X, y = images(20), np.arange(20) % 2
    X2, y2 = client.augment(X, y)
    np.testing.assert_array_equal(X2, X)
    np.testing.assert_array_equal(y2, y)


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.float64])
def test_labels_keep_their_dtype(client: DigitClient, dtype: Any) -> None:
    assert client.augment(images(44), Y.astype(dtype))[1].dtype == dtype


def test_results_have_the_containers_of_the_input(client: DigitClient) -> None:
    X2, y2 = client.augment(images(44).tolist(), Y.tolist(), pixel_range=(0, 255))
    assert isinstance(X2, list)
    assert isinstance(y2, list)
    assert len(X2) == len(y2) == 90
    pandas = pytest.importorskip("pandas")
    names = [f"pixel{number}" for number in range(784)]
    table = pandas.DataFrame(images(44).reshape(44, 784), columns=names)
    X3, y3 = client.augment(table, pandas.Series(Y, name="digit"))
    assert isinstance(X3, pandas.DataFrame)
    assert list(X3.columns) == names
    assert set(X3.dtypes) == {np.dtype(np.uint8)}
    assert (y3.name, len(y3)) == ("digit", 90)


def test_tuples_come_back_as_tuples(client: DigitClient) -> None:
    X2, y2 = client.augment(tuple(images(44)), tuple(Y.tolist()))
    assert isinstance(X2, tuple)
    assert y2 == (*Y.tolist(), *[1] * 20, *[7] * 26)
    assert X2[0].dtype == X2[89].dtype == np.uint8


@pytest.mark.parametrize("dtype", ["UInt8", "uint8[pyarrow]", "category", "Sparse[uint8]"])
def test_columns_of_bytes_need_no_pixel_range(client: DigitClient, dtype: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pixels = images(44).reshape(44, 784)
    X2, _ = client.augment(pandas.DataFrame(pixels).astype(dtype), Y, seed=3)
    expected, _ = client.augment(pixels, Y, seed=3)
    np.testing.assert_array_equal(X2.to_numpy(dtype=np.uint8), expected)


@pytest.mark.parametrize("dtype", ["UInt8", "uint8[pyarrow]", "Float32", "double[pyarrow]", "category", "float32"])
def test_missing_pixels_are_rejected(client: DigitClient, dtype: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame(images(44).reshape(44, 784)).astype(dtype)
    table.iloc[3, 5] = None
    with pytest.raises(InvalidInputError, match="missing pixels"):
        client.augment(table, Y, pixel_range=(0, 255))
    with pytest.raises(InvalidInputError, match="masked pixels"):
        client.augment(np.ma.masked_array(images(44), images(44) == 3), Y)


@pytest.mark.parametrize("dtype", ["Int64", "int64[pyarrow]", "float64", "category", "object"])
@pytest.mark.parametrize("kind", [int, str])
def test_missing_labels_are_rejected(client: DigitClient, dtype: str, kind: type) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    if kind is str and "64" in dtype:
        dtype = "string" if dtype == "Int64" else "str"
    y = pandas.Series([*map(kind, Y[1:]), None], dtype=dtype)
    masked = np.ma.masked_array(Y, np.arange(44) == 3)
    for labels in (y, y.to_frame(), y.tolist(), masked):
        with pytest.raises(InvalidInputError, match="labels are missing"):
            client.augment(images(44), labels)
        with pytest.raises(InvalidInputError, match="labels are missing"):
            client.sample(labels=labels if labels is masked else y)


MANY = tuple(map(str, range(300)))


def labels_after(y: Any, strategy: dict[Any, int]) -> Any:
    """Augment labels with a generator of 300 classes, and return the result."""
    client = DigitClient(transports=[FakeTransport(class_names=MANY, image_shape=(2, 2, 1))])
    return client.augment(np.zeros((len(y), 4), np.uint8), y, strategy=strategy, seed=0)[1]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("kind", ["Series", "Categorical", "CategoricalIndex", "DataFrame"])
@pytest.mark.parametrize(
    ("known", "added", "categories"),
    [
        (["1", "3", "9"], "7", ["1", "3", "7", "9"]),
        (["9", "3", "1"], "7", ["9", "3", "1", "7"]),
        (["3", "1", "7"], "7", ["3", "1", "7"]),
        ([1, 3, 9], 7, [1, 3, 7, 9]),
        ([1.0, 3.0], 7, [1.0, 3.0, 7.0]),
    ],
)
def test_a_categorical_gets_its_missing_categories(
    kind: str, known: list[Any], added: Any, categories: list[Any], ordered: bool
) -> None:
    pandas = pytest.importorskip("pandas")
    values = [known[0], known[1], known[1], known[0]]
    given = pandas.Categorical(values, categories=known, ordered=ordered)
    y: Any = pandas.DataFrame({"digit": given}) if kind == "DataFrame" else getattr(pandas, kind)(given)
    y2 = labels_after(y, {added: 20})
    assert type(y2) is type(y)
    column = y2["digit"] if kind == "DataFrame" else pandas.Series(y2)
    assert column.tolist() == values + [added] * 20
    assert column.dtype == pandas.CategoricalDtype(categories, ordered=ordered)
    assert column.cat.categories.tolist() == categories


@pytest.mark.parametrize(
    ("dtype", "wider"),
    [
        ("int8", "int64"),
        ("Int8", "Int64"),
        ("int8[pyarrow]", "int64[pyarrow]"),
        ("uint8", None),
        ("UInt8", None),
        ("Int64", None),
        ("float32", None),
        ("Float32", None),
        ("uint8[pyarrow]", None),
        ("double[pyarrow]", None),
        ("object", None),
    ],
)
def test_a_column_of_labels_keeps_its_dtype_or_gets_a_wider_one(dtype: str, wider: str | None) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    y = pandas.Series([1, 3, 3, 1], name="digit", dtype=dtype)
    for added, expected in ((7, dtype), (200, wider or dtype)):
        y2 = labels_after(y, {added: 2})
        assert y2.tolist() == [1, 3, 3, 1, added, added]
        assert (y2.name, y2.dtype) == ("digit", expected)


@pytest.mark.parametrize("dtype", ["object", "string", "string[pyarrow]", "category"])
def test_a_column_of_names_takes_longer_names(dtype: str) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    y2 = labels_after(pandas.Series(["1", "3", "3"], dtype=dtype), {"200": 2})
    assert y2.tolist() == ["1", "3", "3", "200", "200"]
    assert str(y2.dtype) == dtype.partition("[")[0]


@pytest.mark.parametrize(
    ("dtype", "added", "expected"),
    [
        (np.int8, 7, np.int8),
        (np.int8, 200, np.int64),
        (np.uint8, 200, np.uint8),
        (np.float16, 200, np.float16),
        (object, 200, object),
        ("<U1", "200", "<U3"),
        # NumPy 2 and later
        *([(np.dtypes.StringDType(), "200", np.dtypes.StringDType())] if hasattr(np.dtypes, "StringDType") else []),
    ],
)
def test_an_array_of_labels_keeps_its_dtype_or_gets_a_wider_one(dtype: Any, added: Any, expected: Any) -> None:
    first = [type(added)(label) for label in (1, 3, 3)]
    y2 = labels_after(np.array(first, dtype=dtype), {added: 2})
    assert y2.tolist() == [*first, added, added]
    assert y2.dtype == expected


@pytest.mark.parametrize("y", [[1, "3", "3"], [1.0, 3.0, 3.0], [[1], [3], [3]], [np.int8(1), np.int8(3), np.int8(3)]])
def test_a_list_of_labels_keeps_its_elements(y: list[Any]) -> None:
    added = 7 if "3" not in y else "7"
    y2 = labels_after(y, {added: 2})
    first = np.ravel(y).tolist() if isinstance(y[0], list) else y
    assert y2 == [*first, added, added]
    assert [type(label) for label in y2[:3]] == [type(label) for label in first]
    assert len({type(label) for label in y2[-2:]}) == 1
    if isinstance(y[0], float):
        assert isinstance(y2[-1], float)
    array = np.array(y, dtype=object).reshape(-1)
    assert labels_after(array, {added: 2}).tolist()[:3] == first


def test_booleans_are_not_classes() -> None:
    for y in ([True, False], np.array([True, False]), np.array([True, False], object)):
        with pytest.raises(InvalidInputError, match="label type"):
            labels_after(y, {1: 5})


def test_int8_pixels_get_a_wider_dtype_because_int8_cannot_hold_white(client: DigitClient) -> None:
    X, y = np.zeros((3, 784), np.int8), [1, 1, 2]
    digits = client.sample(labels=[7] * 5, seed=0).images.reshape(5, 784)
    assert digits.max() > 127
    X2, _ = client.augment(X, y, strategy={7: 5}, seed=0, pixel_range=(0, 255))
    np.testing.assert_array_equal(X2[3:], digits)
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X.astype(np.int64)).astype(
        dict.fromkeys(range(300), np.int8)
    )  # as pandas.to_numeric(downcast=…) makes it
    for each in (table, pandas.DataFrame(X)):
        X3, _ = client.augment(each, y, strategy={7: 5}, seed=0, pixel_range=(0, 255))
        np.testing.assert_array_equal(X3.to_numpy()[3:], digits)
        assert X3.columns.tolist() == each.columns.tolist()


def test_integer_columns_of_a_table_accept_fractions(client: DigitClient) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.zeros((3, 784), np.float32)).astype(dict.fromkeys(range(300), np.uint8))
    X2, _ = client.augment(table, [1, 1, 2], strategy={7: 5}, seed=0, pixel_range=(0, 1))
    digits = client.sample(labels=[7] * 5, seed=0).images.reshape(5, 784) / 255
    np.testing.assert_allclose(X2.to_numpy()[3:], digits, atol=1e-6)
    assert set(X2.dtypes.iloc[300:]) == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("dtype", "pixel_range"),
    [
        ("UInt8", (0, 255)),
        ("Float32", (0, 1)),
        ("uint8[pyarrow]", (0, 255)),
        ("float[pyarrow]", (-1, 1)),
        ("category", (0, 255)),
        ("Sparse[uint8]", (0, 255)),
    ],
)
def test_a_table_of_any_dtype_accepts_digits(client: DigitClient, dtype: str, pixel_range: tuple[int, int]) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame(np.zeros((3, 784), np.uint8)).astype(dtype)
    X2, _ = client.augment(table, [1, 1, 2], strategy={7: 5}, seed=0, pixel_range=pixel_range)
    low, high = pixel_range
    digits = client.sample(labels=[7] * 5, seed=0).images.reshape(5, 784) / 255 * (high - low) + low
    np.testing.assert_allclose(X2.to_numpy(dtype=np.float64)[3:], digits, atol=1e-5)
    if dtype != "category":
        assert set(X2.dtypes) == set(table.dtypes)


def test_names_of_columns_may_repeat(client: DigitClient) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.zeros((3, 784), np.uint8), columns=["pixel"] * 784, index=[5, 6, 7])
    X2, _ = client.augment(table, [1, 1, 2], strategy={7: 5}, seed=0)
    assert X2.columns.tolist() == ["pixel"] * 784
    assert X2.index.tolist() == list(range(8))


def test_a_list_of_arrays_stays_a_list_of_arrays(client: DigitClient) -> None:
    X = list(images(3))
    X2, _ = client.augment(X, [1, 1, 2], strategy={7: 5}, seed=0)
    assert {(type(row), row.shape, str(row.dtype)) for row in X2} == {(np.ndarray, (28, 28), "uint8")}
    assert X2[0] is X[0]


def test_a_pixel_range_beyond_the_dtype_is_rejected(client: DigitClient) -> None:
    with pytest.raises(InvalidInputError, match="the range of float16"):
        client.augment(images(44, np.float16), Y, pixel_range=(0, 65535))


def test_an_augmented_set_is_the_same_every_time(client: DigitClient) -> None:
    one, other = (client.augment(images(44), Y, seed=5)[0] for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(client.augment(images(44), Y, seed=6)[0], one)
    later = client.augment(images(44), Y, seed=5, start=1000)[0]
    assert not np.array_equal(later, one)


def test_augmenting_needs_neither_sklearn_nor_pandas() -> None:
    code = """
import sys
sys.modules["sklearn"] = sys.modules["pandas"] = sys.modules["imblearn"] = None
import numpy as np
from digitforge_client import DigitClient, GeneratedDigitsSampler
from digitforge_client.testing import FakeTransport
client = DigitClient(transports=[FakeTransport()])
X, y = GeneratedDigitsSampler(client).fit_resample(np.zeros((3, 784), np.uint8), [1, 1, 2])
assert X.shape == (4, 784) and y == [1, 1, 2, 2], (X.shape, y)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
