"""What goes wrong with a training: the four classic troubles, seen in its running statistics.

| trouble | seen by |
|---|---|
| ``noise`` | images that stay far rougher than real ones, or farther from them than their mean would be |
| ``discriminator`` | a discriminator whose loss has collapsed to zero |
| ``collapse`` | generated images that differ little from each other, or miss most kinds of real ones |
| ``decline`` | a distance from real images, or a judge's verdict, that has become much worse than it was |

and one that needs no statistics: ``overflow``, a loss that is no number any more.

`image_statistics` compares some hundred generated images with as many real ones, in milliseconds and without a network
that was trained before, so that it can be done at every sheet; it tells a sick training from a sound one, and nothing
finer. `diagnose` reads these numbers and the losses. Thresholds were set beside sound and sick trainings on MNIST:
sound ones stay on the right side by about a third from a quarter of their length on.
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
Report = Mapping[str, Any]  # a line of stats.jsonl
Images = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float64]

FEWEST_IMAGES: Final = 50  # fewer real images have no statistics worth the name
_SIDE = 7  # of the averaged images, in pixels
_NEIGHBORS = 5  # for coverage

_EARLIEST = 16_000  # images before which nothing is said: every training begins with noise and a sure discriminator
_WARM_UP = 0.25  # share of the training in which noise and collapse are still in order
_PATIENCE = 2  # sheets within which …
_BETTER = 0.9  # … the pixel distance falls to this share, while a training still gets better by itself
_ROUGH = 1.75  # times as rough as real images; untrained networks: 2.9 to 5.2
_FAR = 2.0  # pixel distance; 1 is the mean image over and over, untrained networks: 4 and more
_UNIFORM = 0.4  # of the real images' variety
_UNVARIED = 0.9  # the same, where besides …
_UNCOVERED = 0.25  # … no more of the real images have a generated one close by
_WON = 0.05  # of an undecided discriminator's loss
_WON_SHARE = 0.01  # of the training that a loss is averaged over
_WORSE = 1.5  # times the best; medians of three values
_SLACK = {"pixel_distance": 0.05, "judge": 0.0}  # what chance makes of 400 images (real against real: 0.03)

#: The discriminator's loss while it cannot tell real from generated at all. WGAN's has no such value and no zero.
_UNDECIDED = {
    "minimax": 1.386,
    "non-saturating": 1.386,
    "relativistic": 0.693,
    "least-squares": 0.25,
    "hinge": 2.0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trouble:
    """Something that goes wrong, in one sentence each."""

    name: Name
    seen: str  # what is wrong, with the figures that show it
    remedy: str  # what to try, as options of `digitforge train`


def image_statistics(*, real: Images, generated: Images, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """Compare generated with real images of the same classes in the same order.

    Args:
        real: (n, H, W, C) uint8.
        generated: the same.
        labels: (n,) int64, classes of both; all the same where there are none.

    Returns:
        roughness: mean difference of neighboring pixels ÷ standard deviation of pixels; as a multiple of the real
            images'. 1 is right, noise is above 2.
        variety: mean distance between two images of a class; as a multiple of the real images'. 1 is right, 0 is one
            and the same image.
        coverage: share of real images that have a generated one nearer than their fifth neighbor (Naeem et al. 2020,
            arXiv:2002.09797), of images averaged down to 7 × 7. Near 1 for real images.
        pixel_distance: Fréchet distance between Gaussians fitted to the averaged images, as a share of the real images'
            total variance. 0 is right but for chance; 1 is what the mean real image would score alone.

        Nothing, if there are fewer than 50 images or the real ones are all the same.
    """
    if len(real) < FEWEST_IMAGES or not np.ptp(real, axis=0).any():
        return {}
    averaged, theirs = _averaged(real), _averaged(generated)
    return {
        "roughness": _roughness(generated) / _roughness(real),
        "variety": _variety(generated, labels) / max(_variety(real, labels), 1e-9),
        "coverage": _coverage(real=averaged, generated=theirs),
        "pixel_distance": _frechet(averaged, theirs) / float(averaged.var(axis=0, ddof=1).sum()),
    }


def _averaged(images: Images) -> _Floats:
    """(n, H, W, C) uint8 => (n, 7 · 7 · C), means over fields of nearly equal size, in [0, 1]."""
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
    reach = np.sort(_distances(real, real), axis=1)[:, _NEIGHBORS]  # the nearest is the image itself
    return float((_distances(real, generated).min(axis=1) < reach).mean())


def _distances(a: _Floats, b: _Floats) -> _Floats:
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2.0 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))


def _frechet(a: _Floats, b: _Floats) -> float:
    """‖μ − μ'‖² + tr(Σ + Σ' − 2 (Σ Σ')^½), the root by the symmetric Σ^½ Σ' Σ^½, which has the same eigenvalues."""
    difference = a.mean(axis=0) - b.mean(axis=0)
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0.0)).sum()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2.0 * cross)


def diagnose(history: Sequence[Report], *, recipe: Recipe, judged: bool = False) -> list[Trouble]:
    """The troubles that a training has now.

    Args:
        history: its reports so far, at least one, as stats.jsonl holds them: ``images``, ``discriminator_loss``,
            ``generator_loss``; in some what `image_statistics` returns, and ``judge``, a judge's verdict, lower is
            better; and ``ended`` in the last, if the training ends before its last step.
        recipe: what is trained.
        judged: whether a judge already keeps the best checkpoint.
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
        # The classes that the discriminator learns besides have a loss of their own.
        classes = recipe.auxiliary_discriminator * report.get("class_loss_real", 0.0)
        losses.append(report["discriminator_loss"] - classes)
    loss = statistics.fmean(losses)
    if not loss < _WON * undecided:
        return None
    return Trouble(
        name="discriminator",
        seen=f"the discriminator's loss has collapsed to {loss:.3f} (undecided: {undecided:.2f}), so that the "
        "generator can hardly learn from it",
        remedy=_against_a_sure_discriminator(recipe),
    )


def _overflow(recipe: Recipe) -> Trouble:
    return Trouble(
        name="overflow",
        seen="the losses are no longer numbers, and this training will not recover",
        remedy=f"train into a new folder with --set learning_rate={recipe.learning_rate / 10:g}, or --set clip_value=1",
    )


def _faults_of_images(history: Sequence[Report], recipe: Recipe) -> list[Trouble]:
    *before, report = (report for report in history if "roughness" in report)
    total = recipe.steps * recipe.images_per_step
    if report["images"] < total and "ended" not in report:
        if report["images"] < _WARM_UP * total or len(before) < _PATIENCE:
            return []
        if report["pixel_distance"] < _BETTER * before[-_PATIENCE]["pixel_distance"]:
            return []  # it is getting better by itself
    roughness, distance = report["roughness"], report["pixel_distance"]
    variety, coverage = report["variety"], report["coverage"]
    found = []
    if roughness > _ROUGH or distance > _FAR:
        found.append(
            Trouble(
                name="noise",
                seen=f"the output is still noise, {roughness:.1f} times as rough as real images, at a pixel distance "
                f"of {distance:.2f} (sound: below 0.3)",
                remedy=_against_noise(recipe),
            )
        )
    if distance <= _FAR and (variety < _UNIFORM or (variety < _UNVARIED and coverage < _UNCOVERED)):
        found.append(
            Trouble(
                name="collapse",
                seen=f"the generator has collapsed to few modes: {variety:.0%} of the variety of real images, and "
                f"only {coverage:.0%} of those have a generated one close by",
                remedy=_against_collapse(recipe),
            )
        )
    return found


def _decline(history: Sequence[Report], recipe: Recipe, judged: bool) -> Trouble | None:
    for figure, slack in _SLACK.items():
        reports = [report for report in history if figure in report]
        values = [report[figure] for report in reports]
        # Medians of three, so that neither one lucky value nor an unlucky one decides.
        smooth = [statistics.median(values[i : i + 3]) for i in range(len(values) - 2)]
        if not smooth or not smooth[-1] > _WORSE * min(smooth) + slack:
            continue
        best = smooth.index(min(smooth))
        images = reports[best + 1]["images"]
        return Trouble(
            name="decline",
            seen=f"quality falls again: the {figure.replace('_', ' ')} was {min(smooth):.3g} after {images} images and "
            f"is {smooth[-1]:.3g} now",
            remedy="the best checkpoint is kept and will be exported; this training may be stopped"
            if judged
            else f"train into a new folder with --keep best; or with --steps {images // recipe.images_per_step}; or "
            f"with --set learning_rate={recipe.learning_rate / 4:g}",
        )
    return None


def _against_noise(recipe: Recipe) -> str:
    advice = []
    if recipe.learning_rate > 1e-3:
        advice.append("--set learning_rate=0.0002, as this one is far above the customary rates")
    if recipe.learning_rate < 1e-5:
        advice.append("--set learning_rate=0.0002, as this one is far below the customary rates")
    if recipe.generator_normalization == "none" and recipe.network != "residual":
        advice.append("--set generator_normalization=batch")
    if recipe.network == "residual" and recipe.gamma < 0.5:
        advice.append("--set gamma=0.5")
    if not (recipe.generator_dropout and recipe.discriminator_dropout):
        advice.append("--set generator_dropout=0.4 --set discriminator_dropout=0.4 (0.3 to 0.6 are usual)")
    return _either(advice, f"a longer training, --steps {4 * recipe.steps}")


def _against_a_sure_discriminator(recipe: Recipe) -> str:
    rate = recipe.discriminator_learning_rate or recipe.learning_rate
    advice = []
    if recipe.loss == "minimax":
        advice.append("--set loss=non-saturating, whose gradient does not vanish here")
    advice.append(f"--set discriminator_learning_rate={rate / 4:g}")
    if recipe.discriminator_steps > 1:
        advice.append("--set discriminator_steps=1")
    if recipe.loss in {"minimax", "non-saturating", "least-squares"} and not recipe.label_smoothing:
        advice.append("--set label_smoothing=0.1")
    if not recipe.discriminator_dropout:
        advice.append("--set discriminator_dropout=0.4")
    other = "uniform" if recipe.latent_distribution == "normal" else "normal"
    return _either(advice, f"other noise, --set latent_distribution={other}")


def _against_collapse(recipe: Recipe) -> str:
    advice = []
    if recipe.learning_rate > 1e-3:
        advice.append("--set learning_rate=0.0002, as this one is far above the customary rates")
    if recipe.discriminator_in_chain != "frozen":
        advice.append("--set discriminator_in_chain=frozen")
    if recipe.auxiliary and recipe.auxiliary_generator > 0.1:
        advice.append("--set auxiliary_generator=0.1, since larger values cost variety")
    gamma = 4 * recipe.gamma or 0.1
    together = " --set separate_batches=false" if recipe.separate_batches else ""
    advice.append(
        f"a penalty on the discriminator's gradient, --set gamma={gamma:g} --set gamma_end={gamma:g}{together}"
    )
    return _either(advice, f"unequal steps, --set discriminator_steps={recipe.discriminator_steps + 1}")


def _either(advice: Sequence[str], last: str) -> str:
    """What to change; one thing at a time, or nobody knows what has helped."""
    return f"change one thing at a time: {'; '.join([*advice, last])}"
