"""Import of a user's own classifier."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.classifiers.classifiers import check_classifier


def test_a_classifier_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_my_own.py").write_text(
        "class Silly:\n    def fit(self, X, y): return self\n    def predict(self, X): return X[:, 0]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    check_classifier("of_my_own:Silly")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere:Thing", "cannot import"),
        ("sklearn.svm:Nothing", "cannot import"),
        ("sklearn.svm:", "expected MODULE:NAME"),
        ("sklearn.preprocessing:StandardScaler", "without predict"),
        ("sklearn.ensemble:VotingClassifier", "without arguments"),
        ("math:pi", "expected a class or a function"),
        ("svn", "MODULE:NAME of your own"),
    ],
)
def test_the_error_about_a_wrong_classifier_gives_the_reason(path: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_classifier(path)
