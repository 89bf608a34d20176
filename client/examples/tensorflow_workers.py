"""Train with TensorFlow on several machines. Each worker requests its own part of the digits.

    export TF_CONFIG='{"cluster": {"worker": ["one:9000", "two:9000"]}, "task": {"type": "worker", "index": 0}}'
    python tensorflow_workers.py --server localhost:8500

Run it on every worker, each with its own index. The training step is written out here, because `fit` of Keras 3 does
not support this strategy: https://github.com/keras-team/keras/issues/20585.
"""

import argparse

import keras
import tensorflow as tf

from digitforge_client import DigitClient
from digitforge_client.adapters.tensorflow import dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--n", type=int, default=10_000, help="images in an epoch of all workers")
    parser.add_argument("--batch-size", type=int, default=128, help="images in a step of all workers")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)])
        optimizer = keras.optimizers.Adam()
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")

    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(tf.cast(images, tf.float32) / 255)) / options.batch_size
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    @tf.function
    def train(*batch: tf.Tensor) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(step, args=batch), axis=None)

    with DigitClient(options.server) as client:
        digits = strategy.distribute_datasets_from_function(
            lambda worker: dataset(
                client,
                options.n,
                batch_size=worker.get_per_replica_batch_size(options.batch_size),
                rank=worker.input_pipeline_id,
                world_size=worker.num_input_pipelines,
                seed=0,
            )
        )
        for epoch in range(options.epochs):
            losses = [float(train(*batch)) for batch in digits]
            print(f"epoch {epoch}: loss {sum(losses) / len(losses):.6f}")


if __name__ == "__main__":
    main()
