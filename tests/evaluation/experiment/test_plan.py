"""Tests of plans: their checks, arms and cells."""

from __future__ import annotations

from typing import Any

import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.generators import Exported
from digitforge_evaluation.experiment.plan import Plan, check_sizes, plan_arms, plan_cells
from digitforge_evaluation.experiment.subsets import RealImages


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arms": ("flipped",)}, "flipped"),
        ({"n_per_class": (0,)}, "sizes are"),
        ({"n_per_class": ()}, "sizes are"),
        ({"curve": (0,)}, "sizes are"),
        ({"subsets": 0}, "subsets is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"classifier": "oracle"}, "unknown classifier 'oracle'"),
        ({"ratio": 0.0}, "ratio is 0"),
        ({"ratio": float("nan")}, "ratio is nan"),
        ({"sweep": (1.0, 0.0)}, "ratio is 0"),
        ({"expansions": (1.2, 0.0)}, "expansion is 0"),
        ({"gafi": 0.0}, "gafi is 0"),
        ({"gafi": float("nan")}, "gafi is nan"),
        ({"generated_share": 1.0}, "share"),
        ({"cut": {"8": 1.5}}, "share of class 8 to keep is 1.5"),
        ({"noisy_labels": 1.0}, "noisy-labels is 1.0"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"confidences": (0.5, -0.1)}, "confidence is -0.1"),
        ({"elastic": -1.0}, "elastic is -1"),
        ({"elastic": float("inf")}, "elastic is inf"),
        ({"passes": -1.0}, "passes is -1"),
        ({"held_out": "train"}, "held-out is 'train'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_plans_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Plan(**settings)


def test_steps_grow_with_the_images_to_reach_the_passes() -> None:
    plan = Plan(steps=500, passes=20)
    assert [plan.steps_for(images) for images in (100, 1_000, 2_000, 10_000)] == [500, 500, 625, 3125]
    assert Plan(steps=500).steps_for(10_000) == 500


def test_too_few_images_of_a_class_are_refused_before_the_first_cell(real: RealImages) -> None:
    with pytest.raises(InvalidInputError, match=r"class 0 has only 1.*at least 500 images per class"):
        check_sizes(Plan(arms=("real",), n_per_class=(1, 500)), real)
    with pytest.raises(InvalidInputError, match="cannot cut class 'eight'"):
        check_sizes(Plan(cut={"eight": 0.1}), real)


def test_an_arm_with_generated_digits_needs_a_generator() -> None:
    with pytest.raises(InvalidInputError, match="'gan' needs generated images"):
        plan_cells(Plan(arms=("real", "gan")), {})


def test_every_size_and_arm_is_planned_once() -> None:
    cells = plan_cells(Plan(arms=("real", "classical"), n_per_class=(10,), curve=(5, 10, 20), subsets=2), {})
    assert len(cells) == len(set(cells)) == 2 * (2 + 1 + 1)


def test_arms_are_named_by_generator_and_variant(exported: Exported) -> None:
    plan = Plan(arms=("real", "gan"), sweep=(0.5, 10.0), expansions=(1.5,), fresh=True, filtered=True, gafi=1.3)
    arms = plan_arms(plan, {"oracle forge-3fa1b2": exported, "strict": exported})
    assert [str(arm) for arm in arms] == [
        "real",
        *(
            f"gan ({source}{variant})"
            for source in ("oracle forge-3fa1b2", "strict")
            for variant in (
                "",
                ", 0.5×",
                ", expansion 1.5",
                ", fresh",
                ", filtered",
                ", expansion 1.3, fresh, filtered",
            )
        ),
    ]


def test_generated_images_alone_have_no_share(exported: Exported) -> None:
    arms = plan_arms(Plan(arms=("gan", "synthetic"), shares=(0.1,)), {"oracle": exported})
    assert [str(arm) for arm in arms] == ["gan (oracle)", "synthetic (oracle)", "gan (oracle, share 0.1)"]


def test_other_confidences_are_tried_only_where_a_classifier_labels_images(exported: Exported) -> None:
    plan = Plan(arms=("real", "pseudo-labeled", "gan"), confidence=0.9, confidences=(0.5, 0.9))
    arms = plan_arms(plan, {"oracle": exported, "semi": exported})
    assert [str(arm) for arm in arms] == [
        "real",
        "pseudo-labeled",
        "pseudo-labeled (confidence 0.5)",
        "gan (oracle)",
        "gan (semi)",
        "gan (semi, confidence 0.5)",
    ]
