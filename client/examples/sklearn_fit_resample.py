"""Balance a training set that has only a few threes with synthetic digits.

    digitforge serve &
    python sklearn_fit_resample.py --server localhost:8500

The real images are scikit-learn's own handwritten digits, enlarged to 28 × 28. Synthetic digits help more if the
generator's training data resemble your data. Measure the effect on images that neither the generator nor the classifier
has seen, as in this example.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import train_test_split

from digitforge_client import GeneratedDigitsSampler


def enlarged(images: np.ndarray) -> np.ndarray:
    """Enlarge images three times and add a margin of 2 pixels: (n, 8, 8) in 0 … 16 => (n, 784) in 0 … 1."""
    large = np.kron(images / 16, np.ones((1, 3, 3)))
    return np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(len(images), -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:8500")
    server = parser.parse_args().server

    digits = load_digits()
    X, X_test, y, y_test = train_test_split(
        enlarged(digits.images), digits.target, test_size=0.5, random_state=0, stratify=digits.target
    )
    removed = np.flatnonzero(y == 3)[5:]  # keep only five threes
    X, y = np.delete(X, removed, axis=0), np.delete(y, removed)

    sampler = GeneratedDigitsSampler(server, sampling_strategy={3: 60}, pixel_range=(0, 1))
    X_more, y_more = sampler.fit_resample(X, y)

    for name, images, labels in (("real only", X, y), ("with synthetic threes", X_more, y_more)):
        model = LogisticRegression(max_iter=200).fit(images, labels)
        recall = recall_score(y_test, model.predict(X_test), average=None)[3]
        print(f"{name:<22} {len(labels):>4} images, {np.sum(labels == 3):>3} threes: recall of threes {recall:.2f}")


if __name__ == "__main__":
    main()
