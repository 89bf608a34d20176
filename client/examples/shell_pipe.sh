#!/bin/sh
# Digits through a pipe: two NumPy arrays, images and labels, one after the other; nothing is written to disk.
#
#     digitforge serve &
#     DIGITFORGE_SERVER=localhost:8500 ./shell_pipe.sh
set -eu

digitforge sample --n "${1:-500}" --seed 7 --out - | python -c '
import io, sys
import numpy as np

pipe = io.BytesIO(sys.stdin.buffer.read())
images, labels = np.load(pipe), np.load(pipe)
for digit in range(10):
    print(digit, "mean gray level", round(images[labels == digit].mean(), 1))
'
