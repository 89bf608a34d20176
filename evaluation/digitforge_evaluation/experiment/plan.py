"""The plan of an experiment: arms × sizes × subsets, one classifier's accuracy per cell.

A *cell* is one arm on one subset of real images. All arms of a subset see the same real images, the same digits of
a generator and the same classifier seeds, so their differences within the subset are what the arms make of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import check_classifier
from digitforge_evaluation.classifiers.transformations import ELASTIC
from digitforge_evaluation.experiment.arms import ARMS, PLAIN, Arm, Variant, baseline, check_arms
from digitforge_evaluation.experiment.generators import GeneratorSource
from digitforge_evaluation.experiment.store import CellKey
from digitforge_evaluation.experiment.subsets import HeldOut, RealImages, minority, subset_indices

#: Fields of a plan that say how much of it is run; finished cells stay good when they change.
_EXTENT: Final = ("arms", "n_per_class", "curve", "subsets", "sweep", "expansions", "fresh", "filtered")


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
    def baseline(self) -> Arm:
        """The arm that the verdict compares with."""
        return baseline(unbalanced=bool(self.cut))

    @property
    def variants(self) -> tuple[Variant, ...]:
        """How generated digits are used; verdicts are taken on the first, which has no name."""
        return (
            PLAIN,
            *(Variant(ratio=ratio) for ratio in self.sweep),
            *(Variant(expansion=expansion) for expansion in self.expansions),
            *([Variant(fresh=True)] if self.fresh else []),
            *([Variant(filtered=True)] if self.filtered else []),
        )


def plan_arms(plan: Plan, sources: Mapping[str, GeneratorSource]) -> tuple[Arm, ...]:
    """The plan's arms with each generator and variant: ``real``, ``gan (oracle)``, ``gan (oracle, 5×)`` and so on.

    Raises:
        InvalidInputError: an arm needs a generator and there is none.
    """
    generated = [name for name in plan.arms if ARMS[name].generator]
    if generated and not sources:
        raise InvalidInputError(f"the arm {generated[0]!r} needs generated digits; name a server with --server")
    arms = [Arm(name=name) for name in plan.arms if not ARMS[name].generator]
    for source in sources:
        budget, _, generator = source.partition(" ")
        # Those with the same digits follow each other, so that these are drawn once (see `run._drawn`).
        arms += [
            Arm(name=name, budget=budget, generator=generator, variant=variant)
            for variant in plan.variants
            for name in generated
        ]
    return tuple(arms)


def plan_cells(plan: Plan, sources: Mapping[str, GeneratorSource]) -> list[CellKey]:
    """All cells, in the order in which they are run: every arm of a subset before the next subset."""
    arms = dict.fromkeys(plan.curve, (plan.baseline,)) | {n: plan_arms(plan, sources) for n in plan.n_per_class}
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


def check_sizes(plan: Plan, real: RealImages) -> None:
    """Fail before the first cell rather than at the largest size.

    Raises:
        InvalidInputError: a class has fewer images than the largest size asks for, or a class to be cut does not exist.
    """
    minority(real.pool, plan.cut)
    largest = max(*plan.n_per_class, *plan.curve, 1)
    subset_indices(real.pool.labels, n_per_class=largest, subset=0, seed=plan.seed)
