"""How the results page says things: tables, numbers, intervals, the names of rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from recloop.errors import SettingError
from recloop.evaluation.labels import number, p_value, signed
from recloop.evaluation.report_sections import VariantKind
from recloop.methods.dpo4rec.compare import place_of, words_of
from studies.evidence.measuring import LEAKY, TRANSFERRED
from studies.evidence.moments import Moments
from studies.evidence.numbers import ReliabilityNumbers
from studies.evidence.pooling import Pooled, PooledContrast

NOT_RUN = "*not run yet*"
OWN_TITLES = {
    TRANSFERRED: "Trained on another log, transferred",
    LEAKY: "Trained with the leaky reward model",
}
RANKERS = {"dlcm": "DLCM", "prm": "PRM", "setrank": "SetRank", "mir": "MIR", "reward_model": "the frozen reward model"}
T = TypeVar("T")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A Markdown table and an empty line after it; the first `left` columns are flush left.

    Raises:
        SettingError: a row has another number of cells than the head.
    """
    if any(len(row) != len(head) for row in rows):
        raise SettingError(f"every row must have {len(head)} cells, got {[len(row) for row in rows]}")
    rule = ["---" if place < left else "---:" for place in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)] + [""]


def variant_title(name: str) -> str:
    """What a row is called on the page."""
    return OWN_TITLES.get(name) or words_of(name).title


def by_heading(rows: dict[str, T]) -> list[tuple[str, T]]:
    """Rows in the order of the reports: without a language model, controls, texts, bound."""
    kinds = list(VariantKind)

    def key(name: str) -> tuple[int, int, str]:
        if name in OWN_TITLES:
            return kinds.index(VariantKind.METHOD), len(kinds) * 100, name
        return kinds.index(words_of(name).kind), place_of(name), name

    return sorted(rows.items(), key=lambda item: key(item[0]))


def with_interval(values: Moments) -> str:
    """A difference and its 95% interval."""
    low, high = values.interval
    return f"{signed(values.mean)} [{signed(low)}, {signed(high)}]"


def level(values: Moments) -> str:
    """A mean and the half-width of its 95% interval."""
    return f"{number(values.mean)} ± {number(values.interval[1] - values.mean)}"


def panels(pooled: Pooled) -> str:
    """The means of the panels."""
    return " ".join(signed(mean) for mean in pooled.by_panel)


def contrast_cells(contrast: PooledContrast) -> list[str]:
    """Difference with interval, p, panels."""
    return [
        with_interval(contrast.difference.values),
        p_value(contrast.difference.values.p),
        p_value(contrast.p_holm),
        panels(contrast.difference),
    ]


def reliable(one: ReliabilityNumbers) -> str:
    """A reliability and its 95% interval."""
    return f"{one.reliability:.2f} [{one.low:.2f}, {one.high:.2f}]".replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent."""
    return "" if share is None else f"{100 * share:.{digits}f}%".replace("-", "−")


def verdict(contrast: PooledContrast | None, alpha: float, min_panels: int) -> str:
    """Whether trained is above a baseline: adjusted p, and every panel of one sign."""
    if contrast is None:
        return NOT_RUN
    by_panel = contrast.difference.by_panel
    holds = contrast.p_holm < alpha and min(by_panel) > 0
    if len(by_panel) < min_panels:
        return f"{len(by_panel)} of {min_panels} panels: open" + (", so far yes" if holds else "")
    return "**holds**" if holds else "**does not hold**"
