"""Names of the statistics of a training, in groups, as TensorBoard and MLflow show them."""

from __future__ import annotations

from typing import Final

#: The file with the statistics, one line of JSON per report.
STATS_FILE: Final = "stats.jsonl"
#: Group of the statistics that compare generated with real images, see `diagnosis.image_statistics`.
_IMAGES: Final = ("roughness", "variety", "coverage", "pixel_distance")
_OTHERS: Final = {
    "pair_accuracy": "accuracy/pair",
    "score_gap": "accuracy/score_gap",
    "judge": "images/judge",
    "images_per_second": "speed/images_per_second",
}


def tag_of(name: str) -> str:
    """The name of a statistic in ``stats.jsonl`` => its name with the group, such as ``loss/generator``."""
    if name.endswith("_loss"):
        return f"loss/{name.removesuffix('_loss')}"
    if name.startswith("class_loss_"):
        return f"loss/class_{name.removeprefix('class_loss_')}"
    if name.startswith("accuracy_"):
        return f"accuracy/{name.removeprefix('accuracy_')}"
    if name in _IMAGES:
        return f"images/{name}"
    return _OTHERS.get(name, f"other/{name}")
