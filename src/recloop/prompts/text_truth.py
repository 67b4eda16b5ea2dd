"""Whether what texts say about users is true of their histories: any text, in canonical form or in prose."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from recloop.errors import SettingError
from recloop.prompts.claims import (
    TITLE,
    HistoryItem,
    Polarity,
    PopulationRates,
    parse_claims,
    population_rates,
    true_claims,
)
from recloop.prompts.lines import history_items
from recloop.prompts.plausibility import WORD, repeats
from recloop.prompts.prose import Catalogue, Mention, catalogue_of, find_mentions
from recloop.records import CandidateLists, Completion, CompletionStatus, Histories, Log, Prompt, UserCompletions

if TYPE_CHECKING:
    from jaxtyping import Int64

FACTS_KEPT = 10_000  # users, each checked several times in a row
SAYS = ("no value or title", "only what is true", "something untrue")


@dataclass(frozen=True, slots=True)
class HistoryFacts:
    """What a history supports.

    present: attribute and value, or ``title`` and title, of all that its items carry or its evidence is about.
    true: every mention with a sign that it supports.
    """

    present: frozenset[tuple[str, str]]
    true: frozenset[Mention]


@dataclass(frozen=True, slots=True)
class TextTruth:
    """What the texts of a language model name, and how much of it is true; NaN where there is nothing to count.

    Means are over texts, shares over all names of all texts. Empty texts are left out.
    """

    num_texts: int
    in_form: float  # share of texts in canonical form
    values: float  # mean number of distinct values that a text names
    grounded: float  # share of them that the history holds
    true: float  # share of the values said with a sign that the history supports with this sign
    titles: float  # as values
    titles_grounded: float
    titles_true: float
    words: float  # mean number
    repeating: float  # share of texts that repeat themselves (`recloop.prompts.plausibility.repeats`)
    same_text: float  # share of users with a text that another user has too


def history_facts(
    attributes: Sequence[str], history: Sequence[HistoryItem], population_rates: PopulationRates | None = None
) -> HistoryFacts:
    """What a history supports: values as `recloop.prompts.claims` has it, titles by their rating.

    So a value whose evidence is mixed, or which one item carries, is true with neither sign. A title is liked when
    the user rated it above their mean, disliked below it; without ratings a title of the history is liked.

    Args:
        population_rates: what the history is compared with; a value that it holds clearly less of is disliked,
            and counts as present.
    """
    claims = [claim for claim, _ in true_claims(attributes, history, population_rates)]
    present = {(a, v) for one in history for a, own in zip(attributes, one.values, strict=True) for v in own}
    present |= {(claim.attribute, claim.value) for claim in claims} | {(TITLE, one.title) for one in history}
    true = {Mention(c.attribute, c.value, c.polarity) for c in claims if c.polarity is not Polarity.ALSO}
    rated = [one.rating for one in history if one.rating is not None]
    mean = sum(rated) / len(rated) if rated else 0.0
    for one in history:
        if one.rating is None or one.rating > mean:
            true.add(Mention(TITLE, one.title, Polarity.LIKES))
        elif one.rating < mean:
            true.add(Mention(TITLE, one.title, Polarity.DISLIKES))
    return HistoryFacts(frozenset(present), frozenset(true))


def untrue_names(text: str, catalogue: Catalogue, facts: HistoryFacts) -> list[bool]:
    """Of each value and title that a text names, whether the history does not hold or contradicts it.

    A name that the text says with a sign must be true with this sign; one without a sign must be in the history.
    """
    return [
        (one.attribute, one.value) not in facts.present if one.polarity is None else one not in facts.true
        for one in find_mentions(text, catalogue)
    ]


def unsupported(text: str, catalogue: Catalogue, attributes: Sequence[str], facts: HistoryFacts) -> list[bool]:
    """`untrue_names`, and of each claim of a canonical text whether the history does not support it.

    A canonical claim may name a value that no item has, or under another attribute: its words alone do not tell.
    """
    return untrue_names(text, catalogue, facts) + [
        (claim.attribute, claim.value) not in facts.present
        if claim.polarity is Polarity.ALSO
        else Mention(claim.attribute, claim.value, claim.polarity) not in facts.true
        for claim in parse_claims(text, attributes).claims
    ]


@dataclass(frozen=True, slots=True)
class TruthCheck:
    """What `truth_check` gives, with the facts of each user as a function.

    attributes: names, for the canonical form.
    """

    catalogue: Catalogue = field(repr=False)
    attributes: Sequence[str]
    facts_of: Callable[[int], HistoryFacts] = field(repr=False)
    in_form: bool = False

    def __call__(self, prompt: Prompt, completion: Completion) -> bool:
        if completion.status is not CompletionStatus.OK or not completion.is_finished:
            return False
        if self.in_form and not parse_claims(completion.text, self.attributes).is_well_formed:
            return False
        return not any(unsupported(completion.text, self.catalogue, self.attributes, self.facts_of(prompt.user)))


def truth_check(
    log: Log, lists: CandidateLists, *, likes_by: Literal["rating", "share"] = "rating", in_form: bool = False
) -> TruthCheck:
    """A check for `recloop.generate`: the completion is usable, not cut off, and says nothing unsupported of its user.

    What a text says of a value or title must be supported by the user's whole history, by the rules of
    `recloop.prompts.claims`: a value is liked if at least two items carry it and are rated above the user's mean, for
    example. Prose is read by its words, one sign in ten of them wrongly, so a few true texts are refused; and what is
    neither a value nor a title of the log is not seen there. In canonical form every claim is read.

    Args:
        log: whose values and titles texts are searched for.
        lists: of this log, whose histories the prompts are about.
        likes_by: as `PromptConfig.likes_by`; ``share`` compares a history with those of the train users.
        in_form: the text must also be in canonical form.

    Raises:
        SettingError: something else in the place of the log or the lists, or lists of another log.

    Example:
        >>> from recloop.data.lists import candidate_lists
        >>> from recloop.data.load import load_log
        >>> log = load_log(users=20)
        >>> check = truth_check(log, candidate_lists(log))
        >>> check(Prompt(0, "", "", 0, 0), Completion(0, 0, "Likes nothing that is known.", 5, True, -1.0))
        True
    """
    given: Any = log, lists
    if not isinstance(given[0], Log) or not isinstance(given[1], CandidateLists) or likes_by not in ("rating", "share"):
        got = f"{type(log).__name__}, {type(lists).__name__} and likes_by={likes_by!r}"
        raise SettingError(f"a check of texts needs a Log, its CandidateLists and likes_by rating or share, got {got}")
    histories = lists.histories
    if histories.num_users != log.num_users or histories.items.max(initial=-1) >= log.num_items:
        raise SettingError(
            f"the lists must be those of the log {log.name} with {log.num_users} users and {log.num_items} items, got "
            f"histories of {histories.num_users} users; make them with candidate_lists"
        )
    rates = None
    if likes_by == "share":
        items_of, train = history_items(log), np.unique(lists.train.user_B).tolist()
        rates = population_rates(log.attributes, (items_of(*histories.of(user)) for user in train))
    return check_of(log, histories, rates, in_form=in_form)


def check_of(
    log: Log, histories: Histories, population_rates: PopulationRates | None = None, *, in_form: bool = False,
    catalogue: Catalogue | None = None,
) -> TruthCheck:  # fmt: skip
    """`truth_check` by histories alone, of the users that prompts are about.

    Args:
        catalogue: of this log, where it is there already.
    """
    items_of = history_items(log)

    @lru_cache(maxsize=FACTS_KEPT)
    def facts_of(user: int) -> HistoryFacts:
        return history_facts(log.attributes, items_of(*histories.of(user)), population_rates)

    return TruthCheck(catalogue or catalogue_of(log), log.attributes, facts_of, in_form)


def what_texts_say(
    log: Log, histories: Histories, completions: UserCompletions, population_rates: PopulationRates | None = None
) -> Int64[np.ndarray, " U"]:
    """The place in `SAYS` of each user's texts, all together: a user with one untrue name is in the last.

    Args:
        population_rates: as for `assess_texts`.
    """
    catalogue, items_of = catalogue_of(log), history_items(log)
    said: list[int] = []
    for user, completions_N in zip(completions.user_U.tolist(), completions.completions_UN, strict=True):
        facts = history_facts(log.attributes, items_of(*histories.of(user)), population_rates)
        untrue = [one for text in completions_N for one in unsupported(text.text, catalogue, log.attributes, facts)]
        said.append(2 if any(untrue) else 1 if untrue else 0)
    return np.array(said, dtype=np.int64)


def assess_texts(
    log: Log, histories: Histories, completions: UserCompletions, population_rates: PopulationRates | None = None
) -> TextTruth:
    """How much of what some texts say about users is true of the users' whole histories.

    Args:
        population_rates: what histories are compared with, where likes go by that.

    Example:
        >>> import numpy as np
        >>> from recloop.data.lists import candidate_lists
        >>> from recloop.data.load import load_log
        >>> from recloop.records import Completion
        >>> log = load_log(users=20)
        >>> text = Completion(0, 0, "Likes drama.", 3, True, -1.0)
        >>> told = UserCompletions(np.array([0]), ((text,),))
        >>> assess_texts(log, candidate_lists(log).histories, told).values
        1.0
    """
    catalogue, items_of = catalogue_of(log), history_items(log)
    grounded: dict[bool, list[bool]] = {True: [], False: []}  # of titles, of values
    true: dict[bool, list[bool]] = {True: [], False: []}
    texts: list[str] = []
    users_of: dict[str, set[int]] = defaultdict(set)
    for user, completions_N in zip(completions.user_U.tolist(), completions.completions_UN, strict=True):
        facts = history_facts(log.attributes, items_of(*histories.of(user)), population_rates)
        for text in (one.text for one in completions_N if one.text):
            texts.append(text)
            users_of[text].add(user)
            mentions = find_mentions(text, catalogue)
            for name in dict.fromkeys((one.attribute, one.value) for one in mentions):
                grounded[name[0] == TITLE].append(name in facts.present)
            for one in mentions:
                if one.polarity is not None:
                    true[one.attribute == TITLE].append(one in facts.true)
    same = {user for users in users_of.values() if len(users) > 1 for user in users}
    users = {user for own in users_of.values() for user in own}
    return TextTruth(
        num_texts=len(texts),
        in_form=_mean([parse_claims(text, log.attributes).is_well_formed for text in texts]),
        values=len(grounded[False]) / len(texts) if texts else math.nan,
        grounded=_mean(grounded[False]),
        true=_mean(true[False]),
        titles=len(grounded[True]) / len(texts) if texts else math.nan,
        titles_grounded=_mean(grounded[True]),
        titles_true=_mean(true[True]),
        words=_mean([len(WORD.findall(text)) for text in texts]),
        repeating=_mean([repeats(text) for text in texts]),
        same_text=len(same) / len(users) if users else math.nan,
    )


def _mean(found: Sequence[float]) -> float:
    return sum(found) / len(found) if found else math.nan
