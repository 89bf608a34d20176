"""Synthetic digits where other libraries expect their data. Each module is imported only on use.

| module | gives | needs |
|---|---|---|
| `mixing` | batches that mix real and synthetic images, fresh ones each epoch | numpy |
| `keras` | the same as a ``keras.utils.PyDataset`` | keras |
| `torch` | a PyTorch ``IterableDataset`` of synthetic digits, safe in DataLoader workers | torch |
| `tensorflow` | a ``tf.data.Dataset`` of synthetic digits | tensorflow |
"""
