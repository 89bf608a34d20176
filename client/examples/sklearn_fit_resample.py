"""Teach a classifier a class of which you have a single image, with synthetic digits.

    digitforge serve &
    python sklearn_fit_resample.py --server localhost:8500

Each of ten training sets has 100 real images per class, but only one 8. An SVM learns nothing about eights from one
image. The generator that comes with digitforge has seen all eights of MNIST's training images. So this shows what a
generator brings that knows the class better than you do. The test images are MNIST's: neither the generator nor the
classifier has seen them.
"""

import argparse

import numpy as np
from scipy import stats
from sklearn.metrics import recall_score
from sklearn.svm import SVC

import digitforge

PER_CLASS = 100


def training_set(labels: np.ndarray, rare: int, seed: int) -> np.ndarray:
    """Rows of a random training set: 100 images of each class, and one image of the rare class."""
    rng = np.random.default_rng(seed)
    counts = {label: 1 if label == rare else PER_CLASS for label in np.unique(labels)}
    return np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:n] for label, n in counts.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--data", default="mnist", help="mnist, digits, or a file or folder of images")
    parser.add_argument("--rare", type=int, default=8, help="class with a single image")
    parser.add_argument("--subsets", type=int, default=10)
    options = parser.parse_args()

    train, test = (digitforge.load_data(options.data, split=split) for split in ("train", "test"))
    X_train, X_test = (data.images.reshape(len(data), -1) for data in (train, test))
    recalls: dict[str, list[float]] = {"real only": [], "with synthetic digits": []}
    for seed in range(options.subsets):
        rows = training_set(train.labels, options.rare, seed)
        X, y = X_train[rows], train.labels[rows]
        sampler = digitforge.GeneratedDigitsSampler(options.server, random_state=seed)  # fills up the rare class
        for name, (images, labels) in zip(recalls, ((X, y), sampler.fit_resample(X, y)), strict=True):
            found = SVC().fit(images / 255, labels).predict(X_test / 255)
            recalls[name].append(recall_score(test.labels, found, labels=[options.rare], average=None)[0])

    for name, values in recalls.items():
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        print(f"{name:<22} recall of class {options.rare}: {np.mean(values):.3f} ± {half:.3f}")
    print(
        f"mean ± 95 % interval over {options.subsets} training sets, {np.sum(test.labels == options.rare)} test images"
    )


if __name__ == "__main__":
    main()
