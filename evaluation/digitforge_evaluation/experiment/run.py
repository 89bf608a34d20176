"""Run the cells of a plan: train a classifier for each cell, and store its accuracy.

A cell uses the held-out images only after its classifier is trained, so no choice depends on them.
"""

from __future__ import annotations

import math
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from digitforge_client.common.parallel import Scheduler, side_by_side
from digitforge_client.contract import SEEDS
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import BATCH_SIZE, Classifier, Images, Labels, classifier
from digitforge_evaluation.experiment.draws import Rows, class_gaps, draw_for
from digitforge_evaluation.experiment.generators import GeneratorSource
from digitforge_evaluation.experiment.plan import Plan, plan_cells
from digitforge_evaluation.experiment.store import CellKey, CellResult, Store
from digitforge_evaluation.experiment.subsets import RealImages, subset_indices, subset_of
from digitforge_evaluation.images.sources import Drawn
from digitforge_training.data import Dataset


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The input of a worker process for one cell. It holds plain arrays, which joblib can share."""

    key: CellKey
    plan: Plan
    real: Dataset  # the subset
    held_out: Dataset
    source: GeneratorSource | None
    unlabeled: tuple[Images, ...] = ()  # other images of the pool, for each replicate

    @property
    def classes(self) -> int:
        return len(self.real.class_names)

    @property
    def steps(self) -> int:
        return self.plan.steps_for(len(self.real))

    @property
    def confidence(self) -> float:
        own = self.key.arm.variant.confidence
        return self.plan.confidence if own is None else own

    @property
    def generated_share(self) -> float:
        """Share of generated images among the training rows."""
        return (self.key.arm.variant.share or self.plan.generated_share) if self.key.arm.design.real else 1.0


def _run_cell(job: _Job) -> CellResult:
    started = time.monotonic()
    arm, plan = job.key.arm, job.plan
    model = classifier(plan.classifier, image_shape=job.real.images.shape[1:], classes=job.classes, steps=job.steps)
    confusion = np.zeros((job.classes, job.classes), np.int64)
    notes: list[dict[str, Any]] = []
    for replicate, seed in enumerate(_seeds(plan, job.key.n_per_class, job.key.subset)):
        generated = None
        if job.source is not None:
            generated, note = _generated(job, job.source, seed)
            notes.append(note)
        if arm.design.pseudo_labels:
            unlabeled = job.unlabeled[replicate]
            generated = _labeled(job, unlabeled, seed)
            notes.append({"n": len(unlabeled), "kept": len(generated[1])})
        draw = draw_for(
            arm.name,
            images=job.real.images,
            labels=job.real.labels,
            generated=generated,
            generated_share=job.generated_share,
            rows=job.steps * BATCH_SIZE,
            fresh=arm.variant.fresh,
            elastic=plan.elastic,
        )
        model.fit(draw, seed=seed)
        np.add.at(confusion, (job.held_out.labels, model.predict(job.held_out.images)), 1)
    return CellResult(
        key=job.key,
        accuracy=float(np.trace(confusion) / confusion.sum()),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        seconds=round(time.monotonic() - started, 3),
        generated=tuple(notes),
    )


@lru_cache(maxsize=2)  # consecutive arms of a subset use the same digits
def _drawn(generator: Any, n: int, proportions: tuple[int, ...], seed: int, expansion: float | None) -> Drawn:
    return generator.draw(n, proportions=proportions, seed=seed, expansion=expansion)


def _generated(job: _Job, source: GeneratorSource, seed: int) -> tuple[Rows, dict[str, Any]]:
    """Draw the digits of one replicate so that they balance the real classes.

    Returns them with a note on their origin.
    """
    plan, arm = job.plan, job.key.arm
    generator = source.generator_for(job.real, seed=seed)
    share = job.generated_share
    n = max(job.classes, round((arm.variant.ratio or plan.ratio) * len(job.real)))
    if arm.variant.fresh:
        n = max(n, math.ceil(share * job.steps * BATCH_SIZE))  # enough to use each digit only once
    expansion = arm.variant.expansion
    proportions = class_gaps(job.real.labels, classes=job.classes, generated_share=share)
    drawn = _drawn(cast(Any, generator), n, proportions, seed, expansion)
    assert generator.card is not None  # check_fits refused generators without a card
    note = {"generator_id": generator.card["generator_id"], "seed": seed, "n": n}
    if expansion is not None:
        note["expansion"] = expansion
    if drawn.labels is not None and not arm.variant.filtered:
        return (drawn.images, drawn.labels), note
    images, labels = (
        _labeled(job, drawn.images, seed) if drawn.labels is None else _confirmed(job, drawn.images, drawn.labels, seed)
    )
    return (images, labels), {**note, "kept": len(labels)}


def _labeled(job: _Job, images: Images, seed: int) -> Rows:
    """Label *images* with a classifier trained on the subset alone, and keep those with enough confidence."""
    predicted, confidence = _labeler(_Labeling.of(job, seed)).predict_surely(images)
    return _enough(job, images, predicted, confidence >= job.confidence)


def _confirmed(job: _Job, images: Images, labels: Labels, seed: int) -> Rows:
    """Keep the images whose label is confirmed by a classifier trained on the subset alone."""
    return _enough(job, images, labels, _labeler(_Labeling.of(job, seed)).predict(images) == labels)


@dataclass(frozen=True, kw_only=True)
class _Labeling:
    """Everything that a labeling classifier depends on. Two are equal if they give the same classifier."""

    classifier: str
    steps: int
    arm: str
    elastic: float
    seed: int
    sha256: str
    real: Dataset = field(compare=False)

    @classmethod
    def of(cls, job: _Job, seed: int) -> _Labeling:
        return cls(
            classifier=job.plan.classifier,
            steps=job.steps,
            arm=job.plan.baseline.name,
            elastic=job.plan.elastic,
            seed=seed,
            sha256=job.real.sha256,
            real=job.real,
        )


@lru_cache(maxsize=1)  # consecutive arms of a subset use the same labels
def _labeler(labeling: _Labeling) -> Classifier:
    """A classifier trained on the subset alone, like that of the baseline."""
    real = labeling.real
    model = classifier(
        labeling.classifier,
        image_shape=real.images.shape[1:],
        classes=len(real.class_names),
        steps=labeling.steps,
        copy=1,  # an arm's fit must not change it
    )
    draw = draw_for(labeling.arm, images=real.images, labels=real.labels, elastic=labeling.elastic)
    model.fit(draw, seed=labeling.seed)
    return model


def _enough(job: _Job, images: Images, labels: Labels, kept: npt.NDArray[np.bool_]) -> Rows:
    """The kept images and labels, if they are enough to train on."""
    images, labels, total = images[kept], labels[kept], len(images)
    found, needed = len(np.unique(labels)), 1 if job.key.arm.design.real else 2  # a classifier needs two classes
    if found < needed:
        unlabeled = job.key.arm.design.pseudo_labels
        raise InvalidInputError(
            f"{job.key}: the classifier trained on the {len(job.real)} real images kept {len(labels)} of {total} "
            f"{'unlabeled images' if unlabeled else 'generated images'}, in {found} of {job.classes} classes; expected "
            f"at least {needed}. Use a larger size{'' if unlabeled else ', a better generator'} or a lower "
            f"--confidence, or leave out this arm{'' if unlabeled else ' or --filtered'}"
        )
    return images, labels


def run_cells(
    plan: Plan,
    real: RealImages,
    sources: Mapping[str, GeneratorSource],
    store: Store,
    *,
    jobs: int = 1,
    scheduler: Scheduler | str | None = None,
    on_cell: Callable[[CellResult], None] = lambda _: None,
) -> None:
    """Run the cells of *plan* that *store* lacks, and store each one when it is finished.

    Args:
        plan: the plan.
        real: the real images.
        sources: the generators by budget and name.
        store: open for writing, with the `identity` of the other arguments.
        jobs: number of processes that run cells in parallel.
        scheduler: a Dask scheduler, or its address, ``tcp://HOST:PORT``. Its workers run the cells instead.
        on_cell: called after each cell is stored.

    Raises:
        InvalidInputError: a class has too few images for a size.
        ServerError: a generator's server went away, or the scheduler cannot be reached. Finished cells are kept.
    """
    missing = [key for key in plan_cells(plan, sources) if key not in store.cells]
    if jobs != 1 or scheduler:
        missing = interleave(missing, subsets=plan.subsets if scheduler or jobs < 1 else jobs)
    results = side_by_side(
        _run_cell,
        _jobs(plan, real, sources, missing),
        jobs=jobs,
        scheduler=scheduler,
        imports=["tensorflow"] if "tensorflow" in sys.modules else [],
    )
    for result in results:
        store.append(result)
        on_cell(result)


def subsets_and_seeds(plan: Plan, real: RealImages) -> Iterator[tuple[Dataset, int]]:
    """All pairs of a subset and the seed of a replicate. A strict generator is trained for each pair."""
    for n in plan.n_per_class:
        for subset in range(plan.subsets):
            images = _subset(plan, real, n, subset)
            yield from ((images, seed) for seed in _seeds(plan, n, subset))


def _subset(plan: Plan, real: RealImages, n_per_class: int, subset: int) -> Dataset:
    return subset_of(
        real.pool, n_per_class=n_per_class, subset=subset, seed=plan.seed, cut=plan.cut, noisy_labels=plan.noisy_labels
    )


def _unlabeled(plan: Plan, real: RealImages, key: CellKey) -> tuple[Images, ...]:
    """Random images of the pool outside the subset, for each replicate: *ratio* per real image, or all there are."""
    n_per_class, subset = key.n_per_class, key.subset
    own = subset_indices(real.pool.labels, n_per_class=n_per_class, subset=subset, seed=plan.seed)
    others = np.setdiff1d(np.arange(len(real.pool)), own)
    n = min(len(others), round((key.arm.variant.ratio or plan.ratio) * len(own)))
    if not n:
        raise InvalidInputError(
            f"a subset of {n_per_class} images per class leaves no image of {real.pool.name} unlabeled; choose a "
            "smaller size, or leave out the arm pseudo-labeled"
        )
    return tuple(
        real.pool.images[np.random.default_rng([plan.seed, n_per_class, subset, 2, replicate]).choice(others, n, False)]
        for replicate in range(plan.replicates)
    )


def _seeds(plan: Plan, n_per_class: int, subset: int) -> tuple[int, ...]:
    """A seed below 2²¹ for each replicate. It is the same for all arms, so that arms are paired."""
    texts = (f"{plan.seed}/{n_per_class}/{subset}/{replicate}" for replicate in range(plan.replicates))
    return tuple(zlib.crc32(text.encode()) % SEEDS for text in texts)


def interleave(keys: Sequence[CellKey], *, subsets: int) -> list[CellKey]:
    """Order *keys* for parallel work: groups of *subsets* subsets, and in each group one arm after the other.

    The cells of one subset share a strict generator, and wait for each other while it is trained. So neighbors should
    be from different subsets. Subsets with only the baseline come last. If one were in a group with a subset that has a
    generator, this generator would be trained while no other is.
    """
    arm_order = {arm: place for place, arm in enumerate(dict.fromkeys(key.arm for key in keys))}
    most_cells_first = Counter((key.n_per_class, key.subset) for key in keys).most_common()
    groups = {subset: place // subsets for place, (subset, _) in enumerate(most_cells_first)}
    return sorted(keys, key=lambda key: (groups[key.n_per_class, key.subset], arm_order[key.arm]))


def _jobs(
    plan: Plan, real: RealImages, sources: Mapping[str, GeneratorSource], keys: Sequence[CellKey]
) -> Iterator[_Job]:
    for key in keys:
        subset = _subset(plan, real, key.n_per_class, key.subset)
        yield _Job(
            key=key,
            plan=plan,
            real=subset,
            held_out=real.held_out_from(subset),
            source=sources[key.arm.source] if key.arm.source else None,
            unlabeled=_unlabeled(plan, real, key) if key.arm.design.pseudo_labels else (),
        )
