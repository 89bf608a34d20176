"""Tests of arms and their full names."""

from __future__ import annotations

import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.experiment.arms import Arm, Variant, check_arms


def test_unknown_arms_are_refused_and_the_known_arms_listed() -> None:
    with pytest.raises(InvalidInputError, match=r"flipped.*expected one or more of real, oversampled"):
        check_arms(["real", "flipped"])
    with pytest.raises(InvalidInputError, match="no arm"):
        check_arms([])


def test_a_full_name_is_parsed() -> None:
    assert Arm.parse("classical+gan (strict)") == Arm(name="classical+gan", budget="strict")
    assert Arm.parse("gan (oracle forge-3fa1b2, 5×)") == Arm(
        name="gan", budget="oracle", generator="forge-3fa1b2", variant=Variant(ratio=5)
    )
    assert Arm.parse("real") == Arm(name="real")


@pytest.mark.parametrize(
    "name",
    [
        "real",
        "gan (oracle)",
        "gan (oracle forge-3fa1b2)",
        "classical+gan (strict, 0.5×)",
        "gan (strict, expansion 1.3)",
        "gan (semi a-b, fresh)",
        "gan (oracle, filtered)",
        "synthetic (oracle, expansion 1.3, fresh, filtered)",
        "gan (semi, confidence 0.5)",
        "pseudo-labeled (confidence 0.5)",
        "pseudo-labeled (5×)",
        "classical+gan (transfer, share 0.1)",
        "classical+pretrained (adapted)",
    ],
)
def test_a_parsed_full_name_has_the_same_text(name: str) -> None:
    assert str(Arm.parse(name)) == name


@pytest.mark.parametrize(
    "name", ["flipped", "gan (oracle, stale)", "gan (oracle, many×)", "gan (oracle, fresh, stale)"]
)
def test_unknown_arms_and_variants_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"flipped|stale|many"):
        Arm.parse(name)


def test_a_variant_is_rounded_like_its_name() -> None:
    variant = Variant(ratio=1 / 3)
    assert Variant.parse(str(variant)) == variant
