"""A comparison as a LaTeX table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recloop.evaluation import labels as wording

if TYPE_CHECKING:
    from recloop.evaluation.report_sections import VariantLabel
    from recloop.evaluation.significance import Comparison

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def latex_table(table: Comparison, words: Mapping[str, VariantLabel], others: Sequence[Comparison] = ()) -> str:
    """A booktabs table: the tested metric with its interval, then others; the caption states the conventions.

    Args:
        table: the tested metric.
        words: titles of its rows.
        others: the same rows by other metrics.
    """
    metrics = [wording.metric_title(table.metric), "interval"]
    metrics += [wording.metric_title(other.metric) for other in others]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(_caption(table))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        " & ".join(["Row", *map(_escape, metrics)]) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        e = row.estimate
        cells = [f"{e.value:.4f}", f"[{e.low:.4f}, {e.high:.4f}]"]
        cells += [f"{other.row(row.name).estimate.value:.4f}" for other in others]
        lines.append(" & ".join([_escape(words[row.name].title), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _caption(table: Comparison) -> str:
    level = f"Intervals: {100 * table.config.level:g}% bootstrap over users."
    return ("Demonstration, one seed. " if table.is_demonstration else "") + wording.conventions(table) + " " + level


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
