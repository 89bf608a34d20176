"""Features and FIDs of torch-fidelity, for verify_fid.py. It runs in an environment with torch-fidelity.

    python reference_fid.py FOLDER [WEIGHTS]

Each folder in FOLDER holds the PNG files of one set of images. Writes FOLDER/reference.npz: for each set its features,
(n, 2048) float32, and for each pair of sets "A/B" their FID. WEIGHTS is a file that torch-fidelity would download.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
from torch_fidelity.datasets import ImagesPathDataset
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

BATCH = 50


def main(folder: Path, weights: str | None = None) -> None:
    """Compute the features of each set and the FID of each pair."""
    try:
        network = create_feature_extractor(
            "inception-v3-compat", ["2048"], cuda=False, verbose=False, feature_extractor_weights_path=weights
        )
    except OSError as error:  # URLError is one
        sys.exit(
            f"cannot get the weights of torch-fidelity: {error}; without a network, give their file with --weights"
        )
    found = {}
    for of_set in sorted(path for path in folder.iterdir() if path.is_dir()):
        images = ImagesPathDataset(sorted(of_set.glob("*.png")))  # converts gray to color
        found[of_set.name] = get_featuresdict_from_dataset(images, network, BATCH, False, True, False)["2048"]
    fids = {}
    for first, second in itertools.combinations(found, 2):
        statistics = (fid_features_to_statistics(found[name]) for name in (first, second))
        fids[f"{first}/{second}"] = fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]
    np.savez(folder / "reference.npz", **{name: features.numpy() for name, features in found.items()}, **fids)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
