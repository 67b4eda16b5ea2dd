"""A comparison as a LaTeX table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from recloop.evaluation.labels import conventions, metric_title
from recloop.evaluation.significance import LEVEL

if TYPE_CHECKING:
    from recloop.evaluation.labels import VariantLabel
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


def latex_table(table: Comparison, labels: Mapping[str, VariantLabel], others: Sequence[Comparison] = ()) -> str:
    """A booktabs table: the tested metric with its interval, then others; the caption states the conventions.

    Args:
        table: by the tested metric.
        labels: of its variants.
        others: the same variants by other metrics.
    """
    metrics = [metric_title(table.metric), "interval", *(metric_title(other.metric) for other in others)]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(_caption(table))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
        r"\toprule",
        " & ".join(["Variant", *map(_escape, metrics)]) + r" \\",
        r"\midrule",
    ]
    for one in table.variants:
        e = one.estimate
        cells = [f"{e.value:.4f}", f"[{e.low:.4f}, {e.high:.4f}]"]
        cells += [f"{other.variant(one.name).estimate.value:.4f}" for other in others]
        lines.append(" & ".join([_escape(labels[one.name].label), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _caption(table: Comparison) -> str:
    demonstration = "Demonstration, one seed. " if table.is_demonstration else ""
    return f"{demonstration}{conventions(table)} Intervals: {100 * LEVEL:g}% bootstrap over users."


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
