"""The tables of a study: made from per-user scores, written as files, and the report sections that show them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from recloop.errors import DataError
from recloop.evaluation.labels import REWARD_MODEL_PREFIX, VariantLabel, in_table_order, variant_label
from recloop.evaluation.latex import latex_table
from recloop.evaluation.per_user_scores import VariantScores
from recloop.evaluation.report_sections import (
    AllMetrics,
    Claims,
    Costs,
    HowToRead,
    MainTable,
    Section,
    StepCost,
)
from recloop.evaluation.results import COMPLETIONS, PER_USER
from recloop.evaluation.significance import Comparison, StatisticsConfig, compare
from recloop.evaluation.terminal import RESULTS
from recloop.experiment.reuse import own_steps
from recloop.files import atomic_write_bytes, atomic_write_json, atomic_write_text

if TYPE_CHECKING:
    from pathlib import Path

LATEX = "tables.tex"
OTHERS_IN_LATEX = 3  # metrics beside the tested one; what fits a page
COMPLETION_COLUMNS = {
    "user_id": pl.String,
    "variant": pl.String,
    "seed": pl.Int64,
    "number": pl.Int64,
    "text": pl.String,
    "status": pl.String,
    "reward": pl.Float64,
}


@dataclass(frozen=True, slots=True)
class TableSettings:
    """How the tables of a study are compared.

    metrics: the first is tested, the others are shown.
    seed: of flips and resamples.
    """

    metrics: tuple[str, ...]
    statistics: StatisticsConfig
    seed: int


@dataclass(frozen=True, slots=True)
class Units:
    """What a table averages over and compares one by one; units other than users have one list each.

    name: in the singular, e.g. ``user`` or ``request``.
    user_ids: of each unit, by its number, as in the source; empty where units have no users.
    """

    name: str = "user"
    user_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class VariantTable:
    """One main table.

    main: the metric that is tested; its first three contrasts are claimed at the top of the report.
    others: the same variants by other metrics, without tests.
    scores: what the table was made from.
    labels: of every variant, by name.
    reference: the variant at which a faint line of the plot stands.
    reranker: the evaluators' kind; empty where no reranker reads the texts.
    """

    title: str
    main: Comparison
    others: tuple[Comparison, ...]
    scores: tuple[VariantScores, ...]
    labels: Mapping[str, VariantLabel]
    reference: str
    units: Units = Units()
    reranker: str = ""

    def __post_init__(self) -> None:
        self.main.variant(self.reference)

    @property
    def unit(self) -> str:
        """The name of what is averaged over."""
        return self.units.name

    def reranker_of(self, name: str) -> str:
        """What ranks the lists of a variant."""
        return REWARD_MODEL_PREFIX.rstrip("_") if name.startswith(REWARD_MODEL_PREFIX) else self.reranker


def make_table(
    title: str,
    scores: Sequence[VariantScores],
    contrasts: Iterable[tuple[str, str]],
    settings: TableSettings,
    reference: str,
    *,
    units: Units = Units(),
    reranker: str = "",
    own_labels: Iterable[VariantLabel] = (),
) -> VariantTable:
    """A table of these variants in the order of tables: the first metric tested, the others beside it.

    Args:
        contrasts: pairs of names; a pair with a variant that is not there is left out.
        own_labels: of variants that are not built in.

    Raises:
        SettingError: a variant has no label, or the reference is no variant of the table.
    """
    own = tuple(own_labels)
    by_name = {one.name: one for one in scores}
    ordered = tuple(by_name[name] for name in in_table_order(by_name, own))
    found = [pair for pair in contrasts if set(pair) <= set(by_name)]
    main, *others = (
        compare(ordered, found if metric == settings.metrics[0] else (), metric, settings.statistics, settings.seed)
        for metric in settings.metrics
    )
    labels = {name: variant_label(name, own) for name in by_name}
    return VariantTable(title, main, tuple(others), ordered, labels, reference, units, reranker)


def write_tables(folder: Path, tables: Sequence[VariantTable]) -> None:
    """Write ``results.json``, ``tables.tex`` and ``per_user.parquet`` into a run folder."""
    atomic_write_json(folder / RESULTS, results_json(tables))
    latex = (latex_table(table.main, table.labels, table.others[:OTHERS_IN_LATEX]) for table in tables)
    atomic_write_text(folder / LATEX, "\n".join(latex))
    _write_parquet(folder / PER_USER, [_per_user(table) for table in tables])


def write_completions(folder: Path, completions: Sequence[pl.DataFrame]) -> None:
    """``completions.parquet`` of a run: what every variant's language model wrote about whom.

    Raises:
        DataError: a frame lacks one of `COMPLETION_COLUMNS`; others may follow them.
    """
    for frame in completions:
        if missing := [name for name in COMPLETION_COLUMNS if name not in frame.columns]:
            raise DataError(f"completions need the columns {', '.join(COMPLETION_COLUMNS)}, got no {missing[0]}")
    frames = [frame.cast(dict(COMPLETION_COLUMNS)) for frame in completions]  # pyright: ignore[reportArgumentType]
    _write_parquet(folder / COMPLETIONS, frames or [pl.DataFrame(schema=COMPLETION_COLUMNS)])


def results_json(tables: Sequence[VariantTable]) -> dict[str, Any]:
    """All numbers of all tables, for programs."""
    return {
        "tables": [
            {
                "title": table.title,
                "unit": table.unit,
                "reranker": table.reranker,
                "is_demonstration": table.main.is_demonstration,
                "metrics": [_comparison_json(comparison) for comparison in (table.main, *table.others)],
            }
            for table in tables
        ],
        "labels": {name: one.label for table in tables for name, one in table.labels.items()},
    }


def metric_lines(tables: Sequence[VariantTable]) -> list[dict[str, Any]]:
    """One line per table, variant and metric for metrics.jsonl."""
    return [
        {"table": table.title, "variant": variant.name, "metric": comparison.metric, **asdict(variant.estimate)}
        for table in tables
        for comparison in (table.main, *table.others)
        for variant in comparison.variants
    ]


def opening_sections(tables: Sequence[VariantTable]) -> tuple[Section, ...]:
    """What the first contrasts say, and the tables."""
    claiming = [table for table in tables if table.main.contrasts]
    claims = tuple(Claims(table, table.title if len(claiming) > 1 else "") for table in claiming)
    return Section("result", "Result", claims), Section("tables", "Tables", tuple(map(MainTable, tables)))


def closing_sections(tables: Sequence[VariantTable], steps: Mapping[str, Mapping[str, Any]]) -> tuple[Section, ...]:
    """All metrics, what the run took, and how to read the report.

    Args:
        steps: of the run's manifest.
    """
    return (
        Section("metrics", "All metrics", tuple(map(AllMetrics, tables))),
        Section("cost", "Cost", (Costs(step_costs(steps)),)),
        Section("method", "How to read this", (HowToRead(tuple(tables)),)),
    )


def step_costs(steps: Mapping[str, Mapping[str, Any]]) -> tuple[StepCost, ...]:
    """Time, tokens and memory by verb, all seeds and variants together; without what another run did."""
    costs: dict[str, StepCost] = {}
    for name, entry in own_steps(steps).items():
        verb = name.partition(".")[0]
        old = costs.get(verb, StepCost(verb, 0.0, None, 0.0))
        tokens = entry.get("tokens")
        costs[verb] = StepCost(
            verb,
            old.wall_s + entry["wall_s"],
            old.num_tokens if tokens is None else (old.num_tokens or 0) + tokens,
            max(old.peak_memory_mib or 0.0, entry["peak_memory_bytes"] / 2**20),
        )
    return tuple(costs.values())


def _per_user(table: VariantTable) -> pl.DataFrame:
    ids = table.units.user_ids
    frames = [
        pl.DataFrame(
            {
                "table": [table.title] * len(one.user_U),
                "reranker": [table.reranker_of(one.name)] * len(one.user_U),
                "variant": [one.name] * len(one.user_U),
                "seed": [seed] * len(one.user_U),
                "user_id": pl.Series([ids[unit] if ids else None for unit in one.user_U.tolist()], dtype=pl.String),
                table.unit: one.user_U,
                "num_lists": one.num_lists_U,
                **{metric: one.of(metric)[s] for metric in one.metrics},
            }
        )
        for one in table.scores
        for s, seed in enumerate(one.seeds)
    ]
    return pl.concat(frames)


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    return {
        name: [asdict(part) for part in value] if name in ("variants", "contrasts") else value
        for name in ("metric", "mean", "empty", "num_users", "num_lists", "variants", "contrasts")
        for value in [getattr(comparison, name)]
    }


def _write_parquet(path: Path, frames: Sequence[pl.DataFrame]) -> None:
    buffer = io.BytesIO()
    pl.concat(frames, how="diagonal").write_parquet(buffer)
    atomic_write_bytes(path, buffer.getvalue())
