"""Compare ``--features inception`` with torch-fidelity, on the same images. ``make verify-fid`` runs this.

It needs a network, for the two files of the Inception network: the original graph, which we use, and torch-fidelity's
weights, which were converted from it. The images are MNIST's first training images, its first test images, and digits
of the shipped generator with fixed seeds. Prints a table, and exits with 1 if a difference is too large.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from digitforge_client.errors import DataError, DigitforgeError
from digitforge_evaluation.features.extract import FeatureNetwork
from digitforge_evaluation.features.inception import FEATURES, Inception
from digitforge_evaluation.images.sources import SavedGenerator
from digitforge_evaluation.metrics.frechet import frechet_distance, gaussian
from digitforge_training.data import load

#: Largest difference between two values of the same feature. torch-fidelity's own test against the graph allows 1e-4
#: for 8 images on a CPU. With another resizing, values differ by far more than 1e-3.
FEATURE_TOLERANCE = 1e-3
#: Largest difference between FIDs: this, plus this share of the FID. torch-fidelity sums in another precision.
FID_TOLERANCE = 1e-3
SHIPPED = Path(__file__).parents[2] / "serving" / "models" / "digits"
REFERENCE = Path(__file__).with_name("reference_fid.py")

Images = npt.NDArray[np.uint8]
#: Computes the reference's features of each set, and its FID of each pair "A/B", from a folder with PNG files.
Reference = Callable[[Path], Mapping[str, npt.NDArray[np.floating]]]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One row of the table."""

    name: str  #: what is compared
    ours: float | None  #: our value; None for features
    reference: float | None  #: the reference's value; None for features
    difference: float  #: largest absolute difference
    allowed: float  #: largest difference that passes

    @property
    def passed(self) -> bool:
        """Whether the difference is small enough. False if it is not a number."""
        return self.difference <= self.allowed


def image_sets(n: int) -> dict[str, Images]:
    """The images to compare on: three sets of *n* images, (n, 28, 28, 1) uint8. The generated ones have fixed seeds."""
    generator = SavedGenerator(SHIPPED)
    return {
        "training": load("mnist", split="train").images[:n],
        "test": load("mnist", split="test").images[:n],
        "generated": generator.draw(n, proportions=(1,) * 10, seed=0).images,
    }


def write_png(images: Images, folder: Path) -> None:
    """Write gray images as 00000.png, 00001.png …"""
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[:, :, 0]).save(folder / f"{number:05}.png")


def compare(
    ours: Mapping[str, npt.NDArray[np.floating]], reference: Mapping[str, npt.NDArray[np.floating]]
) -> list[Check]:
    """Compare our features of each set, and our FID of each pair, with the reference's.

    Raises:
        DataError: the reference has other sets, or another number of features.
    """
    checks = []
    for name, features in ours.items():
        if name not in reference or reference[name].shape != features.shape:
            shape = reference[name].shape if name in reference else "none"
            raise DataError(f"the reference's features of the {name} images: {shape}; expected {features.shape}")
        difference = float(np.abs(features - reference[name]).max())
        checks.append(
            Check(
                name=f"features, {name} images",
                ours=None,
                reference=None,
                difference=difference,
                allowed=FEATURE_TOLERANCE,
            )
        )
    moments = {name: gaussian(features, name=name) for name, features in ours.items()}
    for first, second in itertools.combinations(sorted(ours), 2):
        fid = frechet_distance(real=moments[first], generated=moments[second])
        expected = float(reference[f"{first}/{second}"])
        checks.append(
            Check(
                name=f"FID, {first} and {second}",
                ours=fid,
                reference=expected,
                difference=abs(fid - expected),
                allowed=FID_TOLERANCE * (1 + abs(expected)),
            )
        )
    return checks


def verify(sets: Mapping[str, Images], network: FeatureNetwork, reference: Reference) -> list[Check]:
    """Compute features of all *sets* with *network* and with *reference*, and compare."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, images in sets.items():
            write_png(images, folder / name)
        expected = reference(folder)  # first, because it may have to download weights
    return compare({name: network.measure(images).features for name, images in sets.items()}, expected)


def torch_fidelity(python: Path, weights: Path | None) -> Reference:
    """The reference that runs reference_fid.py with the interpreter *python*."""

    def run(folder: Path) -> Mapping[str, npt.NDArray[np.floating]]:
        arguments = [str(python), str(REFERENCE), str(folder), *([str(weights)] if weights else [])]
        try:
            done = subprocess.run(arguments, check=False, stderr=subprocess.PIPE, text=True)
        except OSError as error:
            raise DataError(f"cannot start {python}: {error.strerror}; `make verify-fid` creates it") from error
        if done.returncode:
            why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise DataError(f"torch-fidelity failed: {why}")
        with np.load(folder / "reference.npz") as found:
            return dict(found)

    return run


def table(checks: list[Check]) -> str:
    """The checks as a table of text."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    lines = [f"{'compared':32}{'ours':>10}{'reference':>12}{'difference':>13}{'allowed':>10}"]
    for each in checks:
        lines.append(
            f"{each.name:32}{cell(each.ours):>10}{cell(each.reference):>12}{each.difference:13.2e}{each.allowed:10.1e}"
            f"  {'ok' if each.passed else 'TOO LARGE'}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Compare and print. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Compare --features inception with torch-fidelity.")
    parser.add_argument("--reference-python", type=Path, required=True, help="Python that has torch-fidelity")
    parser.add_argument("--n", type=int, default=5000, help="images in each set, 2049 to 10000 (default 5000)")
    parser.add_argument("--graph", type=Path, help="file of the graph or its archive, instead of a download")
    parser.add_argument("--weights", type=Path, help="file of torch-fidelity's weights, instead of a download")
    options = parser.parse_args(arguments)
    if not FEATURES < options.n <= 10_000:
        parser.error(f"--n is {options.n}; expected {FEATURES + 1} to 10000: a FID needs more images than features")
    try:
        network = Inception(options.graph)  # first, because it fails at once without a network
        checks = verify(image_sets(options.n), network, torch_fidelity(options.reference_python, options.weights))
    except DigitforgeError as error:
        print(f"verify-fid: {error}", file=sys.stderr)
        print("verify-fid: it needs a network, or the files in --graph and --weights", file=sys.stderr)
        return 1
    print(table(checks))
    failed = sum(not each.passed for each in checks)
    print(f"{failed} of {len(checks)} differences are too large" if failed else "all differences are small enough")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
