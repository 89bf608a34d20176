"""Draw the README's picture: real test digits on the left, the shipped generator's on the right.

    DIGITFORGE_DATA_DIR=… python evaluation/pictures/draw.py

Nothing is picked by hand: the first eight test images of each class, and rows 0 to 79 of seed 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from digitforge_client import DigitClient
from digitforge_client.common.shipped import shipped_models
from digitforge_serving import EmbeddedServer
from digitforge_training.data import load
from digitforge_training.runs.pictures import save_png, sheet

ROWS, CLASSES, GAP = 8, 10, 24
PICTURE = Path(__file__).with_name("real-and-generated.png")

test = load("mnist", split="test")
of_class = [np.flatnonzero(test.labels == k)[:ROWS] for k in range(CLASSES)]
real = test.images[np.stack(of_class, axis=1).ravel()]
with EmbeddedServer(shipped_models() / "digits") as target, DigitClient(target) as client:
    generated = client.sample(ROWS * CLASSES, seed=0).images[..., None]

left, right = sheet(real, CLASSES), sheet(generated, CLASSES)
both = Image.new("LA", (left.width + GAP + right.width, left.height), (0, 0))  # nothing between them on any page
both.paste(left.convert("LA"), (0, 0))
both.paste(right.convert("LA"), (left.width + GAP, 0))
save_png(both.resize((both.width * 3 // 2, both.height * 3 // 2), Image.Resampling.LANCZOS), PICTURE)
