"""Floors: every metric measured on real images in place of generated ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.quality.comparison import Comparison, StandIns
from digitforge_evaluation.quality.metric import Metric
from digitforge_evaluation.quality.reference import CLASS_DISTANCE, Floor, floor_of


def measure_floors(comparison: Comparison, metrics: Mapping[str, Metric]) -> dict[str, Floor]:
    """Measure real images in place of generated ones.

    Args:
        comparison: must have real images. Only the number of its generated images matters.
        metrics: key => metric. ``distance`` adds the distance of each class.

    Returns:
        Key => floor. A metric that cannot be computed has none.
    """
    floors: dict[str, Floor] = {}
    values: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, int] = {}

    def add(key: str, metric: Metric, real: Comparison) -> None:
        with suppress(InvalidInputError):
            value = metric.measure(real).value
            values[key].append(value)
            sizes[key] = len(real.generated)

    by_stand_ins: dict[StandIns, dict[str, Metric]] = defaultdict(dict)
    for key, metric in metrics.items():
        if metric.floor is not None:
            with suppress(InvalidInputError):
                floors[key] = metric.floor(comparison)
        else:
            by_stand_ins[metric.stand_ins][key] = metric
    for stand_ins, group in by_stand_ins.items():
        for real in stand_ins(comparison):
            for key, metric in group.items():
                add(key, metric, real)
            if "distance" in group:
                for label in real.reference.of_classes:
                    add(f"{CLASS_DISTANCE}{label}", group["distance"], real.of_class(label))
    return floors | {key: floor_of(found, n=sizes[key]) for key, found in values.items()}
