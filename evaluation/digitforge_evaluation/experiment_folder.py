"""Run an experiment in a folder, read it, and write its report."""

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
from digitforge_client.common.files import make_folder, replacing
from digitforge_client.common.json_text import parse_json
from digitforge_client.common.parallel import Scheduler
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_evaluation.experiment import benefit
from digitforge_evaluation.experiment.analysis import Analysis, analyze
from digitforge_evaluation.experiment.configuration import write_config
from digitforge_evaluation.experiment.generators import INSIDE, Budget, Exported, GeneratorSource, Served, budget_of
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
    """The contents of ``experiment.json``: the planned cells, and facts for the report."""

    cells: tuple[CellKey, ...]  #: all planned cells
    class_names: tuple[str, ...]
    cards: Mapping[str, Mapping[str, Any]]  #: cards of the generators made outside the experiment, by budget and name
    #: Other numbers of subsets that were planned in this folder, when it had results already.
    earlier_subsets: tuple[int, ...] = ()


def budget_and_card(source: Served | Exported, real: RealImages) -> tuple[Budget, Mapping[str, Any]]:
    """The budget and the card of a generator made outside the experiment.

    Raises:
        InvalidInputError: the generator has seen held-out images, or does not fit the real images.
    """
    generator = source.generator_for(real.pool, seed=0)
    budget = budget_of(generator, real)
    assert generator.card is not None  # budget_of refuses generators without a card
    return budget, generator.card


def name_generators(
    sources: Sequence[Served | Exported], real: RealImages
) -> tuple[dict[str, GeneratorSource], dict[str, Mapping[str, Any]]]:
    """Name the generators made outside the experiment. The names become part of the arms' full names.

    A single generator is named by its budget, ``oracle``. Several are named by budget, recipe and the first digits of
    the generator id, ``oracle forge-3fa1b2``.

    Returns:
        The generators and their cards, by name.

    Raises:
        InvalidInputError: a generator has seen held-out images, does not fit the real images, or is given twice.
    """
    named: dict[str, GeneratorSource] = {}
    cards: dict[str, Mapping[str, Any]] = {}
    for source in sources:
        budget, card = budget_and_card(source, real)
        name = str(budget) if len(sources) == 1 else f"{budget} {card['recipe']}-{card['generator_id'][:6]}"
        if name in named:
            raise InvalidInputError(f"the generator {card['generator_id']} is given twice; give each generator once")
        named[name], cards[name] = source, card
    return named, cards


def about(command: str) -> dict[str, Any]:
    """The origin of a result: command, date, machine and versions."""
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
    scheduler: Scheduler | str | None = None,
    config: Mapping[str, Any] | None = None,
    on_cell: Callable[[CellResult | None, int, int], None] = lambda _result, _done, _planned: None,
) -> None:
    """Run the cells of *plan* that *folder* lacks.

    Args:
        folder: folder of the experiment. It is created if needed. Finished cells in it are kept.
        plan: the plan.
        real: the real images.
        sources: the generators by budget and name.
        cards: cards of the generators made outside the experiment, by budget and name.
        command: the command line, for the report.
        jobs: number of processes that run cells in parallel.
        scheduler: a Dask scheduler, or its address. Its workers run the cells instead.
        config: settings of the command, saved in the folder as ``experiment.toml``.
        on_cell: called with the newest result (None at the start) and the numbers of finished and planned cells.

    Raises:
        InvalidInputError: a class has too few images, or *folder* holds another experiment.
        DataError: *folder* cannot be written, or its results are damaged.
        ServerError: a generator's server went away, or the scheduler cannot be reached.
    """
    check_sizes(plan, real)
    cells = tuple(plan_cells(plan, sources))
    make_folder(folder)
    with open_store(folder / RESULTS, identity=identity(plan, real, sources), about=about(command)) as store:
        outline = Outline(
            cells=cells,
            class_names=real.pool.class_names,
            cards=cards,
            earlier_subsets=_earlier_subsets(folder / EXPERIMENT, plan.subsets) if store.cells else (),
        )
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


def _earlier_subsets(path: Path, subsets: int) -> tuple[int, ...]:
    """The numbers of subsets, other than *subsets*, that the ``experiment.json`` at *path* was planned with."""
    try:
        outline = parse_json(path.read_bytes())
    except (OSError, ValueError):
        return ()
    planned = len({key["subset"] for key in outline["cells"]})
    return tuple(sorted({*outline.get("earlier_subsets", ()), planned} - {subsets}))


def measure_distances(
    folder: Path, plan: Plan, real: RealImages, sources: Mapping[str, GeneratorSource], *, n: int
) -> None:
    """Measure the distance of each generator from the held-out images, and save it in the folder.

    This includes the strict and the adapted generator of each subset and replicate.

    Args:
        folder: folder of a finished experiment.
        plan: the plan of the experiment.
        real: the real images.
        sources: the generators by budget and name.
        n: generated images per generator.

    Raises:
        InvalidInputError: the distance cannot be measured on these images. `check_distances` checks this in advance.
        DataError: *folder* cannot be written.
    """
    generators = (
        source.generator_for(subset, seed=seed)
        for name, source in sources.items()
        for subset, seed in (subsets_and_seeds(plan, real) if name in INSIDE else [(real.pool, plan.seed)])
    )
    name, values = benefit.distances(generators, held_out=real.held_out, network=digitnet(), n=n)
    with replacing(folder / DISTANCES) as file:
        file.write(json.dumps({"name": name, "values": values}, indent=1).encode())


def _save_samples(path: Path, plan: Plan, real: RealImages, sources: Mapping[str, GeneratorSource]) -> None:
    """Save some real images, and some digits of each generator made outside the experiment."""
    n = min(SHEET_ROWS, int(np.bincount(real.pool.labels).min()))
    indices = subset_indices(real.pool.labels, n_per_class=n, subset=0, seed=plan.seed)
    arrays = {"real_images": real.pool.images[indices], "real_labels": real.pool.labels[indices]}
    classes = len(real.pool.class_names)
    for name, source in sources.items():
        if name not in INSIDE:
            drawn = source.generator_for(real.pool, seed=0).draw(
                SHEET_ROWS * classes, proportions=(1,) * classes, seed=plan.seed
            )
            # The labels only give each digit a place on the sheet.
            labels = np.arange(len(drawn.images)) % classes if drawn.labels is None else drawn.labels
            arrays |= {f"{name}_images": drawn.images, f"{name}_labels": labels}
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub mistakes the names for options


@dataclass(frozen=True, kw_only=True)
class State:
    """The contents of an experiment's folder."""

    analysis: Analysis  #: of the finished cells
    facts: Facts
    samples: tuple[SampleSheet, ...]  #: empty if the folder has none
    planned: tuple[CellKey, ...]  #: all cells of the last plan
    finished: Mapping[CellKey, CellResult]  #: finished cells of the last plan


def read(folder: Path, *, others: Sequence[float] = ()) -> State:
    """Read the experiment in *folder*, even while it runs. It uses only cells of the last plan.

    Args:
        folder: folder of the experiment.
        others: p-values of comparisons in other experiments. The verdicts are corrected for these comparisons as well.

    Raises:
        DataError: *folder* holds no experiment, or a damaged one.
    """
    stored = read_store(folder / RESULTS)
    again = "run the same `digitforge experiment run` again, which keeps finished cells"
    try:
        outline = parse_json((folder / EXPERIMENT).read_bytes())
        planned = tuple(CellKey.from_json(key) for key in outline["cells"])
        class_names = tuple(outline["class_names"])
        earlier_subsets = tuple(outline.get("earlier_subsets", ()))
        measured: tuple[str, dict[str, float]] | None = None
        if (folder / DISTANCES).exists():
            found = parse_json((folder / DISTANCES).read_bytes())
            measured = str(found["name"]), dict(found["values"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{EXPERIMENT} or {DISTANCES} in {folder} is missing or damaged ({error!r}); {again}"
        ) from error
    finished = {key: stored.cells[key] for key in planned if key in stored.cells}
    analysis = analyze(
        finished,
        minority=[class_names.index(name) for name in stored.identity.get("cut", {})],
        replicates=stored.identity["replicates"],
        planned=planned,
        others=others,
    )
    return State(
        analysis=analysis,
        facts=Facts(
            identity=stored.identity,
            about=stored.about,
            class_names=class_names,
            cards=outline["cards"],
            planned_cells=len(planned),
            notes=_notes(planned, earlier_subsets),
            benefit=benefit.benefit(analysis, finished, distance_name=measured[0], values=measured[1])
            if measured
            else None,
        ),
        samples=_read_samples(folder / SAMPLES, advice=again),
        planned=planned,
        finished=finished,
    )


def _read_samples(path: Path, *, advice: str) -> tuple[SampleSheet, ...]:
    """Images of each source. None if the file is missing: results do not depend on it."""
    if not path.exists():
        return ()
    with open_archive(path, advice=advice) as arrays:
        return tuple(
            SampleSheet(
                title="Real" if name == "real" else f"Generated ({name})",
                images=arrays[f"{name}_images"],
                labels=arrays[f"{name}_labels"],
            )
            for name in (file.removesuffix("_images") for file in arrays.files if file.endswith("_images"))
        )


def _notes(planned: Sequence[CellKey], earlier_subsets: Sequence[int]) -> tuple[str, ...]:
    if not earlier_subsets:
        return ()
    earlier, now = ", ".join(map(str, earlier_subsets)), len({key.subset for key in planned})
    return (
        f"The number of subsets was changed from {earlier} to {now} when there were results already. Fix it before you "
        "see results. If results decide whether to add subsets, more than 5 % of verdicts without an effect are wrong.",
    )


def report(folder: Path, out: Path | None = None, *, others: Sequence[float] = ()) -> tuple[State, Path]:
    """Write the report of the experiment in *folder*.

    Args:
        folder: folder of the experiment.
        out: folder for the report; None for *folder*.
        others: p-values of comparisons in other experiments. The verdicts are corrected for these comparisons as well.

    Returns:
        The contents of *folder*, and the path of the HTML file.

    Raises:
        DataError: *folder* holds no experiment or a damaged one, or the report cannot be written.
    """
    state = read(folder, others=others)
    html, _ = write_report(out or folder, state.analysis, state.facts, state.samples)
    return state, html


def report_together(folders: Sequence[Path], out: Path | None = None) -> list[tuple[State, Path]]:
    """Write the reports of several experiments, and correct their verdicts together, as one family.

    Args:
        folders: folders of the experiments. Those with fewer than ten subsets have no verdicts, so they stay alone.
        out: folder for the reports, each in a folder with the name of its experiment; None for *folders*.

    Returns:
        The contents of each folder, and the path of its HTML file.

    Raises:
        InvalidInputError: a folder is given twice, or two have the same name and would have the same report.
        DataError: a folder holds no experiment or a damaged one, or a report cannot be written.
    """
    names = [folder.resolve() if out is None else folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise InvalidInputError(
            f"the folders {', '.join(map(str, folders))} are not different; give each experiment once, and leave out "
            "--out if two have the same name"
        )
    p_values = [_p_values(folder) for folder in folders]
    reports = []
    for i, folder in enumerate(folders):
        others = [p for values in (*p_values[:i], *p_values[i + 1 :]) for p in values] if p_values[i] else []
        reports.append(report(folder, None if out is None else out / folder.resolve().name, others=others))
    return reports


def _p_values(folder: Path) -> list[float]:
    """The p-values of the comparisons that get verdicts."""
    return [c.p_value for c in read(folder).analysis.primary if c.verdict != "descriptive" and c.p_value is not None]
