"""The report: every figure with its n, and no generator measured on what it has seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from digitforge_client.contract import image_hashes
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.statistics import t_interval
from digitforge_evaluation.features.extract import CallableFeatures, digitnet
from digitforge_evaluation.images.sources import Drawn, ImageSet, SavedGenerator
from digitforge_evaluation.metrics.missing_modes import fill, make_bins, missing_share
from digitforge_evaluation.quality.assess import Measurement, Report, assess
from digitforge_evaluation.quality.comparison import RealData
from digitforge_evaluation.quality.reference import shipped_reference
from digitforge_evaluation.quality.registry import METRICS, of_images_and_partitions
from digitforge_training.gan.clusters import find_bins

DIGITS = tuple("0123456789")


class Copier:
    """A generator whose digits are images it was trained on."""

    name = "copier"

    def __init__(self, known, class_names=DIGITS, sha256="another"):
        self._known = known
        self.card = {"generator_id": "c0", "class_names": list(class_names), "training_data": {"sha256": sha256}}

    def draw(self, n, *, proportions, seed, expansion=None):
        known = ImageSet(self._known.images, self._known.labels, "known")
        return known.draw(n, proportions=proportions, seed=seed, expansion=expansion)

    def seen(self, hashes):
        return np.isin(hashes, image_hashes(self._known.images))


def measurements(report: Report) -> dict[str, Measurement]:
    return {found.key: found for found in report.figures}


def test_a_real_generator_gets_every_figure_that_so_few_images_allow(exported_model, real):
    report = assess(SavedGenerator(exported_model), network=digitnet(), n=300, real=real)

    found = measurements(report)
    assert set(found) == set(METRICS) - {"kernel", "train_on_generated", "train_on_real"}
    assert report.left_out == {
        "kernel": "needs 1000 held-out images",
        "train_on_generated": "takes ten classifiers: give --accuracy and --data",
        "train_on_real": "takes ten classifiers: give --accuracy and --data",
    }
    assert all(figure.n == 300 and np.isfinite(figure.value) for figure in report.figures)
    assert found["distance"].name == "fd[digitnet-64]@300"
    assert found["distance"].value > 10 * found["distance"].real.mean  # six training steps are not enough
    assert found["distance"].real.repeats == 10
    low, high = found["distance"].interval
    assert low < found["distance"].value < high
    json.dumps(report.as_dict())


def test_without_real_images_the_distance_uses_the_shipped_statistics_and_the_rest_is_left_out(exported_model):
    report = assess(SavedGenerator(exported_model), network=digitnet(), n=1000)

    found = measurements(report)
    assert set(found) == {"distance", "extrapolated", "agreement", "score"}
    assert [each.label for each in report.classes] == list(range(10))
    for figure in (*report.figures, *(each.figure for each in report.classes)):
        assert figure.real is not None
        low, high = figure.interval
        assert low <= figure.value <= high
    assert report.reference == "mnist test"
    assert report.reference_n == 10_000
    assert found["distance"].real.n == 1000
    assert report.left_out["recall"] == "needs real images: give --data"


def test_a_size_without_a_floor_says_so(exported_model):
    report = assess(SavedGenerator(exported_model), network=digitnet(), n=700)

    assert measurements(report)["distance"].real is None
    assert any("no floor is known for n = 700" in note for note in report.notes)


def test_a_generator_that_copies_is_found_out(real):
    report = assess(Copier(real.train), network=digitnet(), n=300, real=real)

    authenticity, copying = measurements(report)["authenticity"], measurements(report)["copying"]
    assert authenticity.value == 0
    assert authenticity.real.mean > 0.3
    assert copying.interval[1] < -3 < copying.real.mean
    assert measurements(report)["precision"].value > 0.9  # which alone would look splendid


def test_copies_are_sought_among_the_images_that_the_generator_has_seen(real):
    """Half of the training images are enough to catch a generator that saw only those."""
    half = real.train.subset(np.arange(0, len(real.train), 2))

    report = assess(Copier(half), network=digitnet(), n=200, real=real)

    assert measurements(report)["authenticity"].value == 0


def test_a_generator_that_saw_none_of_the_training_images_cannot_have_copied_them(real):
    class Innocent(Copier):
        def seen(self, hashes):
            return np.zeros(len(hashes), bool)

    report = assess(Innocent(real.train), network=digitnet(), n=200, real=real)

    assert "saw none of the training images" in report.left_out["authenticity"]


def test_a_generator_that_has_seen_a_held_out_image_is_refused(real):
    one = real.test.subset([5])
    spoilt = type(real.train)(
        images=np.concatenate([real.train.images, one.images]),
        labels=np.concatenate([real.train.labels, one.labels]),
        class_names=DIGITS,
        name="spoilt",
        split="train",
    )
    with pytest.raises(InvalidInputError, match=r"was trained on 1 of the .* held-out images"):
        assess(Copier(spoilt), network=digitnet(), n=200, real=real)


def test_it_is_refused_without_real_images_too(real):
    """The identities of MNIST's test images are shipped with their statistics."""

    class Spoilt(Copier):
        def seen(self, hashes):
            return hashes == shipped_reference().hashes[1234]

    with pytest.raises(InvalidInputError, match="was trained on 1 of the 10000 held-out images"):
        assess(Spoilt(real.train), network=digitnet(), n=200)


def test_a_card_that_names_the_held_out_images_as_training_data_is_refused(real):
    with pytest.raises(InvalidInputError, match="was trained on all of the"):
        assess(Copier(real.train, sha256=real.test.sha256), network=digitnet(), n=200, real=real)


def test_images_that_are_themselves_held_out_are_refused(real):
    images = ImageSet(real.test.images, real.test.labels, "test images")
    with pytest.raises(InvalidInputError, match="are themselves among the held-out images"):
        assess(images, network=digitnet(), n=200, real=real)


def test_a_generator_of_other_things_is_not_measured_against_digits(real):
    with pytest.raises(InvalidInputError, match="makes the classes shirt"):
        assess(Copier(real.train, class_names=("shirt",) * 10), network=digitnet(), n=200)


def test_images_of_unknown_origin_are_measured_with_a_note_and_without_labels_too(real):
    images = ImageSet(real.train.images, None, "some images")

    report = assess(images, network=digitnet(), n=300, real=real)

    assert report.generator_id is None
    assert report.left_out["agreement"] == "the images have no labels"
    assert "some images does not say what its generator was trained on" in report.notes


def test_other_features_have_no_shipped_statistics_and_no_probabilities(real):
    pooled = CallableFeatures(
        name="pooled", function=lambda images: images.reshape(len(images), 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)
    )
    images = ImageSet(real.train.images, real.train.labels, "some images")

    with pytest.raises(InvalidInputError, match="the shipped statistics are in the features digitnet-64, not pooled"):
        assess(images, network=pooled, n=300)
    report = assess(images, network=pooled, n=300, real=real)

    assert measurements(report)["distance"].name == "fd[pooled]@300"
    assert report.left_out["score"] == "the feature network cannot tell these classes"


def test_a_metric_that_cannot_be_computed_takes_no_other_with_it(real):
    """Sixty images have no covariance of 64 features; all that needs none is there."""
    images = ImageSet(real.train.images, real.train.labels, "some images")

    report = assess(images, network=digitnet(), n=60, real=real)

    assert report.left_out["distance"] == "needs 65 generated images"
    assert report.left_out["extrapolated"] == "needs 256 generated images"
    assert {"precision", "recall", "missing", "agreement", "score", "authenticity"} <= set(measurements(report))


def test_too_few_held_out_images_for_a_covariance_leave_the_distance_out(real):
    few = RealData(train=real.train, test=real.test.subset(np.arange(60)))
    images = ImageSet(real.train.images, real.train.labels, "some images")

    report = assess(images, network=digitnet(), n=100, real=few)

    assert report.left_out["distance"] == report.left_out["extrapolated"] == "needs 65 held-out images"
    assert (report.reference_n, report.classes) == (60, ())
    assert measurements(report)["precision"].real is not None


def test_no_image_at_all_is_an_error(real):
    images = ImageSet(real.train.images, real.train.labels, "some images")
    with pytest.raises(InvalidInputError, match="n is 0"):
        assess(images, network=digitnet(), n=0, real=real)


def test_a_generator_that_makes_one_image_is_an_error_in_words(real):
    class Stuck(Copier):
        def draw(self, n, *, proportions, seed, expansion=None):
            return Drawn(images=np.repeat(self._known.images[:1], n, axis=0), labels=None)

    with pytest.raises(InvalidInputError, match="a generator that makes one image"):
        assess(Stuck(real.train), network=digitnet(), n=200, real=real)


def test_a_generator_of_the_bins_it_was_trained_on_is_caught_on_others(real: RealData) -> None:
    """It makes one image of each bin of seed 0, as often as the bin has images, and nothing else."""
    digits, each = real.train, 6  # as many bins as `assess` takes of so few images
    (clusters,) = find_bins(digits, each, seeds=[0])
    trained_on = make_bins(pixels=digits.images, labels=digits.labels, clusters=clusters)
    rows = []
    for label, cluster in np.ndindex(10, each):
        (members,) = np.nonzero((digits.labels == label) & (clusters == cluster))
        away = digits.images[members].reshape(len(members), -1) - trained_on.centers[label, cluster]
        rows += [members[(away**2).sum(axis=1).argmin()]] * len(members)
    collapsed = digits.subset(np.array(rows))
    assert len(np.unique(rows)) == 10 * each
    counts = fill(trained_on.centers, pixels=collapsed.images, labels=collapsed.labels)
    assert missing_share(trained_on.counts, counts) == 0

    report = assess(
        ImageSet(collapsed.images, collapsed.labels, "collapsed"),
        network=digitnet(),
        n=1000,
        real=real,
    )

    found = measurements(report)["missing"]
    assert found.name == "missing_modes[pixels]@1k"
    assert found.value > 0.05
    assert found.interval is not None
    assert found.interval[0] <= found.value <= found.interval[1]
    assert found.real is not None
    assert found.real.mean < found.interval[0] / 4


def test_real_digits_lack_no_mode_at_the_same_number_of_images(real: RealData) -> None:
    digits = real.train
    report = assess(ImageSet(digits.images, digits.labels, "real"), network=digitnet(), n=250, real=real)

    found = measurements(report)["missing"]
    assert found.real is not None
    assert (found.value, found.real.mean, found.real.n, found.real.repeats) == (0, 0, 250, 10)
    assert found.interval is None  # nothing varies


def test_the_interval_of_missing_modes_covers_the_choice_of_partitions() -> None:
    shares = np.array([0.1, 0.0, 0.0])

    interval = of_images_and_partitions(shares, np.tile(shares, (10, 1)))

    assert interval == (0, pytest.approx(t_interval(shares).high))
    assert of_images_and_partitions(np.zeros(3), np.zeros((10, 3))) is None  # nothing varies
