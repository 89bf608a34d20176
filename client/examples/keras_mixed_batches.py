"""Train a Keras model on batches that are half real and half synthetic, with fresh synthetic digits in every epoch.

    digitforge serve &
    python keras_mixed_batches.py --server localhost:8500

The real images are scikit-learn's own handwritten digits, enlarged to 28 × 28.
"""

import argparse

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from digitforge_client import DigitClient
from digitforge_client.adapters.keras import MixedDataset
from digitforge_client.adapters.mixing import MixedBatches


def enlarged(images: np.ndarray) -> np.ndarray:
    """Enlarge images three times and add a margin of 2 pixels: (n, 8, 8) in 0 … 16 => (n, 28, 28, 1) in 0 … 1."""
    large = np.kron(images / 16, np.ones((1, 3, 3)))
    return np.pad(large, ((0, 0), (2, 2), (2, 2)))[..., np.newaxis].astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()

    digits = load_digits()
    X, X_test, y, y_test = train_test_split(enlarged(digits.images), digits.target, test_size=0.5, random_state=0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(16, 5, strides=2, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    with DigitClient(options.server) as client:
        batches = MixedBatches(client, X, y, batch_size=64, synthetic=0.5, pixel_range=(0, 1))
        model.fit(MixedDataset(batches), epochs=options.epochs, verbose=2)
    _, accuracy = model.evaluate(X_test, y_test, verbose=0)
    print(f"accuracy on {len(y_test)} real images: {accuracy:.3f}")


if __name__ == "__main__":
    main()
