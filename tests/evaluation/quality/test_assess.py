"""`assess` reports every metric, and refuses generators that have seen held-out images."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.statistics import t_interval
from digitforge_evaluation.features.extract import CallableFeatures, digitnet
from digitforge_evaluation.features.own import PixelComponents
from digitforge_evaluation.images.sources import Drawn, ImageSet, SavedGenerator
from digitforge_evaluation.metrics.intervals import Interval
from digitforge_evaluation.metrics.missing_modes import count_images, make_bins, missing_share
from digitforge_evaluation.quality.assess import Measurement, Report, assess
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.quality.reference import Floor, shipped_reference
from digitforge_evaluation.quality.registry import METRICS, missing_modes_interval
from digitforge_training.data import Dataset
from digitforge_training.gan.clusters import find_bins

DIGITS = tuple("0123456789")


class Copier:
    """A generator that returns its training images."""

    name = "copier"

    def __init__(self, known: Dataset, class_names: tuple[str, ...] = DIGITS, sha256: str = "another") -> None:
        self._known = known
        self.card: dict[str, Any] | None = {
            "generator_id": "c0",
            "class_names": list(class_names),
            "training_data": {"sha256": sha256},
        }

    def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
        known = ImageSet(self._known.images, self._known.labels, "known")
        return known.draw(n, proportions=proportions, seed=seed, expansion=expansion)

    def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return np.isin(hashes, image_hashes(self._known.images))


@pytest.fixture(scope="module")
def generator(exported_model: Path) -> SavedGenerator:
    """The tiny generator. All tests share it, because reading it takes seconds."""
    return SavedGenerator(exported_model)


def floor(found: Measurement) -> Floor:
    assert found.training_floor is not None
    return found.training_floor


def unseen(found: Measurement) -> Floor:
    assert found.unseen_floor is not None
    return found.unseen_floor


def interval(found: Measurement) -> Interval:
    assert found.interval is not None
    assert found.interval[0] <= found.value <= found.interval[1]
    return found.interval


def measurements(report: Report) -> dict[str, Measurement]:
    return {found.key: found for found in report.figures}


def test_a_generator_gets_every_metric_possible_with_few_images(generator: SavedGenerator, real: RealData) -> None:
    report = assess(generator, network=digitnet(), n=300, real=real)

    found = measurements(report)
    assert set(found) == set(METRICS) - {"kernel_subsets", "missing", "train_on_generated", "train_on_real"}
    assert report.left_out.pop("missing").startswith("needs at least")
    assert report.left_out == {
        "kernel_subsets": "needs at least 1000 held-out images; there are 200",
        "train_on_generated": "needs --accuracy and --data, because it trains ten classifiers",
        "train_on_real": "needs --accuracy and --data, because it trains ten classifiers",
    }
    assert all(one.n == 300 and np.isfinite(one.value) for one in report.figures)
    assert found["distance"].name == "fd[digitnet-64]@300"
    assert found["distance"].value > 10 * floor(found["distance"]).mean  # it was trained for six steps only
    assert (floor(found["distance"]).n, floor(found["distance"]).held_out, floor(found["distance"]).repeats) == (
        300,
        200,
        10,
    )
    new = unseen(found["distance"])
    assert (new.n, new.held_out, new.repeats) == (100, 100, 10)  # there are 200 held-out images
    assert "the unseen floor of distances compares 100 held-out images with the other 100" in " ".join(report.notes)
    interval(found["distance"])
    assert interval(found["kernel"])[0] > unseen(found["kernel"]).mean
    json.dumps(report.as_dict())


def test_without_real_images_distances_use_the_shipped_statistics_and_other_metrics_are_left_out(
    generator: SavedGenerator,
) -> None:
    report = assess(generator, network=digitnet(), n=1000)

    found = measurements(report)
    assert set(found) == {"distance", "extrapolated", "agreement", "score"}
    assert [each.label for each in report.classes] == list(range(10))
    json.dumps(report.as_dict())
    for one in (*report.figures, *(each.figure for each in report.classes)):
        assert (floor(one).n, unseen(one).n) == (one.n, one.n)
        interval(one)
    assert report.reference == "mnist test"
    assert report.reference_n == 10_000
    assert floor(found["distance"]).n == 1000
    assert report.left_out["recall"] == "needs real images: give --data"


def test_a_note_says_that_a_sample_size_has_no_floor(generator: SavedGenerator) -> None:
    report = assess(generator, network=digitnet(), n=700)

    assert measurements(report)["distance"].training_floor is None
    assert any("no floor is known for n = 700" in note for note in report.notes)
    assert [each.label for each in report.classes] == [1]  # the other classes have 72 images or fewer


def test_a_generator_that_copies_training_images_is_detected(real: RealData) -> None:
    report = assess(Copier(real.train), network=digitnet(), n=300, real=real)

    authenticity, copying = measurements(report)["authenticity"], measurements(report)["copying"]
    assert authenticity.value == 0
    assert unseen(authenticity).mean > 0.3
    assert interval(copying)[1] < -3 < unseen(copying).mean
    assert measurements(report)["precision"].value > 0.9  # precision alone would look very good


def test_a_generator_that_copies_the_part_of_the_training_set_it_saw_is_detected(real: RealData) -> None:
    half = real.train.subset(np.arange(0, len(real.train), 2))

    report = assess(Copier(half), network=digitnet(), n=200, real=real)

    assert measurements(report)["authenticity"].value == 0


def test_authenticity_is_left_out_if_the_generator_saw_no_training_image(real: RealData) -> None:
    class Innocent(Copier):
        def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
            return np.zeros(len(hashes), bool)

    report = assess(Innocent(real.train), network=digitnet(), n=200, real=real)

    assert report.left_out["authenticity"].endswith("it has seen 0 of digits")


def test_a_generator_that_has_seen_a_held_out_image_is_refused(real: RealData) -> None:
    one = real.test.subset([5])
    contaminated = type(real.train)(
        images=np.concatenate([real.train.images, one.images]),
        labels=np.concatenate([real.train.labels, one.labels]),
        class_names=DIGITS,
        name="contaminated",
        split="train",
    )
    with pytest.raises(InvalidInputError, match=r"was trained on 1 of the .* held-out images"):
        assess(Copier(contaminated), network=digitnet(), n=200, real=real)


def test_a_generator_that_has_seen_a_held_out_image_is_refused_without_real_images_too(real: RealData) -> None:
    """The identities of MNIST's test images are shipped with their statistics."""

    class Contaminated(Copier):
        def seen(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
            return hashes == shipped_reference().hashes[1234]

    with pytest.raises(InvalidInputError, match="was trained on 1 of the 10000 held-out images"):
        assess(Contaminated(real.train), network=digitnet(), n=200)


def test_a_card_that_names_the_held_out_images_as_training_data_is_refused(real: RealData) -> None:
    with pytest.raises(InvalidInputError, match="was trained on all of the"):
        assess(Copier(real.train, sha256=real.test.sha256), network=digitnet(), n=200, real=real)


def test_images_that_are_themselves_held_out_are_refused(real: RealData) -> None:
    images = ImageSet(real.test.images, real.test.labels, "test images")
    with pytest.raises(InvalidInputError, match="are themselves held-out images"):
        assess(images, network=digitnet(), n=200, real=real)


def test_a_generator_of_other_classes_is_refused(real: RealData) -> None:
    with pytest.raises(InvalidInputError, match="makes the classes shirt"):
        assess(Copier(real.train, class_names=("shirt",) * 10), network=digitnet(), n=200)


def test_images_of_unknown_origin_and_without_labels_are_measured_with_a_note(real: RealData) -> None:
    images = ImageSet(real.train.images, None, "some images")

    report = assess(images, network=digitnet(), n=300, real=real)

    assert report.generator_id is None
    assert report.left_out["agreement"] == "the images have no labels"
    assert "some images does not say what its generator was trained on" in report.notes


def test_other_features_have_no_shipped_statistics_and_no_probabilities(real: RealData) -> None:
    pooled = CallableFeatures(
        name="pooled", function=lambda images: images.reshape(len(images), 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)
    )
    images = ImageSet(real.train.images, real.train.labels, "some images")

    with pytest.raises(InvalidInputError, match="the shipped statistics are for the features digitnet-64, not pooled"):
        assess(images, network=pooled, n=300)
    report = assess(images, network=pooled, n=300, real=real)

    assert measurements(report)["distance"].name == "fd[pooled]@300"
    assert report.left_out["score"] == "the feature network does not classify these images"


def test_a_metric_that_cannot_be_computed_does_not_stop_the_others(real: RealData) -> None:
    """Sixty images are too few for a covariance of 64 features. Metrics without a covariance are computed."""
    images = ImageSet(real.train.images, real.train.labels, "some images")

    report = assess(images, network=digitnet(), n=60, real=real)

    assert report.left_out["distance"] == "needs at least 65 generated images; there are 60"
    assert report.left_out["extrapolated"] == "needs at least 256 generated images; there are 60"
    assert {"precision", "recall", "kernel", "agreement", "score", "authenticity"} <= set(measurements(report))


def test_too_few_held_out_images_for_a_covariance_leave_the_distance_out(real: RealData) -> None:
    few = RealData(train=real.train, test=real.test.subset(np.arange(60)))
    images = ImageSet(real.train.images, real.train.labels, "some images")

    report = assess(images, network=digitnet(), n=100, real=few)

    assert report.left_out["distance"] == "needs at least 65 held-out images"
    assert (report.reference_n, report.classes) == (60, ())
    assert measurements(report)["precision"].training_floor is not None


@pytest.mark.parametrize(("each", "held_out"), [(3, 1), (6, 2), (12, 4)])
def test_any_number_of_images_gives_a_report_and_reasons(real: RealData, each: int, held_out: int) -> None:
    """No metric takes the others with it. Every metric has a value or a reason."""

    def first(dataset: Dataset, count: int) -> Dataset:
        return dataset.subset(np.concatenate([np.flatnonzero(dataset.labels == label)[:count] for label in range(10)]))

    few = RealData(train=first(real.train, each), test=first(real.test, held_out))
    source = ImageSet(real.train.images[::5], real.train.labels[::5], "some images")
    for network in (digitnet(), PixelComponents(few.train)):
        report = assess(source, network=network, real=few)

        assert report.n == 10 * each // 2
        assert {found.key for found in report.figures} | set(report.left_out) == set(METRICS)
        assert {"kernel", "precision", "recall", "authenticity"} <= set(measurements(report))
        assert all(np.isfinite(found.value) for found in report.figures)
        assert all(report.left_out.values())
    assert f"there are only {10 * held_out} held-out images" in " ".join(report.notes)


def test_real_images_of_one_look_leave_out_what_needs_different_ones(real: RealData) -> None:
    """All held-out images are equal, as if a folder held copies."""
    copies = RealData(train=real.train, test=real.test.subset(np.zeros(30, np.int64)))
    source = ImageSet(real.train.images, None, "some images")

    report = assess(source, network=digitnet(), n=100, real=copies)

    assert {found.key for found in report.figures} | set(report.left_out) == set(METRICS)
    assert "the same" in report.left_out["precision"]
    assert "authenticity" in measurements(report)


def test_each_class_has_its_label_agreement_beside_that_of_real_images(real: RealData) -> None:
    labels = real.train.labels.copy()
    labels[labels == 3] = 8  # every 3 is called an 8
    labels[np.flatnonzero(real.train.labels == 8)] = 3

    report = assess(ImageSet(real.train.images, labels, "swapped"), network=digitnet(), n=300, real=real)

    agreement = {each.title: each.figure for each in report.agreements}
    assert list(agreement) == list(DIGITS)
    assert agreement["3"].value < 0.2
    assert agreement["5"].value > 0.8
    for one in agreement.values():
        assert unseen(one).mean >= 0.5  # half of the 1s: they have a foot, unlike MNIST's
        assert (unseen(one).n, floor(one).n) == (20, 60)
    assert report.features_accuracy is not None
    assert report.features_accuracy == pytest.approx(np.mean([unseen(one).mean for one in agreement.values()]))


def test_half_the_training_images_are_the_default_number(generator: SavedGenerator, real: RealData) -> None:
    report = assess(generator, network=digitnet(), real=real)

    assert report.n == len(real.train) // 2
    assert floor(measurements(report)["distance"]).n == report.n


def test_n_of_zero_is_an_error(real: RealData) -> None:
    images = ImageSet(real.train.images, real.train.labels, "some images")
    with pytest.raises(InvalidInputError, match="n is 0"):
        assess(images, network=digitnet(), n=0, real=real)


def test_a_generator_that_makes_only_one_image_is_refused(real: RealData) -> None:
    class Stuck(Copier):
        def draw(self, n: int, *, proportions: tuple[int, ...], seed: int, expansion: float | None = None) -> Drawn:
            return Drawn(images=np.repeat(self._known.images[:1], n, axis=0), labels=None)

    with pytest.raises(InvalidInputError, match="rows of the generated features are the same"):
        assess(Stuck(real.train), network=digitnet(), n=200, real=real)


def test_a_generator_that_makes_one_image_per_bin_of_its_own_partition_has_missing_modes(all_digits: RealData) -> None:
    """It repeats one image of each bin of seed 0, as often as the bin has images."""
    digits, each = all_digits.train, 6  # the number of bins that `assess` uses for so few images
    (clusters,) = find_bins(digits, each, seeds=[0])
    trained_on = make_bins(pixels=digits.images, labels=digits.labels, clusters=clusters)
    rows = []
    for label, cluster in np.ndindex(10, each):
        (members,) = np.nonzero((digits.labels == label) & (clusters == cluster))
        away = digits.images[members].reshape(len(members), -1) - trained_on.centers[label, cluster]
        rows += [members[(away**2).sum(axis=1).argmin()]] * len(members)
    collapsed = digits.subset(np.array(rows))
    assert len(np.unique(rows)) == 10 * each
    counts = count_images(trained_on.centers, pixels=collapsed.images, labels=collapsed.labels)
    assert missing_share(trained_on.counts, counts) == 0

    report = assess(
        ImageSet(collapsed.images, collapsed.labels, "collapsed"),
        network=digitnet(),
        n=1000,
        real=all_digits,
    )

    found = measurements(report)["missing"]
    assert found.name == "missing_modes[pixels]@1k"
    assert found.value > 0.05
    assert interval(found)[0] > 0.02  # real digits score less, see below
    assert found.unseen_floor is None  # there are too few test images to notice a missing bin


def test_real_digits_have_no_missing_modes(all_digits: RealData) -> None:
    digits = all_digits.train
    report = assess(ImageSet(digits.images, digits.labels, "real"), network=digitnet(), n=1000, real=all_digits)

    found = measurements(report)["missing"]
    assert found.value < 0.02


def test_missing_modes_are_left_out_with_the_number_of_images_that_are_needed(all_digits: RealData) -> None:
    digits = all_digits.train
    images = ImageSet(digits.images, digits.labels, "real")

    why = assess(images, network=digitnet(), n=300, real=all_digits).left_out["missing"]

    reason = re.match(r"needs at least (\d+) generated images; with 300, Fisher's test can notice", why)
    assert reason
    assert "missing" in measurements(assess(images, network=digitnet(), n=int(reason[1]) + 10, real=all_digits))


def test_the_interval_of_missing_modes_covers_the_choice_of_partitions() -> None:
    shares = np.array([0.1, 0.0, 0.0])

    found = missing_modes_interval(shares, np.tile(shares, (200, 1)))

    assert found is not None
    assert list(found) == [0, pytest.approx(t_interval(shares).high)]
    assert missing_modes_interval(np.zeros(3), np.zeros((200, 3))) is None  # nothing varies
