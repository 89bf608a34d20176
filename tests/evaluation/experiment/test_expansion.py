"""Tests of the choice of an expansion on training images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.cli.experiment import experiment
from digitforge_evaluation.experiment.expansion import Trial, Trials, choose, run_trials
from digitforge_evaluation.experiment.generators import Exported
from digitforge_evaluation.experiment.subsets import RealImages

QUICK = ["choose-expansion", "--factors=1,1.5", "--replicates=3", "--n=100", "--classifier=svm", "--steps=4"]


def trials(errors: dict[float, list[float]]) -> list[Trial]:
    return [
        Trial(factor=factor, repeat=repeat, error=error)
        for factor, of_factor in errors.items()
        for repeat, error in enumerate(of_factor)
    ]


def test_the_least_expansion_within_one_standard_error_of_the_lowest_is_chosen() -> None:
    # Differences from 1.4 have mean 0.01 and standard error 0.03 / √3 = 0.0173 at 1.3, and 0.04 and 0.0173 at 1.2.
    errors = {1.0: [0.4, 0.4, 0.4], 1.2: [0.24, 0.27, 0.21], 1.3: [0.21, 0.24, 0.18], 1.4: [0.2, 0.2, 0.2]}
    choice = choose(trials(errors))
    assert choice.factor == 1.3
    assert [each.factor for each in choice.tried] == [1.0, 1.2, 1.3, 1.4]
    assert [each.excess for each in choice.tried] == pytest.approx([0.2, 0.04, 0.01, 0])
    assert [each.standard_error for each in choice.tried] == pytest.approx([0, 0.0173205, 0.0173205, 0], abs=1e-6)


def test_noise_that_all_factors_share_does_not_hide_a_difference() -> None:
    assert choose(trials({1.0: [0.1, 0.2, 0.3], 1.2: [0.09, 0.19, 0.29]})).factor == 1.2


def test_a_factor_below_1_competes_by_its_distance_from_1() -> None:
    assert choose(trials({0.9: [0.2] * 3, 1.3: [0.2] * 3})).factor == 0.9


@pytest.mark.parametrize("errors", [{1.0: [0.1, 0.2, 0.3], 1.2: [0.1, 0.2]}, {1.0: [0.1, 0.2], 1.2: [0.1, 0.2]}])
def test_different_or_too_few_repeats_are_refused(errors: dict[float, list[float]]) -> None:
    with pytest.raises(InvalidInputError, match="expected the same ones, at least 3"):
        choose(trials(errors))


@pytest.mark.parametrize("factors", [(1.2,), (1.2, 1.2), (1.0, 0.0), (1.0, float("inf"))])
def test_fewer_than_two_possible_factors_are_refused(factors: tuple[float, ...]) -> None:
    with pytest.raises(InvalidInputError, match="expected at least two different numbers above 0"):
        Trials(factors=factors)


def test_finished_trials_are_not_repeated_and_the_others_do_not_depend_on_them(
    real: RealImages, exported: Exported
) -> None:
    plan = Trials(factors=(1.0, 1.5), replicates=3, n=100, classifier="svm", steps=4)
    found = list(run_trials(plan, real.pool, exported))
    assert [(each.factor, each.repeat) for each in found] == [(f, r) for r in range(3) for f in (1.0, 1.5)]
    assert len({each.error for each in found}) > 1  # digits differ by factor and repeat
    assert list(run_trials(plan, real.pool, exported, done=found[:4])) == found[4:]


def test_the_command_writes_the_choice_and_continues(exported_model: Path, few_npz: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "choice.json"
    arguments = [*QUICK, f"--model={exported_model}", f"--data={few_npz}", f"--out={out}"]
    result = CliRunner().invoke(experiment, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    saved = json.loads(out.read_bytes())
    choice = choose([Trial(**values) for values in saved["trials"]])
    assert saved["choice"]["factor"] == choice.factor
    assert f"chosen: {choice.factor:g}" in result.output
    assert saved["identity"]["data"]["images"] == 600  # the training images alone

    saved["trials"][-1]["error"] = 0.0  # a value that a new trial would not have
    out.write_text(json.dumps({name: value for name, value in saved.items() if name != "choice"}))
    CliRunner().invoke(experiment, arguments, catch_exceptions=False)
    assert json.loads(out.read_bytes())["trials"] == saved["trials"]

    with pytest.raises(InvalidInputError, match="holds results with other settings: its n is 100, but yours is 200"):
        CliRunner().invoke(experiment, [*arguments, "--n=200"], catch_exceptions=False)
    out.write_text("[]")
    with pytest.raises(DataError, match="not a file of this command"):
        CliRunner().invoke(experiment, arguments, catch_exceptions=False)
