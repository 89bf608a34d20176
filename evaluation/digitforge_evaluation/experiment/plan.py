"""The experiment: arms × sizes × subsets, one classifier's accuracy per cell.

A *cell* is one arm on one subset of real images. All arms of a subset see the same real images, the same digits of
a generator and the same classifier seeds, so their differences within the subset are what the arms make of them.
Held-out images are looked at once per cell, when its classifier is finished; nothing is chosen by them.
"""

from __future__ import annotations

import math
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, cast

import numpy as np

from digitforge_client.common.parallel import side_by_side
from digitforge_client.contract import SEEDS
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import BATCH_SIZE, Classifier, check_classifier, classifier
from digitforge_evaluation.classifiers.transformations import ELASTIC
from digitforge_evaluation.experiment.arms import (
    ARMS,
    PRIMARY,
    UNBALANCED_BASELINE,
    ArmName,
    Rows,
    check_arms,
    class_gaps,
    draw_for,
)
from digitforge_evaluation.experiment.generators import GeneratorSource
from digitforge_evaluation.experiment.store import CellKey, CellResult, Store
from digitforge_evaluation.experiment.subsets import HeldOut, RealImages, minority, subset_indices, subset_of
from digitforge_evaluation.images.sources import Drawn
from digitforge_training.data import Dataset

#: Fields of a plan that say how much of it is run; finished cells stay good when they change.
_EXTENT: Final = ("arms", "n_per_class", "curve", "subsets", "sweep", "expansions", "fresh", "filtered")
EXPANSION, FRESH, FILTERED = "expansion", "fresh", "filtered"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an experiment does.

    Raises:
        InvalidInputError: a field is out of range.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    n_per_class: tuple[int, ...] = (10,)
    """Sizes: real images per class."""
    curve: tuple[int, ...] = ()
    """Further sizes, at which the baseline alone is run, so that its learning curve is known."""
    subsets: int = 10
    """Subsets of real images per size; ten are needed for a verdict."""
    replicates: int = 1
    """Generator draws and classifier seeds inside each subset; their results are averaged."""
    classifier: str = "cnn"
    steps: int = 500
    """Optimizer steps of every fit, in every arm."""
    ratio: float = 10.0
    """Generated digits per real image."""
    generated_share: float = 0.5
    """Share of generated digits among the rows an arm with both is trained on."""
    sweep: tuple[float, ...] = ()
    """Other ratios to compare with *ratio*."""
    expansions: tuple[float, ...] = ()
    """Compare with digits whose latents are multiplied by each of these."""
    fresh: bool = False
    """Compare with generated digits of which none is used twice."""
    filtered: bool = False
    """Compare with those generated digits whose label a classifier agrees with that saw the subset alone."""
    confidence: float = 0.0
    """Digits of a generator without classes are used if the classifier that labels them is at least so sure."""
    cut: Mapping[str, float] = field(default_factory=dict)
    """Names of classes, and the share of their images that a subset keeps."""
    noisy_labels: float = 0.0
    """Share of a subset's labels that are replaced by another one."""
    elastic: float = ELASTIC
    """Elastic distortion in classical augmentation: root mean square displacement in pixels of a 28-pixel image."""
    held_out: HeldOut = "test"
    """``validation`` sets a twelfth of the training set aside, for choosing settings without the test set."""
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", check_arms(self.arms))
        object.__setattr__(self, "n_per_class", tuple(sorted(set(self.n_per_class))))
        object.__setattr__(self, "curve", tuple(sorted(set(self.curve) - set(self.n_per_class))))
        object.__setattr__(self, "sweep", tuple(sorted(set(self.sweep) - {self.ratio})))
        object.__setattr__(self, "expansions", tuple(sorted(set(self.expansions))))
        if not self.n_per_class or min(*self.n_per_class, *self.curve, 1) < 1:
            raise InvalidInputError(
                f"n per class is {[*self.n_per_class, *self.curve]}; expected numbers of at least 1"
            )
        for name, least in (("subsets", 1), ("replicates", 1), ("steps", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise InvalidInputError(f"{name} is {getattr(self, name)}; expected at least {least}")
        check_classifier(self.classifier)
        ratios = [("ratio", each, "more than 0 generated digits per real image") for each in (self.ratio, *self.sweep)]
        expansions = [("expansion", each, "a factor above 0, such as 1.2") for each in self.expansions]
        for name, factor, expected in (*ratios, *expansions):
            if not 0 < factor < math.inf:
                raise InvalidInputError(f"{name} is {factor}; expected {expected}")
        for name, share in self.cut.items():
            if not 0 < share < 1:
                raise InvalidInputError(f"class {name} is cut to {share}; expected a share between 0 and 1, like 0.01")
        for name in ("noisy_labels", "confidence"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInputError(
                    f"{name.replace('_', ' ')} is {getattr(self, name)}; expected a share from 0 to below 1"
                )
        if not 0 <= self.elastic < math.inf:
            raise InvalidInputError(f"elastic is {self.elastic}; expected a displacement of 0 or more pixels")
        if not 0 < self.generated_share < 1:
            raise InvalidInputError(f"the share of generated digits is {self.generated_share}; expected 0 to 1")
        if self.held_out not in ("test", "validation"):
            raise InvalidInputError(f"held out is {self.held_out!r}; expected 'test' or 'validation'")

    @property
    def baseline(self) -> str:
        """The arm that the verdict compares with."""
        return UNBALANCED_BASELINE if self.cut else PRIMARY[1]

    @property
    def variants(self) -> tuple[str, ...]:
        """How generated digits are used; the first, which has no name, is the one that verdicts are taken on."""
        return (
            "",
            *(f"{ratio:g}×" for ratio in self.sweep),
            *(f"{EXPANSION} {expansion:g}" for expansion in self.expansions),
            *([FRESH] if self.fresh else []),
            *([FILTERED] if self.filtered else []),
        )


def arm_names(plan: Plan, sources: Mapping[str, GeneratorSource]) -> tuple[str, ...]:
    """The plan's arms in full: ``real``, ``gan (oracle)``, ``gan (oracle, 5×)`` and so on.

    Raises:
        InvalidInputError: an arm needs a generator and there is none.
    """
    generated = [arm for arm in plan.arms if ARMS[arm].generator]
    if generated and not sources:
        raise InvalidInputError(f"the arm {generated[0]!r} needs generated digits; name a server with --server")
    # Those with the same digits follow each other, so that these are drawn once (see `_drawn`).
    return (
        *(arm for arm in plan.arms if not ARMS[arm].generator),
        *(
            str(replace(ArmName.parse(f"{arm} ({source})"), variant=variant))
            for source in sources
            for variant in plan.variants
            for arm in generated
        ),
    )


def plan_cells(plan: Plan, sources: Mapping[str, GeneratorSource]) -> list[CellKey]:
    """All cells, in the order in which they are run: every arm of a subset before the next subset."""
    arms = dict.fromkeys(plan.curve, (plan.baseline,)) | {n: arm_names(plan, sources) for n in plan.n_per_class}
    return [
        CellKey(n_per_class=n, subset=subset, arm=arm)
        for n in sorted(arms)
        for subset in range(plan.subsets)
        for arm in arms[n]
    ]


def identity(plan: Plan, real: RealImages, sources: Mapping[str, GeneratorSource]) -> dict[str, Any]:
    """Everything that a cell's result depends on besides its key; JSON values.

    Arms, sizes, variants and the number of subsets are not part of it: a plan may grow and keep its finished cells.
    """
    settings = asdict(plan)
    for extent in _EXTENT:
        del settings[extent]
    return {
        **settings,
        "data": {
            "name": real.pool.name,
            "pool_images": len(real.pool),
            "pool_sha256": real.pool.sha256,
            "held_out_images": len(real.held_out),
            "held_out_sha256": real.held_out.sha256,
        },
        "generators": {str(budget): source.identity for budget, source in sources.items()},
    }


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What a worker process needs for one cell; plain arrays, so that joblib can share them."""

    key: CellKey
    plan: Plan
    real: Dataset  # the subset
    held_out: Dataset
    source: GeneratorSource | None
    classes: int
    seeds: tuple[int, ...]  # one per replicate


def _replicate_seed(plan: Plan, key: CellKey, replicate: int) -> int:
    """A seed below 2²¹ that depends on everything but the arm, so that arms are paired."""
    text = f"{plan.seed}/{key.n_per_class}/{key.subset}/{replicate}"
    return zlib.crc32(text.encode()) % SEEDS


def _run_cell(job: _Job) -> CellResult:
    started = time.monotonic()
    name, plan = ArmName.parse(job.key.arm), job.plan
    model = classifier(plan.classifier, image_shape=job.real.images.shape[1:], classes=job.classes, steps=plan.steps)
    confusion = np.zeros((job.classes, job.classes), np.int64)
    notes: list[dict[str, Any]] = []
    for seed in job.seeds:
        generated = None
        if job.source is not None:
            generated, note = _generated(job, job.source, model, name, seed)
            notes.append(note)
        draw = draw_for(
            name.arm,
            images=job.real.images,
            labels=job.real.labels,
            generated=generated,
            generated_share=plan.generated_share,
            fresh=name.variant == FRESH,
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


@lru_cache(maxsize=2)  # several arms of a subset ask for the same digits, one after the other
def _drawn(generator: Any, n: int, proportions: tuple[int, ...], seed: int, expansion: float | None) -> Drawn:
    return generator.draw(n, proportions=proportions, seed=seed, expansion=expansion)


def _generated(
    job: _Job, source: GeneratorSource, model: Classifier, name: ArmName, seed: int
) -> tuple[Rows, dict[str, Any]]:
    """Digits for one replicate, with classes that fill up the real ones, and where they came from.

    *model* is trained where digits must be labeled or filtered, on the subset alone; its next fit forgets that.
    """
    plan, generator = job.plan, source.generator_for(job.real, seed=seed)
    share = plan.generated_share if ARMS[name.arm].real else 1.0
    ratio = float(name.variant.removesuffix("×")) if name.variant.endswith("×") else plan.ratio
    n = max(job.classes, round(ratio * len(job.real)))
    kind, _, value = name.variant.partition(" ")
    expansion = float(value) if kind == EXPANSION else None
    if name.variant == FRESH:
        n = max(n, math.ceil(share * plan.steps * BATCH_SIZE))  # as many as any classifier takes
    proportions = class_gaps(job.real.labels, classes=job.classes, generated_share=share)
    drawn = _drawn(cast(Any, generator), n, proportions, seed, expansion)
    assert generator.card is not None  # check_fits refused generators without one
    note = {"generator_id": generator.card["generator_id"], "seed": seed, "n": n}
    if expansion is not None:
        note["expansion"] = expansion
    images, labels = drawn.images, drawn.labels
    if labels is not None and name.variant != FILTERED:
        return (images, labels), note
    model.fit(draw_for(plan.baseline, images=job.real.images, labels=job.real.labels, elastic=plan.elastic), seed=seed)
    if labels is None:
        predicted, confidence = model.predict_surely(images)
        kept = confidence >= plan.confidence
    else:
        predicted = model.predict(images)
        kept = predicted == labels
    images, predicted, note = images[kept], predicted[kept], {**note, "kept": int(kept.sum())}
    if len(np.unique(predicted)) < (1 if ARMS[name.arm].real else 2):  # alone, they must be of two classes
        raise InvalidInputError(
            f"{job.key}: by the classifier that was trained on {len(job.real)} real images, {n} generated digits leave "
            f"{len(predicted)} of {len(np.unique(predicted))} classes, on which nothing can be trained; take larger "
            "sizes, a better generator, a lower --confidence, or leave this arm or --filtered out"
        )
    return (images, predicted), note


def run(
    plan: Plan,
    real: RealImages,
    sources: Mapping[str, GeneratorSource],
    store: Store,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    on_cell: Callable[[CellResult], None] = lambda _: None,
) -> None:
    """Run the cells of *plan* that *store* lacks, and store each as soon as it is finished.

    Args:
        plan: what to do.
        real: the images.
        sources: where generated digits come from, by budget.
        store: open for writing, with the `identity` of these three.
        jobs: processes that run cells side by side.
        scheduler: address of a Dask scheduler, ``tcp://HOST:PORT``, whose workers run the cells instead.
        on_cell: called after each cell is stored.

    Raises:
        InvalidInputError: a class has fewer images than a size asks for.
        ServerError: a generator's server went away, or the scheduler cannot be reached; finished cells are kept.
    """
    missing = [key for key in plan_cells(plan, sources) if key not in store.cells]
    if jobs != 1 or scheduler:
        missing = spread(missing, subsets=plan.subsets if scheduler or jobs < 1 else jobs)
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
    """Every subset with the seed of each replicate: what strict generators are trained on."""
    for n in plan.n_per_class:
        for subset in range(plan.subsets):
            key = CellKey(n_per_class=n, subset=subset, arm="")
            for replicate in range(plan.replicates):
                yield _subset(plan, real, key), _replicate_seed(plan, key, replicate)


def _subset(plan: Plan, real: RealImages, key: CellKey) -> Dataset:
    return subset_of(
        real.pool,
        n_per_class=key.n_per_class,
        subset=key.subset,
        seed=plan.seed,
        cut=plan.cut,
        noisy_labels=plan.noisy_labels,
    )


def spread(keys: Sequence[CellKey], *, subsets: int) -> list[CellKey]:
    """In an order for work side by side: so many subsets at once, each arm of theirs before the next arm.

    The cells of one subset share a strict generator, and would wait for each other while it is trained. Subsets of the
    baseline alone come last, so that none with a generator is left without another to be trained beside it.
    """
    places = {arm: place for place, arm in enumerate(dict.fromkeys(key.arm for key in keys))}
    by_cells = Counter((key.n_per_class, key.subset) for key in keys).most_common()
    groups = {of: place // subsets for place, (of, _) in enumerate(by_cells)}
    return sorted(keys, key=lambda key: (groups[key.n_per_class, key.subset], places[key.arm]))


def _jobs(
    plan: Plan, real: RealImages, sources: Mapping[str, GeneratorSource], keys: Sequence[CellKey]
) -> Iterator[_Job]:
    for key in keys:
        source = ArmName.parse(key.arm).source
        yield _Job(
            key=key,
            plan=plan,
            real=_subset(plan, real, key),
            held_out=real.held_out,
            source=sources[source] if source else None,
            classes=len(real.pool.class_names),
            seeds=tuple(_replicate_seed(plan, key, replicate) for replicate in range(plan.replicates)),
        )


def check_sizes(plan: Plan, real: RealImages) -> None:
    """Fail before the first cell rather than at the largest size.

    Raises:
        InvalidInputError: a class has fewer images than the largest size asks for, or a class to be cut does not exist.
    """
    minority(real.pool, plan.cut)
    largest = max(*plan.n_per_class, *plan.curve, 1)
    subset_indices(real.pool.labels, n_per_class=largest, subset=0, seed=plan.seed)
