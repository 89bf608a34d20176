"""The plan of an experiment: arms × sizes × subsets.

A *cell* is one arm on one subset of real images. Its result is the accuracy of a classifier, averaged over replicates.
All arms of a subset use the same real images, the same digits of a generator and the same classifier seeds. So
differences within a subset come from the arms alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import BATCH_SIZE, check_classifier, learns_stepwise
from digitforge_evaluation.classifiers.transformations import ELASTIC
from digitforge_evaluation.experiment.arms import ARMS, PLAIN, PRIMARY, Arm, Variant, baseline, check_arms
from digitforge_evaluation.experiment.generators import GeneratorSource
from digitforge_evaluation.experiment.statistics import check_family
from digitforge_evaluation.experiment.store import CellKey
from digitforge_evaluation.experiment.subsets import HeldOut, RealImages, minority, subset_indices

#: Fields of a plan that add or remove cells. Finished cells stay valid when these fields change.
_EXTENT: Final = (
    *("arms", "n_per_class", "curve", "subsets"),
    *("sweep", "shares", "expansions", "confidences", "fresh", "filtered", "gafi"),
)
#: Default of ``Plan.confidence``: keep all. The best on validation images, see docs/results/few-labels.md.
CONFIDENCE: Final = 0.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of an experiment.

    Raises:
        InvalidInputError: a field is out of range.
    """

    arms: tuple[str, ...] = tuple(ARMS)  #: names of arms, keys of ``ARMS``
    n_per_class: tuple[int, ...] = (10,)  #: sizes: real images per class
    curve: tuple[int, ...] = ()  #: extra sizes for the baseline alone, which give its learning curve
    subsets: int = 10  #: subsets of real images per size; a verdict needs at least ten
    replicates: int = 1  #: classifier seeds and generator draws per subset; their results are averaged
    classifier: str = "cnn"  #: name of a classifier, or ``MODULE:NAME``
    steps: int = 500  #: least number of optimizer steps of each classifier
    #: Least number of passes over the real images. Large subsets get more steps than `steps` to reach it. All arms of a
    #: subset get the same number.
    passes: float = 0.0
    ratio: float = 10.0  #: generated images, or pseudo-labeled images, per real image
    #: Share of generated images, or pseudo-labeled images, among the training rows, in arms with both.
    generated_share: float = 0.5
    sweep: tuple[float, ...] = ()  #: other ratios to compare with *ratio*
    shares: tuple[float, ...] = ()  #: other shares to compare with *generated_share*
    expansions: tuple[float, ...] = ()  #: factors for the latents; each adds a variant to compare
    fresh: bool = False  #: add the variant that uses each generated digit only once
    #: Add the variant that uses only digits whose label a classifier confirms. The classifier is trained on the subset
    #: alone.
    filtered: bool = False
    #: Add the variant that does all three, as in GaFi (Lampis et al. 2023, arXiv:2305.10118), with this factor.
    gafi: float | None = None
    #: A classifier trained on the subset labels unlabeled real images, and the digits of generators without classes.
    #: Use only those with at least this confidence.
    confidence: float = CONFIDENCE
    confidences: tuple[float, ...] = ()  #: other confidences to compare with *confidence*
    #: Names of classes, and the share of their images that subsets keep, between 0 and 1.
    cut: Mapping[str, float] = field(default_factory=dict)
    noisy_labels: float = 0.0  #: share of each subset's labels to replace with wrong ones
    #: Elastic distortion in classical augmentation: root mean square displacement in pixels of a 28-pixel image.
    elastic: float = ELASTIC
    #: ``test``; or ``validation``, to hold out a twelfth of the training set and choose settings; or ``rest``, to hold
    #: out all training images that are not in the subset.
    held_out: HeldOut = "test"
    seed: int = 0  #: random seed

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", check_arms(self.arms))
        object.__setattr__(self, "n_per_class", tuple(sorted(set(self.n_per_class))))
        object.__setattr__(self, "curve", tuple(sorted(set(self.curve) - set(self.n_per_class))))
        object.__setattr__(self, "sweep", tuple(sorted(set(self.sweep) - {self.ratio})))
        object.__setattr__(self, "shares", tuple(sorted(set(self.shares) - {self.generated_share})))
        object.__setattr__(self, "expansions", tuple(sorted(set(self.expansions))))
        object.__setattr__(self, "confidences", tuple(sorted(set(self.confidences) - {self.confidence})))
        if not self.n_per_class or min(*self.n_per_class, *self.curve, 1) < 1:
            raise InvalidInputError(
                f"the sizes are {[*self.n_per_class, *self.curve]}; expected at least 1 image per class"
            )
        numbers = {"subsets": 1, "replicates": 1, "steps": 1, "seed": 0, "passes": 0, "elastic": 0}
        for name, least in numbers.items():
            if not least <= getattr(self, name) < math.inf:
                raise InvalidInputError(f"{name} is {getattr(self, name)}; expected at least {least}")
        ratios = [("ratio", each, "more than 0 generated images per real image") for each in (self.ratio, *self.sweep)]
        gafi = [] if self.gafi is None else [("gafi", self.gafi)]
        factors = [*(("expansion", each) for each in self.expansions), *gafi]
        expansions = [(name, factor, "a factor above 0, such as 1.2") for name, factor in factors]
        for name, factor, expected in (*ratios, *expansions):
            if not 0 < factor < math.inf:
                raise InvalidInputError(f"{name} is {factor}; expected {expected}")
        for name, share in self.cut.items():
            if not 0 < share < 1:
                raise InvalidInputError(
                    f"the share of class {name} to keep is {share}; expected a number above 0 and below 1, such as 0.01"
                )
        shares = [
            ("noisy-labels", self.noisy_labels),
            *(("confidence", c) for c in (self.confidence, *self.confidences)),
        ]
        for name, value in shares:
            if not 0 <= value < 1:
                raise InvalidInputError(f"{name} is {value}; expected a number from 0 to below 1")
        for share in (self.generated_share, *self.shares):
            if not 0 < share < 1:
                raise InvalidInputError(f"generated-share is {share}; expected a number above 0 and below 1")
        if self.held_out not in ("test", "validation", "rest"):
            raise InvalidInputError(f"held-out is {self.held_out!r}; expected 'test', 'validation' or 'rest'")
        self._check_combinations()

    def _check_combinations(self) -> None:
        check_classifier(self.classifier)
        ordered = [name for name in self.arms if ARMS[name].pretrained]
        if ordered and not learns_stepwise(self.classifier):
            raise InvalidInputError(
                f"the arm {ordered[0]!r} needs a classifier that learns step by step, and {self.classifier} learns "
                "from all images at once; use cnn or cnn-large, or leave out this arm"
            )
        unlabeled = [name for name in self.arms if ARMS[name].pseudo_labels]
        if unlabeled and self.held_out == "rest":
            raise InvalidInputError(
                f"the arm {unlabeled[0]!r} learns from the images outside of the subset, on which held-out 'rest' "
                "measures accuracy; use held-out 'test', or leave out this arm"
            )

    def steps_for(self, images: int) -> int:
        """Optimizer steps of a classifier on a subset of *images* real images."""
        return max(self.steps, math.ceil(self.passes * images / BATCH_SIZE))

    @property
    def baseline(self) -> Arm:
        """The arm that the primary arm is compared with."""
        return baseline(unbalanced=bool(self.cut))

    @property
    def variants(self) -> tuple[Variant, ...]:
        """All variants of arms that add images. Verdicts use the first, the plain one."""
        return (
            PLAIN,
            *(Variant(ratio=ratio) for ratio in self.sweep),
            *(Variant(share=share) for share in self.shares),
            *(Variant(expansion=expansion) for expansion in self.expansions),
            *(Variant(confidence=confidence) for confidence in self.confidences),
            *([Variant(fresh=True)] if self.fresh else []),
            *([Variant(filtered=True)] if self.filtered else []),
            *([Variant(expansion=self.gafi, fresh=True, filtered=True)] if self.gafi is not None else []),
        )


def plan_arms(plan: Plan, sources: Mapping[str, GeneratorSource]) -> tuple[Arm, ...]:
    """The plan's arms with each generator and variant, such as ``real``, ``gan (oracle)`` and ``gan (oracle, 5×)``.

    Args:
        plan: the plan.
        sources: the generators by budget and name.

    Raises:
        InvalidInputError: an arm needs a generator, but *sources* is empty.
    """
    generated = [name for name in plan.arms if ARMS[name].generator]
    if generated and not sources:
        raise InvalidInputError(
            f"the arm {generated[0]!r} needs generated images; give a generator with --server, --model or --strict"
        )
    arms = [
        Arm(name=name, variant=variant)
        for name in plan.arms
        if not ARMS[name].generator
        for variant in (plan.variants if ARMS[name].pseudo_labels else [PLAIN])
        if variant.of_pseudo_labels
    ]
    for source in sources:
        budget, _, generator = source.partition(" ")
        # Arms with the same digits are neighbors, so these digits are drawn only once (see `run._drawn`).
        arms += [
            Arm(name=name, budget=budget, generator=generator, variant=variant)
            for variant in plan.variants
            if variant.confidence is None or budget == "semi"  # other generators label their digits
            for name in generated
            if variant.share is None or ARMS[name].real  # generated images alone have no share
        ]
    return tuple(arms)


def plan_cells(plan: Plan, sources: Mapping[str, GeneratorSource]) -> list[CellKey]:
    """All cells in the order of the run: all arms of a subset, then the next subset."""
    arms = dict.fromkeys(plan.curve, (plan.baseline,)) | {n: plan_arms(plan, sources) for n in plan.n_per_class}
    return [
        CellKey(n_per_class=n, subset=subset, arm=arm)
        for n in sorted(arms)
        for subset in range(plan.subsets)
        for arm in arms[n]
    ]


def identity(plan: Plan, real: RealImages, sources: Mapping[str, GeneratorSource]) -> dict[str, Any]:
    """Everything that a cell's result depends on, apart from the cell's key, as JSON values.

    It leaves out arms, sizes, variants and the number of subsets. So a plan can grow and keep its finished cells.
    """
    settings = asdict(plan)
    for name in _EXTENT:
        del settings[name]
    if not plan.passes:  # keeps the identity of experiments begun before this setting existed
        del settings["passes"]
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


def check_verdicts(plan: Plan, *, generators: int) -> None:
    """Check before the first cell that the plan can give verdicts, if it has the arms for them.

    Args:
        plan: the plan.
        generators: number of generators.

    Raises:
        InvalidInputError: there are too few subsets for this many comparisons.
    """
    if {PRIMARY, plan.baseline.name} <= set(plan.arms):
        check_family(len(plan.n_per_class) * generators, subsets=plan.subsets)


def check_sizes(plan: Plan, real: RealImages) -> None:
    """Check before the first cell that the images suffice for the plan.

    Raises:
        InvalidInputError: a class has too few images for the largest size, or the data lack a class to cut.
    """
    minority(real.pool, plan.cut)
    largest = max(*plan.n_per_class, *plan.curve, 1)
    subset_indices(real.pool.labels, n_per_class=largest + real.rest, subset=0, seed=plan.seed)
