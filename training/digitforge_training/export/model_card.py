"""The model card of an exported generator, for people: ``MODEL_CARD.md``. It says what the generator's card says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NAME: Final = "MODEL_CARD.md"

_LEGEND: Final = """
Each line has the number n of generated images. The 95 % intervals cover only the choice of these images. The training
floor is the score of real training images, in place of generated ones: a generator that copies them reaches it. The
unseen floor is the score of real images that no generator has seen. ± is one standard deviation over repeats.
"""
_UNMEASURED: Final = """
Nobody has measured this generator. Do it before you use it:

```sh
digitforge evaluate --model MODEL_FOLDER --data DATA --json > report.json
digitforge export RUN --to MODEL_FOLDER --metrics report.json
```
"""


def model_card(card: Mapping[str, Any]) -> str:
    """Describe a generator in Markdown.

    Args:
        card: its card, see `card.make_card`.
    """
    size = " × ".join(map(str, card["image_shape"]))
    names = card["class_names"]
    kind = (
        f"a class-conditional generator of images in {len(names)} classes" if names else "a generator without classes"
    )
    about = {
        "generator": f"`{card['generator_id']}`",
        "images": f"{size} (height, width, channels), 8 bits",
        "classes": ", ".join(f"`{_text(name)}`" for name in names) or "none",
        "recipe": f"`{_text(card['recipe'])}`: {_text(card['recipe_config']['summary'])}",
        **({"adapted from": _parent(card["parent"])} if card.get("parent") else {}),
        "training data": _data(card["training_data"]),
        "training": f"{card['images_seen']} real images shown, including repetitions; seed {card['seed']}",
        "latents": f"{card['latent_size']} numbers, {card['latent_law']}; {_expansion(card['expansion'])}",
        "libraries": ", ".join(f"{name} {version}" for name, version in card["libraries"].items()),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in about.items())
    limits = "\n".join(f"* {limit}" for limit in _limits(card))
    return f"""# Model card: {_text(card["name"])}, generator {card["generator_id"]}

This is {kind}. `digitforge export` wrote this page from the card inside the model.

| | |
|---|---|
{rows}

## Metrics
{_metrics(card["metrics"])}
## Limits

{limits}

## License

This page does not name a license. Whoever publishes the generator chooses one, and considers the license of the
training data.

## Cite an image

An image has an address: generator, label and row seed. The same address always gives the same image: at most one gray
level apart on any pixel, and equal on at least 99.9 % of the pixels. Cite images as

> digitforge, generator {card["generator_id"]}, seed S, rows A to B

`digitforge sample --seed S --start A --n N` makes them again, from any server of this generator.
"""


def _data(data: Mapping[str, Any]) -> str:
    fitted = data.get("fitted") or {}
    fitting = ", ".join(f"{name} {value}" for name, value in fitted.items() if value not in (None, False))
    return (
        f"{_text(data['name'])}, split {data['split']}, {data['images']} images"
        + (f" ({_text(fitting)})" if fitting else "")
        + f"; SHA-256 `{data['sha256']}`"
    )


def _parent(parent: Mapping[str, Any]) -> str:
    return (
        f"generator `{parent['generator_id']}`, recipe `{_text(parent['recipe'])}`, trained on "
        f"{_data(parent['training_data'])}"
    )


def _expansion(expansion: Mapping[str, Any]) -> str:
    if expansion["factor"] == 1:
        return "no expansion"
    by = f", chosen by {_text(expansion['judge'])}" if expansion.get("judge") else ""
    return f"expansion {expansion['factor']} inside the model{by}"


def _metrics(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    if not metrics:
        return _UNMEASURED
    rows = "\n".join(f"| `{_text(name)}` | {row(figure)} |" for name, figure in metrics.items())
    return f"{_LEGEND}\n| metric | generated | training floor | unseen floor | n |\n|---|---|---|---|---|\n{rows}\n"


def row(figure: Mapping[str, Any]) -> str:
    """Value, floors and sample size of a metric, as cells of a table.

    Raises:
        KeyError, TypeError, ValueError, IndexError: a number is missing or is not a number.
    """
    floors = f"{_floor(figure.get('training_floor'))} | {_floor(figure.get('unseen_floor'))}"
    return f"{_value(figure)} | {floors} | {figure['n']}"


def _value(figure: Mapping[str, Any]) -> str:
    interval = figure.get("interval")
    return f"{figure['value']:.4g}" + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")


def _floor(floor: Mapping[str, Any] | None) -> str:
    if floor is None:
        return "–"
    deviation = floor.get("standard_deviation")
    spread = "" if deviation is None else f" ± {deviation:.2g}"
    return f"{floor['mean']:.4g}{spread} (n = {floor['n']})"


def _limits(card: Mapping[str, Any]) -> list[str]:
    data = card["training_data"]
    seen = [f"the {data['images']} images of {_text(data['name'])}"]
    if card.get("parent"):
        other = card["parent"]["training_data"]
        seen.append(f"the {other['images']} images of {_text(other['name'])}")
    return [
        f"It has learned from {' and '.join(seen)}, and inherits their gaps and biases. Images from elsewhere can look "
        "different.",
        "It carries hashes of its training images: `digitforge evaluate` and `digitforge experiment` never hold out "
        "one of these. Hashes do not recognize altered copies.",
        "Some images do not look like their label." if card["class_names"] else "Its images have no labels.",
        "Whether its images help a classifier depends on the classifier and on its real images. Measure it: "
        "`digitforge experiment run`.",
    ]


def _text(value: Any) -> str:
    """A text in a cell of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")
