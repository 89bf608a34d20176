"""Take digitforge through images that are not MNIST, from training to the report. ``make other-images`` runs this.

Makes five data sets, and runs every command on each: train, export, serve, sample, evaluate, experiment, report. It
prints each command, and a table of the outcomes at the end. Trainings are short, so the generators are poor. The point
is that every command works, and that the verdicts say so. Finished work in the folder is kept.

    python tests/end_to_end/other_images.py --out runs/other-images [--only shapes] [--steps 1000]
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from digitforge_evaluation.demo.server_process import serving

Images = npt.NDArray[np.uint8]
LETTERS = "ABCDEFGHIJ"
#: Fonts of matplotlib with all letters.
FONTS = (
    *(f"DejaVuSans{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmb10", "cmr10", "cmss10", "cmti10", "cmtt10"),
)


@dataclass(frozen=True, kw_only=True)
class Set:
    """One data set."""

    name: str
    make: Callable[[Path], None] | None  #: writes it; None for one that digitforge knows by name
    source: str  #: for --data: a name, or the file or folder that `make` writes
    options: str = ""  #: how images are fitted


def small_digits(path: Path) -> None:
    """scikit-learn's 1 797 digits as they are: 8×8 pixels, from 0 to 16."""
    from sklearn.datasets import load_digits

    found = load_digits()
    np.savez_compressed(path, images=np.rint(found.images * 255 / 16).astype(np.uint8), labels=found.target)


def shapes(folder: Path) -> None:
    """Colored shapes in three unbalanced classes, as PNG files of 32×32 pixels."""
    rng = np.random.default_rng(0)
    for name, count in (("circle", 800), ("square", 300), ("triangle", 100)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            back, front = rng.integers(0, 90, 3), rng.integers(130, 256, 3)
            picture = Image.new("RGB", (128, 128), tuple(map(int, back)))
            radius, (x, y) = rng.uniform(28, 48), rng.uniform(52, 76, 2)
            draw, color, turn = ImageDraw.Draw(picture), tuple(map(int, front)), float(rng.uniform(0, 360))
            if name == "circle":
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
            else:
                draw.regular_polygon((x, y, radius), 4 if name == "square" else 3, rotation=turn, fill=color)
            picture.resize((32, 32), Image.Resampling.BICUBIC).save(folder / name / f"{i}.png")


def letters(path: Path) -> None:
    """The letters A to J in 21 fonts that matplotlib ships, each slightly turned six times: 28×28 pixels in gray."""
    rng, images, labels = np.random.default_rng(0), [], []
    folder = files("matplotlib").joinpath("mpl-data", "fonts", "ttf")
    for name in FONTS:
        font = ImageFont.truetype(str(folder.joinpath(f"{name}.ttf")), 80)
        for letter in LETTERS:
            for _ in range(6):
                picture = Image.new("L", (112, 112))
                ImageDraw.Draw(picture).text((56, 56), letter, font=font, fill=255, anchor="mm")
                turned = picture.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC)
                images.append(np.asarray(turned.resize((28, 28), Image.Resampling.BICUBIC)))
                labels.append(letter)
    np.savez_compressed(path, x=np.stack(images), y=np.array(labels))


def photos(folder: Path) -> None:
    """Patches of 48×40 pixels from three photographs that scikit-learn and matplotlib ship, as JPEG files."""
    found = {
        "china": files("sklearn.datasets.images").joinpath("china.jpg"),
        "flower": files("sklearn.datasets.images").joinpath("flower.jpg"),
        "portrait": files("matplotlib").joinpath("mpl-data", "sample_data", "grace_hopper.jpg"),
    }
    width, height = 48, 40
    for name, path in found.items():
        (folder / name).mkdir(parents=True)
        photo = Image.open(str(path)).convert("RGB")
        for top in range(0, photo.height - height + 1, height):
            for left in range(0, photo.width - width + 1, width):
                patch = photo.crop((left, top, left + width, top + height))
                patch.save(folder / name / f"{top}-{left}.jpg", quality=95)


SETS = (
    Set(name="digits-16", make=small_digits, source="digits-8x8.npz", options="--size 16"),
    Set(name="digits-28", make=small_digits, source="digits-8x8.npz", options="--size 28"),
    Set(name="shapes", make=shapes, source="shapes"),
    Set(name="letters", make=letters, source="letters.npz"),
    Set(name="photos", make=photos, source="photos", options="--size 32"),
)


def take(each: Set, out: Path, *, steps: int) -> dict[str, Any]:
    """Run all commands on one set, and return the outcome."""
    data = Path(each.source)
    if each.make:
        data = out / "data" / each.source
        data.parent.mkdir(parents=True, exist_ok=True)
        if not data.exists():
            each.make(data)
    given, folder = f"--data {shlex.quote(str(data))} {each.options}".strip(), out / each.name
    models = folder / "models"
    command(f"train --recipe forge-small --steps {steps} {given} --out {folder / 'run'}")
    if not models.exists():
        command(f"export {folder / 'run'} --to {models}")
    print(f"+ digitforge serve --model {models}", flush=True)
    with serving(models) as target:
        server = f"--server {target}"
        samples = folder / "samples"
        if not samples.exists():
            command(f"sample {server} --n 60 --seed 0 --format files --out {samples}")
        page = folder / "report.html"
        report = json.loads(command(f"evaluate {server} {given} --out {page} --json"))
        experiment = folder / "experiment"
        command(
            f"experiment run {server} {given} --n-per-class 10 --steps 150 --arms real,classical,gan,classical+gan "
            f"--out {experiment}"
        )
    command(f"experiment report {experiment}")
    result = json.loads((experiment / "report.json").read_text("utf-8"))
    outcome = {"name": each.name, "command": given, "report": report, "verdicts": result["verdicts"]}
    outcome |= {"compared": [each for each in result["comparisons"] if each["primary"]]}
    outcome |= {"arms": result["arms"], "data": result["identity"]["data"]}
    outcome["sampled_classes"] = sorted(path.name for path in samples.iterdir())
    (folder / "outcome.json").write_text(json.dumps(outcome, indent=1))
    return outcome


def command(line: str) -> str:
    """Run ``digitforge`` and return its standard output."""
    print(f"+ digitforge {line}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "digitforge", *shlex.split(line)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"it ended with exit status {done.returncode}")
    if "--json" not in line:
        print(done.stdout, flush=True)
    return done.stdout


def row(outcome: dict[str, Any]) -> Iterator[str]:
    """The cells of a row of the table."""
    report = outcome["report"]
    found = {each["key"]: each for each in report["figures"]}
    yield outcome["name"]
    yield f"{outcome['data']['pool_images']} + {report['reference_n']}"
    accuracy = report["features_accuracy"]
    yield report["features"] + ("" if accuracy is None else f", {accuracy:.1%}")
    for key in ("distance", "precision", "recall", "agreement", "authenticity"):
        one = found.get(key)
        if one is None:
            yield "–"
            continue
        floor = one["training_floor"] if key in ("distance", "precision", "recall") else one["unseen_floor"]
        yield (
            f"{one['value']:.3g}"
            + (f" ({floor['mean']:.3g})" if floor else "")
            + (f", n = {one['n']}" if key == "distance" else "")
        )
    for each in outcome["compared"]:
        low, high = each["interval"]["low"], each["interval"]["high"]
        yield f"{100 * each['difference']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
    yield " ".join(outcome["verdicts"])


TITLES: tuple[str, ...] = ("set", "training + held-out images", "features, held-out accuracy", "fd (training floor)")
TITLES += ("precision (training floor)", "recall (training floor)", "label agreement (real)", "authenticity (real)")
TITLES += ("classical+gan − classical, points", "verdict")


def main() -> None:
    """Run the sets and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/other-images"))
    parser.add_argument("--only", choices=[each.name for each in SETS], action="append")
    parser.add_argument("--steps", type=int, default=1000, help="training steps of each generator")
    arguments = parser.parse_args()
    chosen = [each for each in SETS if not arguments.only or each.name in arguments.only]
    outcomes = [take(each, arguments.out, steps=arguments.steps) for each in chosen]
    print("| " + " | ".join(TITLES) + " |\n" + "|---" * len(TITLES) + "|")
    for outcome in outcomes:
        print("| " + " | ".join(row(outcome)) + " |")


if __name__ == "__main__":
    main()
