"""The experiment: arms × sizes × subsets, one classifier's accuracy per cell.

A *cell* is one arm on one subset of real images. All arms of a subset see the same real images, the same digits of
a generator and the same classifier seeds, so their differences within the subset are what the arms make of them.
Held-out images are looked at once per cell, when its classifier is finished; nothing is chosen by them.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np

from digitforge_client.contract import SEEDS
from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.arms import ARMS, Rows, check_arms, draw_for, split_name
from digitforge_evaluation.classifiers import CLASSIFIERS, classifier
from digitforge_evaluation.generators import Budget, GeneratorSource
from digitforge_evaluation.sources import Drawn
from digitforge_evaluation.store import CellKey, CellResult, Store
from digitforge_evaluation.subsets import HeldOut, RealImages, subset_indices
from digitforge_training.data import Dataset


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What an experiment does.

    Raises:
        InvalidInputError: a field is out of range.
    """

    arms: tuple[str, ...] = tuple(ARMS)
    n_per_class: tuple[int, ...] = (10,)
    """Sizes: real images per class."""
    subsets: int = 10
    """Subsets of real images per size; ten are needed for a verdict."""
    replicates: int = 1
    """Generator draws and classifier seeds inside each subset; their results are averaged."""
    classifier: str = "cnn"
    steps: int = 500
    """Optimiser steps of every fit, in every arm."""
    ratio: float = 10.0
    """Generated digits per real image."""
    generated_share: float = 0.5
    """Share of generated digits among the rows an arm with both is trained on."""
    held_out: HeldOut = "test"
    """``validation`` sets a twelfth of the training set aside, for choosing settings without the test set."""
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", check_arms(self.arms))
        object.__setattr__(self, "n_per_class", tuple(sorted(set(self.n_per_class))))
        if not self.n_per_class or self.n_per_class[0] < 1:
            raise InvalidInputError(f"n per class is {list(self.n_per_class)}; expected numbers of at least 1")
        for name in ("subsets", "replicates", "steps"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.classifier not in CLASSIFIERS:
            raise InvalidInputError(
                f"there is no classifier {self.classifier!r}; expected one of {', '.join(CLASSIFIERS)}"
            )
        if not self.ratio > 0:
            raise InvalidInputError(f"ratio is {self.ratio}; expected more than 0 generated digits per real image")
        if not 0 < self.generated_share < 1:
            raise InvalidInputError(f"the share of generated digits is {self.generated_share}; expected 0 to 1")
        if self.held_out not in ("test", "validation"):
            raise InvalidInputError(f"held out is {self.held_out!r}; expected 'test' or 'validation'")
        if self.seed < 0:
            raise InvalidInputError(f"seed is {self.seed}; expected 0 or more")


def arm_names(plan: Plan, sources: Mapping[Budget, GeneratorSource]) -> tuple[str, ...]:
    """The plan's arms with their generators' budgets: ``real``, ``gan (oracle)`` and so on.

    Raises:
        InvalidInputError: an arm needs a generator and there is none.
    """
    names: list[str] = []
    for arm in plan.arms:
        if ARMS[arm].generator and not sources:
            raise InvalidInputError(f"the arm {arm!r} needs generated digits; name a server with --server")
        names += [f"{arm} ({budget})" for budget in sources] if ARMS[arm].generator else [arm]
    return tuple(names)


def plan_cells(plan: Plan, sources: Mapping[Budget, GeneratorSource]) -> list[CellKey]:
    """All cells, in the order in which they are run: every arm of a subset before the next subset."""
    return [
        CellKey(n_per_class=n, subset=subset, arm=arm)
        for n in plan.n_per_class
        for subset in range(plan.subsets)
        for arm in arm_names(plan, sources)
    ]


def identity(plan: Plan, real: RealImages, sources: Mapping[Budget, GeneratorSource]) -> dict[str, Any]:
    """Everything that a cell's result depends on besides its key; JSON values.

    Arms, sizes and the number of subsets are not part of it: a plan may grow and keep its finished cells.
    """
    settings = asdict(plan)
    for extent in ("arms", "n_per_class", "subsets"):
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
    arm, _ = split_name(job.key.arm)
    model = classifier(
        job.plan.classifier, image_shape=job.real.images.shape[1:], classes=job.classes, steps=job.plan.steps
    )
    confusion = np.zeros((job.classes, job.classes), np.int64)
    notes: list[dict[str, Any]] = []
    for seed in job.seeds:
        generated = None
        if job.source is not None:
            generated, note = _generated(job, job.source, seed)
            notes.append(note)
        draw = draw_for(
            arm,
            images=job.real.images,
            labels=job.real.labels,
            generated=generated,
            generated_share=job.plan.generated_share,
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


@lru_cache(maxsize=2)  # every arm of a subset asks for the same digits
def _drawn(generator: Any, n: int, classes: int, seed: int) -> Drawn:
    return generator.draw(n, proportions=(1,) * classes, seed=seed)


def _generated(job: _Job, source: GeneratorSource, seed: int) -> tuple[Rows, dict[str, Any]]:
    """Digits for one replicate, as many of each class, and where they came from."""
    generator = source.generator_for(job.real, seed=seed)
    n = max(job.classes, round(job.plan.ratio * len(job.real)))
    drawn = _drawn(cast(Any, generator), n, job.classes, seed)
    assert drawn.labels is not None
    assert generator.card is not None  # check_fits refused generators without classes or card
    return (drawn.images, drawn.labels), {"generator_id": generator.card["generator_id"], "seed": seed, "n": n}


def run(
    plan: Plan,
    real: RealImages,
    sources: Mapping[Budget, GeneratorSource],
    store: Store,
    *,
    jobs: int = 1,
    on_cell: Callable[[CellResult], None] = lambda _: None,
) -> None:
    """Run the cells of *plan* that *store* lacks, and store each as soon as it is finished.

    Args:
        plan: what to do.
        real: the images.
        sources: where generated digits come from, by budget.
        store: open for writing, with the `identity` of these three.
        jobs: processes that run cells side by side.
        on_cell: called after each cell is stored.

    Raises:
        InvalidInputError: a class has fewer images than a size asks for.
        ServerError: a generator's server went away; finished cells are kept.
    """
    from joblib import Parallel, delayed

    missing = [key for key in plan_cells(plan, sources) if key not in store.cells]
    results = Parallel(n_jobs=jobs, return_as="generator_unordered")(
        delayed(_run_cell)(job) for job in _jobs(plan, real, sources, missing)
    )
    for result in results:
        store.append(result)
        on_cell(result)


def _jobs(
    plan: Plan, real: RealImages, sources: Mapping[Budget, GeneratorSource], keys: Sequence[CellKey]
) -> Iterator[_Job]:
    for key in keys:
        _, budget = split_name(key.arm)
        indices = subset_indices(real.pool.labels, n_per_class=key.n_per_class, subset=key.subset, seed=plan.seed)
        yield _Job(
            key=key,
            plan=plan,
            real=real.pool.subset(indices),
            held_out=real.held_out,
            source=sources[Budget(budget)] if budget else None,
            classes=len(real.pool.class_names),
            seeds=tuple(_replicate_seed(plan, key, replicate) for replicate in range(plan.replicates)),
        )


def check_sizes(plan: Plan, real: RealImages) -> None:
    """Fail before the first cell rather than at the largest size.

    Raises:
        InvalidInputError: a class has fewer images than the largest size asks for.
    """
    subset_indices(real.pool.labels, n_per_class=max(plan.n_per_class), subset=0, seed=plan.seed)
