"""What a text loses for its length and for what its user's history does not hold or contradicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.prompts.claims import PopulationRates
from recloop.prompts.lines import history_items
from recloop.prompts.plausibility import WORD
from recloop.prompts.prose import Catalogue, catalogue_of
from recloop.prompts.text_truth import HistoryFacts, history_facts, untrue_names
from recloop.records import Histories, Log, Prompt

if TYPE_CHECKING:
    from jaxtyping import Float64


class TextPenalties:
    """Rewards of at most 0, to be added to others.

    Args:
        histories: of the users whose number a prompt carries.
        length_weight: taken off per 100 words.
        untruth_weight: taken off times the share of a text's names that are untrue (`untrue_share`).
        population_rates: what histories are compared with, where likes go by that.
    """

    name = "penalties"

    def __init__(
        self,
        log: Log,
        histories: Histories,
        *,
        length_weight: float = 0.0,
        untruth_weight: float = 0.0,
        population_rates: PopulationRates | None = None,
    ) -> None:
        self._attributes, self._histories, self._rates = log.attributes, histories, population_rates
        self._length_weight, self._untruth_weight = length_weight, untruth_weight
        self._catalogue, self._items_of = catalogue_of(log), history_items(log)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], /, **_: Any
    ) -> Float64[np.ndarray, "P N"]:
        """One value per completion; an empty text loses nothing."""
        values_PN = np.zeros((len(prompts), len(completions[0]) if completions else 0))
        for row, (prompt, completions_N) in enumerate(zip(prompts, completions, strict=True)):
            facts = history_facts(self._attributes, self._items_of(*self._histories.of(prompt.user)), self._rates)
            for place, text in enumerate(completions_N):
                length = self._length_weight * len(WORD.findall(text)) / 100
                values_PN[row, place] = -length - self._untruth_weight * untrue_share(text, self._catalogue, facts)
        return values_PN


def untrue_share(text: str, catalogue: Catalogue, facts: HistoryFacts) -> float:
    """Share of the values and titles that a text names which are untrue (`untrue_names`); 0 for none."""
    untrue = untrue_names(text, catalogue, facts)
    return sum(untrue) / len(untrue) if untrue else 0.0
