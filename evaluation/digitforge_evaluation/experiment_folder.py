"""An experiment in a folder: ``results.jsonl``, ``experiment.json``, ``samples.npz``, and the report made of them."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np

from digitforge_client.common.archives import open_archive
from digitforge_client.common.files import replacing
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.experiment import benefit
from digitforge_evaluation.experiment.analysis import Analysis, analyze
from digitforge_evaluation.experiment.configuration import write_config
from digitforge_evaluation.experiment.generators import Budget, Exported, GeneratorSource, Served, budget_of
from digitforge_evaluation.experiment.plan import Plan, check_sizes, identity, plan_cells
from digitforge_evaluation.experiment.run import run_cells, subsets_and_seeds
from digitforge_evaluation.experiment.store import RESULTS, CellKey, CellResult, as_json, open_store, read_store
from digitforge_evaluation.experiment.subsets import RealImages, subset_indices
from digitforge_evaluation.features.extract import digitnet
from digitforge_evaluation.report import Facts, SampleSheet, write_report
from digitforge_evaluation.report.page import SHEET_ROWS

EXPERIMENT: Final = "experiment.json"
CONFIG: Final = "experiment.toml"
DISTANCES: Final = "distances.json"
SAMPLES: Final = "samples.npz"
_LIBRARIES: Final = ("digitforge", "tensorflow", "keras", "scikit-learn", "numpy", "scipy")


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What ``experiment.json`` holds: the extent of the plan, and what a reader of the results must know."""

    cells: tuple[CellKey, ...]
    class_names: tuple[str, ...]
    cards: Mapping[str, Mapping[str, Any]]  # of the generators made outside, by budget (and name)


def by_budget(source: Served | Exported, real: RealImages) -> tuple[Budget, Mapping[str, Any]]:
    """The budget of a generator made outside the experiment, and its card.

    Raises:
        InvalidInputError: the generator has seen held-out images, or does not fit the data.
    """
    generator = source.generator_for(real.pool, seed=0)
    budget = budget_of(generator, real)
    assert generator.card is not None  # budget_of refuses generators without one
    return budget, generator.card


def by_name(
    sources: Sequence[Served | Exported], real: RealImages
) -> tuple[dict[str, GeneratorSource], dict[str, Mapping[str, Any]]]:
    """Generators made outside the experiment, and their cards, by the names that arms give them.

    One alone is named by its budget, ``oracle``; several by recipe and the beginning of their id too,
    ``oracle forge-3fa1b2``.

    Raises:
        InvalidInputError: a generator has seen held-out images, does not fit the data, or is there twice.
    """
    named: dict[str, GeneratorSource] = {}
    cards: dict[str, Mapping[str, Any]] = {}
    for source in sources:
        budget, card = by_budget(source, real)
        name = str(budget) if len(sources) == 1 else f"{budget} {card['recipe']}-{card['generator_id'][:6]}"
        if name in named:
            raise InvalidInputError(f"the generator {card['generator_id']} was named twice; name each one once")
        named[name], cards[name] = source, card
    return named, cards


def about(command: str) -> dict[str, Any]:
    """What a result was made with: versions, machine, date and *command*."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": sys.version.split()[0],
        **{library: version(library) for library in _LIBRARIES},
    }


def run(
    folder: Path,
    plan: Plan,
    real: RealImages,
    sources: Mapping[str, GeneratorSource],
    *,
    cards: Mapping[str, Mapping[str, Any]],
    command: str,
    jobs: int = 1,
    scheduler: str | None = None,
    config: Mapping[str, Any] | None = None,
    on_cell: Callable[[CellResult | None, int, int], None] = lambda _result, _done, _planned: None,
) -> None:
    """Run what is missing of *plan* in *folder*.

    Args:
        folder: made if need be; results already there are kept and not repeated.
        plan: what to do.
        real: the images.
        sources: where generated digits come from, by budget.
        cards: of the generators made outside, by budget.
        command: for the report.
        jobs: processes that run cells side by side.
        scheduler: address of a Dask scheduler whose workers run the cells instead.
        config: settings of the command, kept beside the results as ``experiment.toml``.
        on_cell: called with the newest result (None at the start), and how many cells are finished and planned.

    Raises:
        InvalidInputError: a class has too few images, or *folder* holds another experiment.
        DataError: *folder* cannot be written, or its results are damaged.
        ServerError: a generator's server went away, or the scheduler cannot be reached.
    """
    check_sizes(plan, real)
    cells = tuple(plan_cells(plan, sources))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror}); choose another folder with --out") from error
    with open_store(folder / RESULTS, identity=identity(plan, real, sources), about=about(command)) as store:
        outline = Outline(cells=cells, class_names=real.pool.class_names, cards=cards)
        with replacing(folder / EXPERIMENT) as file:
            file.write(json.dumps(outline, default=as_json, indent=1).encode())
        if config is not None:
            write_config(folder / CONFIG, config)
        _save_samples(folder / SAMPLES, plan, real, sources)
        planned = set(cells)

        def finished() -> int:
            return len(planned & store.cells.keys())

        on_cell(None, finished(), len(cells))
        run_cells(
            plan,
            real,
            sources,
            store,
            jobs=jobs,
            scheduler=scheduler,
            on_cell=lambda result: on_cell(result, finished(), len(cells)),
        )


def measure_distances(
    folder: Path, plan: Plan, real: RealImages, sources: Mapping[str, GeneratorSource], *, n: int
) -> None:
    """Measure every generator's distance from the held-out images, and keep it beside the results.

    A strict generator is one of many, one for each subset and replicate: each is measured.

    Args:
        folder: of an experiment that was run.
        plan: what was done.
        real: the images.
        sources: the generators.
        n: digits of each.

    Raises:
        InvalidInputError: these images have no distance; `check_distances` says so beforehand.
        DataError: *folder* cannot be written.
    """
    generators = (
        source.generator_for(subset, seed=seed)
        for name, source in sources.items()
        for subset, seed in (subsets_and_seeds(plan, real) if name == Budget.STRICT else [(real.pool, plan.seed)])
    )
    name, values = benefit.distances(generators, held_out=real.held_out, network=digitnet(), n=n)
    with replacing(folder / DISTANCES) as file:
        file.write(json.dumps({"name": name, "values": values}, indent=1).encode())


def _save_samples(path: Path, plan: Plan, real: RealImages, sources: Mapping[str, GeneratorSource]) -> None:
    """Some real images, and digits of every generator made outside the experiment."""
    n = min(SHEET_ROWS, int(np.bincount(real.pool.labels).min()))
    indices = subset_indices(real.pool.labels, n_per_class=n, subset=0, seed=plan.seed)
    arrays = {"real_images": real.pool.images[indices], "real_labels": real.pool.labels[indices]}
    classes = len(real.pool.class_names)
    for name, source in sources.items():
        if name != Budget.STRICT:
            drawn = source.generator_for(real.pool, seed=0).draw(
                SHEET_ROWS * classes, proportions=(1,) * classes, seed=plan.seed
            )
            # Digits without classes only need places on the sheet.
            labels = np.arange(len(drawn.images)) % classes if drawn.labels is None else drawn.labels
            arrays |= {f"{name}_images": drawn.images, f"{name}_labels": labels}
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options


@dataclass(frozen=True, kw_only=True)
class State:
    """What a folder holds."""

    analysis: Analysis
    facts: Facts
    samples: tuple[SampleSheet, ...]
    planned: tuple[CellKey, ...]
    finished: Mapping[CellKey, CellResult]


def read(folder: Path) -> State:
    """Read the experiment in *folder*, also while it runs. Only cells of the last plan count.

    Raises:
        DataError: there is none, or it is damaged.
    """
    stored = read_store(folder / RESULTS)
    again = "run the same `digitforge experiment run` again: finished cells are kept"
    try:
        outline = json.loads((folder / EXPERIMENT).read_bytes())
        planned = tuple(CellKey.from_json(key) for key in outline["cells"])
        class_names = tuple(outline["class_names"])
        measured: tuple[str, dict[str, float]] | None = None
        if (folder / DISTANCES).exists():
            found = json.loads((folder / DISTANCES).read_bytes())
            measured = str(found["name"]), dict(found["values"])
        with open_archive(folder / SAMPLES, advice=again) as arrays:
            samples = tuple(
                SampleSheet(
                    title="Real" if name == "real" else f"Generated ({name})",
                    images=arrays[f"{name}_images"],
                    labels=arrays[f"{name}_labels"],
                )
                for name in (file.removesuffix("_images") for file in arrays.files if file.endswith("_images"))
            )
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{folder}: {EXPERIMENT}, {SAMPLES} or {DISTANCES} is missing or damaged ({error!r}); {again}"
        ) from error
    finished = {key: stored.cells[key] for key in planned if key in stored.cells}
    analysis = analyze(finished, minority=[class_names.index(name) for name in stored.identity.get("cut", {})])
    return State(
        analysis=analysis,
        facts=Facts(
            identity=stored.identity,
            about=stored.about,
            class_names=class_names,
            cards=outline["cards"],
            planned_cells=len(planned),
            benefit=benefit.benefit(analysis, finished, distance_name=measured[0], values=measured[1])
            if measured
            else None,
        ),
        samples=samples,
        planned=planned,
        finished=finished,
    )


def report(folder: Path, out: Path | None = None) -> tuple[State, Path]:
    """Write the report of the experiment in *folder* into *out*, or into *folder* itself.

    Returns:
        What the folder holds, and the HTML file.

    Raises:
        DataError: there is no experiment, or it is damaged.
        InvalidInputError: the report cannot be written there.
    """
    state = read(folder)
    html, _ = write_report(out or folder, state.analysis, state.facts, state.samples)
    return state, html
