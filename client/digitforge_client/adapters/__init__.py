"""Adapters for other libraries. Import the module that you need; each one needs only its own library.

* ``mixing``: batches that mix real and synthetic images, with fresh synthetic digits in each epoch.
* ``keras``: the same batches as a ``keras.utils.PyDataset``.
* ``torch``: synthetic digits as a PyTorch ``IterableDataset``, also for DataLoader workers.
* ``tensorflow``: synthetic digits as a ``tf.data.Dataset``.
* ``imblearn``: a sampler for scikit-learn and imbalanced-learn pipelines.
"""
