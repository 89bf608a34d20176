"""Floors: every metric measured on real images in place of generated ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress

from digitforge_client.errors import InvalidInputError
from digitforge_evaluation.quality.comparison import Comparison, StandIns
from digitforge_evaluation.quality.metric import Metric
from digitforge_evaluation.quality.reference import CLASS_DISTANCE, Floor, Floors, floor_of


def measure_floors(comparison: Comparison, metrics: Mapping[str, Metric]) -> Floors:
    """Measure real images in place of generated ones.

    Args:
        comparison: must have real images. Only the number of its generated images matters.
        metrics: key => metric. ``distance`` adds the distance of each class.

    Returns:
        The floors. A metric that cannot be computed has none.
    """
    floors = Floors(
        training=_measure(comparison, {key: (metric, metric.training) for key, metric in metrics.items()}),
        unseen=_measure(comparison, {key: (metric, metric.unseen) for key, metric in metrics.items()}),
    )
    for key, metric in metrics.items():
        if metric.floor is not None:
            with suppress(InvalidInputError):
                floors.training[key] = metric.floor(comparison)
    return floors


def _measure(comparison: Comparison, metrics: Mapping[str, tuple[Metric, StandIns | None]]) -> dict[str, Floor]:
    """The floors of metrics, each with the function that yields its real images."""
    by_stand_ins: dict[StandIns, dict[str, Metric]] = defaultdict(dict)
    for key, (metric, stand_ins) in metrics.items():
        if stand_ins is not None:
            by_stand_ins[stand_ins][key] = metric
    values: dict[str, list[float]] = defaultdict(list)
    sizes: dict[str, dict[str, int]] = {}

    def add(key: str, metric: Metric, real: Comparison) -> None:
        with suppress(InvalidInputError):
            value = metric.measure(real).value
            values[key].append(value)
            sizes[key] = {"n": len(real.generated), "held_out": real.held_out}

    for stand_ins, group in by_stand_ins.items():
        with suppress(InvalidInputError):  # such real images cannot be drawn or compared: these metrics have no floor
            for real in stand_ins(comparison):
                for key, metric in group.items():
                    add(key, metric, real)
                if "distance" in group:
                    for label in real.reference.of_classes:
                        add(f"{CLASS_DISTANCE}{label}", group["distance"], real.of_class(label))
    return {key: floor_of(found, **sizes[key]) for key, found in values.items()}
