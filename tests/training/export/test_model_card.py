"""Model cards: what people read about a generator is what its card says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from digitforge_client.contract import MODEL_NAME
from digitforge_training.export import model_card
from digitforge_training.export.saved_model import read_card

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "serving" / "models" / MODEL_NAME

CARD: dict[str, Any] = {
    "name": "letters",
    "generator_id": "0123456789abcdef",
    "recipe": "forge",
    "recipe_config": {"summary": "The default."},
    "image_shape": [28, 28, 1],
    "class_names": ["a|b", "c\nd"],
    "latent_size": 64,
    "latent_law": "normal",
    "expansion": {"factor": 1.0, "judge": None},
    "training_data": {
        "name": "mine",
        "split": "train",
        "images": 60,
        "sha256": "5a",
        "fitted": {"size": 28, "fit": "pad"},
    },
    "images_seen": 640,
    "seed": 3,
    "libraries": {"tensorflow": "2.21.0"},
    "metrics": {},
}


def test_an_export_has_a_model_card_of_its_own_card(exported_model: Path) -> None:
    text = (exported_model / "1" / model_card.NAME).read_text("utf-8")
    assert text == model_card.model_card(read_card(exported_model / "1"))


def test_a_card_without_metrics_says_how_to_measure() -> None:
    text = model_card.model_card(CARD)
    assert "Nobody has measured this generator" in text
    assert "| training data | mine, split train, 60 images (size 28, fit pad); SHA-256 `5a` |" in text
    assert "| classes | `a\\|b`, `c d` |" in text


def test_an_adapted_generator_names_its_parent_and_both_data_sets() -> None:
    parent = {
        "generator_id": "fedcba9876543210",
        "recipe": "forge",
        "training_data": {"name": "mnist", "split": "train", "images": 60_000, "sha256": "d1"},
    }
    text = model_card.model_card(CARD | {"parent": parent})
    assert "| adapted from | generator `fedcba9876543210`, recipe `forge`, trained on mnist, split train, 60000" in text
    assert "learned from the 60 images of mine and the 60000 images of mnist" in text


def test_an_unconditional_generator_has_no_labels() -> None:
    text = model_card.model_card(CARD | {"class_names": []})
    assert "a generator without classes" in text
    assert "Its images have no labels." in text


def test_the_page_of_the_shipped_generator_agrees_with_its_card() -> None:
    (version,) = [path for path in SHIPPED.iterdir() if path.name.isdigit()]
    card, text = read_card(version), (SHIPPED / model_card.NAME).read_text("utf-8")
    assert text.startswith(f"# Model card: {card['name']}, version {version.name}\n")
    assert f"| generator | `{card['generator_id']}` |" in text
    data = card["training_data"]
    assert f"{data['images'] // 1000} {data['images'] % 1000:03} images" in text
    assert data["sha256"] in text
    assert f"({card['images_seen']:,} images".replace(",", " ") in text
    assert f"| expansion | {card['expansion']['factor']}," in text
    for name in ("fd[digitnet-64]@10k", "kd[digitnet-64]@100x1000", "precision", "recall", "density", "coverage"):
        value = next(each["value"] for key, each in card["metrics"].items() if key.startswith(name))
        (shown,) = re.findall(rf"^\| `?{re.escape(name)}`?(?:, k = 5)? \| (−?[\d.]+)", text, re.MULTILINE)
        # the page was measured again, after an export with a faster graph that may round pixels differently
        assert abs(float(shown) - value) < 2e-4, name
