"""Recognizes trainings that fail, from their running statistics.

| trouble | symptom |
|---|---|
| ``noise`` | images stay much rougher than real ones, or more than twice as far from them as the mean real image |
| ``discriminator`` | the discriminator's loss has collapsed to zero |
| ``collapse`` | generated images differ little from each other, or miss most modes of the real images |
| ``decline`` | the distance from real images, or the judge's score, has become much worse than it was |
| ``overflow`` | a loss is NaN or infinite |

`image_statistics` compares a few hundred generated images with as many real ones. It takes milliseconds and needs no
pretrained network, so the loop calls it at every sheet. It separates failing from good trainings and cannot rank good
ones. `diagnose` reads these numbers and the losses. Its thresholds were set on good and failing trainings on MNIST:
after a quarter of its steps, a good training clears every threshold by about a third.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from digitforge_training.recipes import Recipe

Name = Literal["noise", "discriminator", "collapse", "decline", "overflow"]
Report = Mapping[str, Any]  # one line of stats.jsonl
Images = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float64]

FEWEST_IMAGES: Final = 50  # fewer real images make the statistics too noisy
_SIDE = 7  # pixels, side of the averaged images
_NEIGHBORS = 5  # for coverage

_EARLIEST = 16_000  # images; before, every training shows noise and a winning discriminator
_WARM_UP = 0.25  # share of the training during which noise and collapse are normal
_PATIENCE = 2  # sheets over which the pixel distance is compared
_BETTER = 0.9  # a training still improves if the pixel distance falls below this share within `_PATIENCE` sheets
_ROUGH = 1.75  # roughness above which images are noise; untrained networks: 2.9 to 5.2
_FAR = 2.0  # pixel distance above which images are noise; mean real image, repeated: 1; untrained networks: 4 or more
_UNIFORM = 0.4  # variety below which the generator has collapsed
_UNVARIED = 0.9  # variety below which it has collapsed if coverage is also below `_UNCOVERED`
_UNCOVERED = 0.25  # coverage for `_UNVARIED`
_WON = 0.05  # the discriminator has won if its loss is below this share of `_UNDECIDED`
_WON_SHARE = 0.01  # share of the training over which the loss is averaged
_WORSE = 1.5  # quality has declined if it is this many times worse than the best; both are medians of three values
_SLACK = {"pixel_distance": 0.05, "judge": 0.0}  # sampling noise of 400 images (real against real: 0.03)
_DECLINING = {"pixel_distance": "pixel distance", "judge": "judge's score"}

#: The discriminator's loss while it cannot tell real from generated images. WGAN's loss has no such value.
_UNDECIDED = {
    "minimax": 1.386,
    "non-saturating": 1.386,
    "relativistic": 0.693,
    "least-squares": 0.25,
    "hinge": 2.0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trouble:
    """One problem of a training."""

    name: Name  #: Short name, as in the table above.
    seen: str  #: What is wrong, with the numbers that show it.
    remedy: str  #: What to try, as options of ``digitforge train``.


def image_statistics(*, real: Images, generated: Images, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Compare generated with real images. Both have the same classes in the same order.

    Args:
        real: (n, H, W, C) uint8.
        generated: (n, H, W, C) uint8.
        labels: (n,) int64, classes of both. Without classes, the same number for all images.

    Returns:
        An empty dictionary for fewer than 50 images, or if all real images are equal. Otherwise:

        * ``roughness``: mean difference of neighboring pixels ÷ standard deviation of pixels, relative to real images.
          1 is right, noise is above 2.
        * ``variety``: mean distance between two images of a class, relative to real images. 1 is right, 0 means that
          all images are equal.
        * ``coverage``: share of real images that have a generated image nearer than their fifth nearest neighbor
          (Naeem et al. 2020, arXiv:2002.09797), on images averaged down to 7 × 7. Near 1 for real images.
        * ``pixel_distance``: Fréchet distance between Gaussians fitted to the averaged images ÷ total variance of the
          real ones. 0 is right, apart from sampling noise. The mean real image, repeated, scores 1.
    """
    if len(real) < FEWEST_IMAGES or not np.ptp(real, axis=0).any():
        return {}
    averaged_real, averaged_generated = _averaged(real), _averaged(generated)
    return {
        "roughness": _roughness(generated) / _roughness(real),
        "variety": _variety(generated, labels) / max(_variety(real, labels), 1e-9),
        "coverage": _coverage(real=averaged_real, generated=averaged_generated),
        "pixel_distance": _frechet(averaged_real, averaged_generated) / float(averaged_real.var(axis=0, ddof=1).sum()),
    }


def _averaged(images: Images) -> _Floats:
    """(n, H, W, C) uint8 => (n, 7 · 7 · C) in [0, 1], means over cells of nearly equal size."""
    edges = np.linspace(0, images.shape[1], _SIDE + 1).round().astype(int)[:-1]
    sizes = np.diff([*edges, images.shape[1]])
    sums = np.add.reduceat(np.add.reduceat(images / 255.0, edges, axis=1), edges, axis=2)
    means: _Floats = sums / (sizes[:, None, None] * sizes[None, :, None])
    return means.reshape(len(images), -1)


def _roughness(images: Images) -> float:
    pixels = images / 255.0
    steps = [np.abs(np.diff(pixels, axis=axis)).mean() for axis in (1, 2)]
    return float(np.mean(steps) / max(pixels.std(), 1e-9))


def _variety(images: Images, labels: npt.NDArray[np.int64]) -> float:
    flat = images.reshape(len(images), -1) / 255.0
    pairs = (labels[:, None] == labels[None, :]) & ~np.eye(len(labels), dtype=bool)
    if not pairs.any():  # one image of each class
        pairs = ~np.eye(len(labels), dtype=bool)
    return float(_distances(flat, flat)[pairs].mean())


def _coverage(*, real: _Floats, generated: _Floats) -> float:
    radius = np.sort(_distances(real, real), axis=1)[:, _NEIGHBORS]  # index 0 is the image itself
    return float((_distances(real, generated).min(axis=1) < radius).mean())


def _distances(a: _Floats, b: _Floats) -> _Floats:
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2.0 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))


def _frechet(a: _Floats, b: _Floats) -> float:
    """‖μ − μ'‖² + tr(Σ + Σ' − 2 (Σ Σ')^½). Uses the symmetric Σ^½ Σ' Σ^½, which has the eigenvalues of Σ Σ'."""
    difference = a.mean(axis=0) - b.mean(axis=0)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0.0)).sum()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2.0 * cross)


def diagnose(history: Sequence[Report], *, recipe: Recipe, judged: bool = False) -> list[Trouble]:
    """List the troubles that a training has now.

    Args:
        history: the reports so far, at least one, as in ``stats.jsonl``. Each has ``images``, ``discriminator_loss``
            and ``generator_loss``. Some have the results of `image_statistics`, and ``judge``, the judge's score (lower
            is better). The last has ``ended`` if the training ends before its last step.
        recipe: the recipe of the training.
        judged: whether a judge keeps the best checkpoint.
    """
    if not math.isfinite(history[-1]["discriminator_loss"] + history[-1]["generator_loss"]):
        return [_overflow(recipe)]
    if history[-1]["images"] < _EARLIEST:
        return []
    found = [_discriminator_has_won(history, recipe)]
    if "roughness" in history[-1]:
        found += _faults_of_images(history, recipe)
    if "roughness" in history[-1] or "judge" in history[-1]:
        found.append(_decline(history, recipe, judged))
    return [trouble for trouble in found if trouble is not None]


def _discriminator_has_won(history: Sequence[Report], recipe: Recipe) -> Trouble | None:
    images = history[-1]["images"]
    span = max(_EARLIEST, _WON_SHARE * recipe.steps * recipe.images_per_step)
    undecided = _UNDECIDED.get(recipe.loss)
    if undecided is None or images < span:
        return None
    losses = []
    for report in reversed(history):
        if report["images"] <= images - span:
            break
        # Leave out the class loss, which is part of the discriminator's loss.
        classes = recipe.auxiliary_discriminator * report.get("class_loss_real", 0.0)
        losses.append(report["discriminator_loss"] - classes)
    loss = statistics.fmean(losses)
    if not loss < _WON * undecided:
        return None
    return Trouble(
        name="discriminator",
        seen=f"the discriminator's loss has collapsed to {loss:.3f} (undecided: {undecided:.2f}), so the generator "
        "learns almost nothing from it",
        remedy=_against_winning_discriminator(recipe),
    )


def _overflow(recipe: Recipe) -> Trouble:
    return Trouble(
        name="overflow",
        seen="a loss is NaN or infinite, and this training will not recover",
        remedy=f"train into a new folder with --set learning_rate={recipe.learning_rate / 10:g}, or --set clip_value=1",
    )


def _faults_of_images(history: Sequence[Report], recipe: Recipe) -> list[Trouble]:
    *before, report = (report for report in history if "roughness" in report)
    total = recipe.steps * recipe.images_per_step
    if report["images"] < total and "ended" not in report:
        if report["images"] < _WARM_UP * total or len(before) < _PATIENCE:
            return []
        if report["pixel_distance"] < _BETTER * before[-_PATIENCE]["pixel_distance"]:
            return []  # the images still improve
    roughness, distance = report["roughness"], report["pixel_distance"]
    variety, coverage = report["variety"], report["coverage"]
    found = []
    if roughness > _ROUGH or distance > _FAR:
        found.append(
            Trouble(
                name="noise",
                seen=f"the images are still noise, {roughness:.1f} times as rough as real ones, at a pixel distance "
                f"of {distance:.2f} (good: below 0.3)",
                remedy=_against_noise(recipe),
            )
        )
    if distance <= _FAR and (variety < _UNIFORM or (variety < _UNVARIED and coverage < _UNCOVERED)):
        found.append(
            Trouble(
                name="collapse",
                seen=f"the generator has collapsed to few modes: its images have {variety:.0%} of the variety of real "
                f"ones and cover {coverage:.0%} of them",
                remedy=_against_collapse(recipe),
            )
        )
    return found


def _decline(history: Sequence[Report], recipe: Recipe, judged: bool) -> Trouble | None:
    for statistic, slack in _SLACK.items():
        reports = [report for report in history if statistic in report]
        values = [report[statistic] for report in reports]
        # Medians of three, so that no single outlier decides.
        smooth = [statistics.median(values[i : i + 3]) for i in range(len(values) - 2)]
        if not smooth or not smooth[-1] > _WORSE * min(smooth) + slack:
            continue
        best = smooth.index(min(smooth))
        images = reports[best + 1]["images"]
        return Trouble(
            name="decline",
            seen=f"quality is falling: the {_DECLINING[statistic]} was {min(smooth):.3g} after {images} images and "
            f"is {smooth[-1]:.3g} now",
            remedy="stop the training or let it run: either way, the best checkpoint will be exported"
            if judged
            else f"train into a new folder with --keep best, or with --steps {images // recipe.images_per_step}, or "
            f"with --set learning_rate={recipe.learning_rate / 4:g}",
        )
    return None


def _against_noise(recipe: Recipe) -> str:
    advice = []
    if recipe.learning_rate > 1e-3:
        advice.append("--set learning_rate=0.0002, because this rate is far above the usual ones")
    if recipe.learning_rate < 1e-5:
        advice.append("--set learning_rate=0.0002, because this rate is far below the usual ones")
    if recipe.generator_normalization == "none" and recipe.network != "residual":
        advice.append("--set generator_normalization=batch")
    if recipe.network == "residual" and recipe.gamma < 0.5:
        advice.append("--set gamma=0.5")
    if not (recipe.generator_dropout and recipe.discriminator_dropout):
        advice.append("--set generator_dropout=0.4 --set discriminator_dropout=0.4 (0.3 to 0.6 are usual)")
    return _either(advice, f"a longer training, --steps {4 * recipe.steps}")


def _against_winning_discriminator(recipe: Recipe) -> str:
    rate = recipe.discriminator_learning_rate or recipe.learning_rate
    advice = []
    if recipe.loss == "minimax":
        advice.append("--set loss=non-saturating, because its gradient does not vanish here")
    advice.append(f"--set discriminator_learning_rate={rate / 4:g}")
    if recipe.discriminator_steps > 1:
        advice.append("--set discriminator_steps=1")
    if recipe.loss in {"minimax", "non-saturating", "least-squares"} and not recipe.label_smoothing:
        advice.append("--set label_smoothing=0.1")
    if not recipe.discriminator_dropout:
        advice.append("--set discriminator_dropout=0.4")
    other = "uniform" if recipe.latent_distribution == "normal" else "normal"
    return _either(advice, f"other latents, --set latent_distribution={other}")


def _against_collapse(recipe: Recipe) -> str:
    advice = []
    if recipe.learning_rate > 1e-3:
        advice.append("--set learning_rate=0.0002, because this rate is far above the usual ones")
    if recipe.discriminator_in_chain != "frozen":
        advice.append("--set discriminator_in_chain=frozen")
    if recipe.auxiliary and recipe.auxiliary_generator > 0.1:
        advice.append("--set auxiliary_generator=0.1, because larger values cost variety")
    gamma = 4 * recipe.gamma or 0.1
    together = " --set separate_batches=false" if recipe.separate_batches else ""
    advice.append(
        f"a penalty on the discriminator's gradient, --set gamma={gamma:g} --set gamma_end={gamma:g}{together}"
    )
    return _either(advice, f"unequal steps, --set discriminator_steps={recipe.discriminator_steps + 1}")


def _either(advice: Sequence[str], last: str) -> str:
    """Join the advice. One change at a time, so that its effect is visible."""
    return f"change one thing at a time: {'; '.join([*advice, last])}"
