"""The texts of the results page: tables, numbers, intervals, names of variants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from recloop.errors import SettingError
from recloop.evaluation.labels import (
    LABELS,
    VariantKind,
    base_variant,
    number,
    p_value,
    signed,
    variant_label,
)
from studies.evidence.numbers import ReliabilityNumbers
from studies.evidence.pooling import Pooled, PooledContrast
from studies.evidence.statistics import Moments
from studies.evidence.tables import CHECKED, LEAKY, TRANSFERRED

NOT_RUN = "*not run yet*"
OWN_TITLES = {
    TRANSFERRED: "Trained on another log, transferred",
    LEAKY: "Trained with the leaky reward model",
    CHECKED: "Trained, only true texts",
}
RANKERS = {"dlcm": "DLCM", "prm": "PRM", "setrank": "SetRank", "mir": "MIR", "reward_model": "the frozen reward model"}
T = TypeVar("T")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A Markdown table and an empty line after it; the first `left` columns are left-aligned.

    Raises:
        SettingError: a line has another number of cells than the head.
    """
    if any(len(row) != len(head) for row in rows):
        raise SettingError(f"every line must have {len(head)} cells, got {[len(row) for row in rows]}")
    rule = ["---" if place < left else "---:" for place in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)] + [""]


def variant_title(name: str) -> str:
    """A variant's name on the page."""
    return OWN_TITLES.get(name) or variant_label(name).label


def by_heading(variants: dict[str, T]) -> list[tuple[str, T]]:
    """Variants in the order of the reports: without a language model, controls, texts, bound."""
    kinds, order = list(VariantKind), list(LABELS)

    def key(name: str) -> tuple[int, int, str]:
        if name in OWN_TITLES:
            return kinds.index(VariantKind.METHOD), len(kinds) * 100, name
        return kinds.index(variant_label(name).kind), order.index(base_variant(name)), name

    return sorted(variants.items(), key=lambda item: key(item[0]))


def with_interval(values: Moments) -> str:
    """A difference and its 95% interval."""
    low, high = values.interval
    return f"{signed(values.mean)} [{signed(low)}, {signed(high)}]"


def level(values: Moments) -> str:
    """A mean and the half-width of its 95% interval."""
    return f"{number(values.mean)} ± {number(values.interval[1] - values.mean)}"


def fold_means(pooled: Pooled) -> str:
    """The mean of each fold."""
    return " ".join(signed(mean) for mean in pooled.by_fold)


def contrast_cells(contrast: PooledContrast) -> list[str]:
    """The cells of a difference: with its interval, p, Holm, folds."""
    return [
        with_interval(contrast.difference.values),
        p_value(contrast.difference.values.p),
        p_value(contrast.p_holm),
        fold_means(contrast.difference),
    ]


def reliable(one: ReliabilityNumbers) -> str:
    """A reliability and its 95% interval."""
    return f"{one.reliability:.2f} [{one.low:.2f}, {one.high:.2f}]".replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent."""
    return "" if share is None else f"{100 * share:.{digits}f}%".replace("-", "−")


def points(share: float) -> str:
    """A change of a share, in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def verdict(contrast: PooledContrast | None, alpha: float, min_folds: int) -> str:
    """Whether trained is above a baseline, by the adjusted p and the sign of every fold."""
    if contrast is None:
        return NOT_RUN
    by_fold = contrast.difference.by_fold
    holds = contrast.p_holm < alpha and min(by_fold) > 0
    if len(by_fold) < min_folds:
        return f"{len(by_fold)} of {min_folds} folds: open" + (", so far yes" if holds else "")
    return "**holds**" if holds else "**does not hold**"
