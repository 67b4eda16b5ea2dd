"""What a run of any method found, as data frames."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recloop.errors import RunError, SettingError, needs_extra
from recloop.evaluation.labels import ranker_of
from recloop.evaluation.terminal import REPORT, RESULTS, read_results, show
from recloop.evaluation.verdict import verdict_text
from recloop.experiment.manifest import read_manifest, require_published

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

PER_USER, COMPLETIONS = "per_user.parquet", "completions.parquet"


class Results:
    """The results of a run. In a notebook it shows the first table; of a run that is not finished, what is done.

    Args:
        folder: of the run.

    Raises:
        RunError: the folder is no run. Every method raises it too, until the run has compared its variants.

    Example:
        results = Results("runs/demo")
        results.table().sort("value")
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._manifest = read_manifest(self.folder)
        self._steps, self.method = self._manifest["steps"], self._manifest["method"]

    @property
    def report_path(self) -> Path:
        """The report, one HTML file."""
        return self.folder / REPORT

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric of every table; the first is the one that is tested in the first table."""
        tables = self._read["tables"]
        return tuple(dict.fromkeys(one["metric"] for table in tables for one in table["metrics"]))

    @property
    def verdict(self) -> str:
        """What the run found, in plain sentences, as its report begins; a paragraph for each tested table."""
        return verdict_text(self._read)

    def table(self, metric: str | None = None) -> pl.DataFrame:
        """One line per table and variant: its mean over users and seeds with the bootstrap interval.

        Args:
            metric: None for the tested metric of each table.

        Returns:
            Columns ``table, reranker, variant, label, metric, value, low, high, num_users, num_seeds``.

        Raises:
            SettingError: no table has the metric.
        """
        import polars as pl

        rows = [
            {
                "table": table["title"],
                "reranker": ranker_of(one["name"], table["reranker"]) or None,
                "variant": one["name"],
                "label": self._read["labels"][one["name"]],
                "metric": comparison["metric"],
                **{name: one["estimate"][name] for name in ("value", "low", "high")},
                "num_users": comparison["num_users"],
                "num_seeds": len(one["estimate"]["by_seed"]),
            }
            for table, comparison in self._comparisons(metric)
            for one in comparison["variants"]
        ]
        return pl.DataFrame(rows)

    def contrasts(self) -> pl.DataFrame:
        """One line per tested difference.

        Returns:
            Columns ``table, variant, against, metric, value, low, high, p, p_holm, verdict``; value is the mean of
            variant minus against, user by user.
        """
        import polars as pl

        columns = dict.fromkeys(("table", "variant", "against", "metric"), pl.String)
        columns |= dict.fromkeys(("value", "low", "high", "p", "p_holm"), pl.Float64) | {"verdict": pl.String}
        rows = [
            {
                "table": table["title"],
                "variant": one["name"],
                "metric": comparison["metric"],
                **{name: one["difference"][name] for name in ("value", "low", "high")},
                **{name: one[name] for name in ("against", "p", "p_holm", "verdict")},
            }
            for table, comparison in self._comparisons(None)
            for one in comparison["contrasts"]
        ]
        return pl.DataFrame(rows, schema=columns)

    def per_user(self, metric: str | None = None) -> pl.DataFrame:
        """One line per table, variant, seed and test user, with the user's id as in the source.

        Args:
            metric: None for the tested metric of the first table.

        Returns:
            Columns ``table, reranker, variant, seed, user_id, num_lists, value``. Where the unit of a table is
            not the user, a column with the unit's name, e.g. ``request``, holds its number.

        Raises:
            SettingError: no table has the metric.
        """
        import polars as pl

        metric = self.metrics[0] if metric is None else metric
        self._comparisons(metric)
        frame = pl.read_parquet(self._file(PER_USER)).filter(pl.col(metric).is_not_null())
        others = [name for name in frame.columns if name in self.metrics or name == "user"]
        units = [name for name in ("request", "session") if name in frame.columns and frame[name].is_null().all()]
        return frame.with_columns(value=pl.col(metric)).drop(*others, *units)

    def completions(self) -> pl.DataFrame:
        """Everything that language models wrote in the run.

        Returns:
            Columns ``user_id, variant, seed, number, text, status, reward``: the number counts the completions of one
            prompt, the reward is null where none was given. A method may add columns.
        """
        import polars as pl

        return pl.read_parquet(self._file(COMPLETIONS))

    def plot(self, metric: str | None = None) -> Figure:
        """The intervals of every variant, one plot per table.

        Raises:
            SettingError: no table has the metric.
            MissingPackageError: matplotlib is not installed.
        """
        with needs_extra("plot"):
            from matplotlib.figure import Figure
        parts = self.table(metric).partition_by("table", maintain_order=True)
        heights = [len(part) for part in parts]
        figure = Figure(figsize=(7.0, 0.8 * len(parts) + 0.28 * sum(heights)), layout="constrained")
        plots = figure.subplots(len(parts), squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
        for axes, part in zip(plots, parts, strict=True):
            value, low, high = (part[name].to_numpy() for name in ("value", "low", "high"))
            places = range(len(part))
            axes.errorbar(value, places, xerr=[value - low, high - value], fmt="o", capsize=3)
            axes.set_yticks(places, part["label"].to_list())
            axes.invert_yaxis()
            axes.set(title=part["table"][0], xlabel=f"{part['metric'][0]}, 95% interval over users")
        return figure

    def __repr__(self) -> str:
        return f"Results({str(self.folder)!r}): a run of {self.method}\n\n{show(self.folder)}"

    def _repr_html_(self) -> str:
        if "evaluate" not in self._steps:
            return f"<pre>{escape(repr(self))}</pre>"
        shown = self.table()
        shown = shown.filter(shown["table"] == shown["table"][0])
        cells = "".join(
            f"<tr><th>{escape(label)}</th><td>{value:.4f}</td><td>{low:.4f} to {high:.4f}</td></tr>"
            for label, value, low, high in shown.select("label", "value", "low", "high").iter_rows()
        )
        head = f"<tr><th>Variant</th><th>{escape(shown['metric'][0])}</th><th>95% interval</th></tr>"
        caption = f"{escape(shown['table'][0])}, {shown['num_users'][0]:,} {self._read['tables'][0]['unit']}s"
        if self._read["tables"][0]["is_demonstration"]:
            caption += ". Demonstration: one seed, nothing may be claimed"
        table = f"<table><caption>{caption}</caption><thead>{head}</thead><tbody>{cells}</tbody></table>"
        return f"{table}<p>{escape(self.verdict)}</p>"

    @cached_property
    def _read(self) -> dict[str, Any]:
        self._file(RESULTS)
        return read_results(self.folder, self._manifest)

    def _file(self, name: str) -> Path:
        if "evaluate" not in self._steps:
            raise RunError(f"{self.folder} has no {name} yet; go on with: recloop resume {self.folder}")
        return require_published(self.folder, self._manifest, name)

    def _comparisons(self, metric: str | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Each table with the comparison by one metric, or by its tested one."""
        found = [
            (table, comparison)
            for table in self._read["tables"]
            for comparison in table["metrics"]
            if comparison["metric"] == (table["metrics"][0]["metric"] if metric is None else metric)
        ]
        if not found:
            raise SettingError(f"no table has the metric {metric}; use one of {', '.join(self.metrics)}")
        return found
