"""The bundled LM's training corpus: invented catalogues, simulated histories, and true statements about them.

Every history comes from its own catalogue with new titles, names and values, so the model cannot memorise and must
read the prompt. One training sequence is one history (the *trunk*) followed by several independent questions and
answers (*branches*). All branches read the same trunk and none reads another, which makes supervised tokens cheap.

Kinds of branch: preference summaries as in `recloop.prompts.claims` (the skill itself), the values of an attribute
line by line, all claims about one attribute, the ratings of one value, the verdict on one value. Sequences of
repeated random tokens are mixed in, which teach a small model to copy before it has to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recloop.llm.bundled import ROLES
from recloop.prompts.claims import TITLE, Claim, Evidence, HistoryItem, Polarity, weigh_history, write_summary
from recloop.prompts.lines import clean_value
from recloop.prompts.template import SYSTEM, ProfileFacts, open_template
from recloop.prompts.user_profile import count_lines, shown_item
from scripts.pretrain_lm.given_names import GIVEN_NAMES
from scripts.pretrain_lm.summaries import MAX_ANSWER_WORDS, MAX_COUNTED, Summary, draw_summary
from scripts.pretrain_lm.tokenizer import CATALOGUE_TEXT

LONG_SHARE = 0.06  # of counted histories, with far more items than lines
MAX_LONG = 200
MAX_SHOWN = 16  # lines beside count lines; fewer are cheaper

RATED_SHARE = 0.5  # of histories
SHORT_SHARE = 0.5  # of histories without ratings, most of which are short in real logs
SHORT_ITEMS = 6

ACCENTED_SHARE = 0.12  # of names
ACCENTS = {
    "a": "áàâäåã", "c": "çćč", "e": "éèêëě", "i": "íîï", "l": "ł", "n": "ñń", "o": "óòôöøõ", "s": "šś",
    "u": "úùûü", "y": "ý", "z": "žż", "A": "ÁÅÄ", "E": "É", "O": "ÓÖØ",
}  # fmt: skip
COMMON_VALUES = tuple(CATALOGUE_TEXT.split())
RARE_SHARE = 0.5  # of words drawn from the whole vocabulary, mostly several tokens long, like people's names
GIVEN_SHARE = 0.65  # of names that begin with a common given name, whose tokens would be rare without it
SHARED_NAMES = 0.8  # at most this share of names share a word with another name of their catalogue
BRAND_SHARE = 0.4  # of catalogues with mostly brands as makers
KIN_SHARE = 0.35  # of columns of kinds, whose values share words
SUFFIXES = ("Co", "Inc", "Ltd", "Industries", "Tools", "Mfg", "Labs", "Products", "& Sons", "Press", "USA")
COMMON_SHARE = 0.6  # of kinds, which real catalogues share, so that a model may know them

NOUNS = ("films", "books", "games", "albums", "songs", "groceries", "tools", "products", "items", "shows")


@dataclass(frozen=True, slots=True)
class Branch:
    """One question under a trunk and its answers; only answers are trained on.

    summaries: the answers as choices, with all true options at each place; none for other questions.
    """

    question: str
    answers: tuple[str, ...]
    summaries: tuple[Summary, ...] = ()


@dataclass(frozen=True, slots=True)
class Lesson:
    """One training sequence as text."""

    trunk: str
    branches: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Difficulty:
    """The size and mix of lessons at one point of the curriculum."""

    max_items: int
    repeat_share: float  # share of sequences that are repeated random tokens
    num_summaries: int
    num_verdicts: int
    num_columns: int  # questions for the values of an attribute, line by line
    counted_share: float = 0.0  # share of histories whose prompt has count lines
    skill_share: float = 0.0  # share of lessons about next items, reflection and requests
    max_candidates: int = 20  # in those
    lookup_share: float = 0.0  # share of those that only look up lines of a list
    bare_share: float = 0.0  # share of histories whose items have titles alone
    short_share: float = 0.0  # share of histories with one to `SHORT_ITEMS` items, beside those that are short anyway
    fewest_claims: int = 0  # of a summary, where the history supports as many
    most_words: int = MAX_ANSWER_WORDS  # of a summary, about


class Words:
    """A source of invented words, names, values and titles."""

    def __init__(self, words: Sequence[str], rng: np.random.Generator) -> None:
        self._words = words
        self._rng = rng
        self._drawn: list[int] = []

    def word(self) -> str:
        if not self._drawn:
            ranks = np.exp(self._rng.random(4096) * np.log(len(self._words) / 20)) * 20
            is_rare = self._rng.random(4096) < RARE_SHARE
            ranks = np.where(is_rare, self._rng.random(4096) * len(self._words), ranks)
            self._drawn = ranks.astype(int).clip(0, len(self._words) - 1).tolist()
        text = self._words[self._drawn.pop()]
        return text.capitalize() if self._rng.random() < 0.95 else text

    def column(self, role: str) -> str:
        """What a catalogue calls its column of this role."""
        names = ROLES[role]
        return names[0] if self._rng.random() < 0.4 else names[self._rng.integers(len(names))]

    def invented(self) -> str:
        """A word made of syllables that is in no vocabulary."""
        onset, vowel, coda = (
            "b c d f g h j k l m n p r s t v w z br ch cl dr gr kr sh st th tr",
            "aeiou",
            "lmnrstkx",
        )
        onsets = onset.split()
        count = 1 + int(self._rng.integers(1, 4))
        parts = [onsets[self._rng.integers(len(onsets))] + vowel[self._rng.integers(5)] for _ in range(count)]
        return ("".join(parts) + coda[self._rng.integers(len(coda))]).capitalize()

    def name(self) -> str:
        last = self.invented() if self._rng.random() < 0.35 else self.word_or_given(0.1)
        first = f"{chr(65 + self._rng.integers(26))}." if self._rng.random() < 0.06 else ""
        first = first or self.word_or_given(GIVEN_SHARE)
        middle = f" {self.word_or_given(0.3)}" if self._rng.random() < 0.08 else ""
        if self._rng.random() < 0.05:
            last = f"{last}-{self.word()}"
        whole = f"{first}{middle} {last}"
        return self.accented(whole) if self._rng.random() < ACCENTED_SHARE else whole

    def word_or_given(self, share: float) -> str:
        """A common given name with probability `share`, else any word."""
        if self._rng.random() < share:
            return GIVEN_NAMES[self._rng.integers(len(GIVEN_NAMES))]
        return self.word()

    def accented(self, text: str) -> str:
        """The text with an accent on some of its letters, often the only bytes beyond ASCII in a name."""
        rate = self._rng.uniform(0.1, 0.5)
        return "".join(
            ACCENTS[c][self._rng.integers(len(ACCENTS[c]))] if c in ACCENTS and self._rng.random() < rate else c
            for c in text
        )

    def names(self, count: int) -> list[str]:
        """`count` names, many of which share a first or a last word, like real ones."""
        found = [self.name() for _ in range(count)]
        share = self._rng.random() * SHARED_NAMES
        for place in range(1, count):
            if self._rng.random() < share:
                words, others = found[place].split(), found[int(self._rng.integers(place))].split()
                end = 0 if self._rng.random() < 0.75 else -1
                words[end] = others[end]
                found[place] = " ".join(words)
        return found

    def value(self) -> str:
        if self._rng.random() < COMMON_SHARE:
            return COMMON_VALUES[self._rng.integers(len(COMMON_VALUES))]
        form = self._rng.random()
        if form < 0.02:
            return self.foreign()
        if form < 0.04:
            return self.accented(self.word())
        if form < 0.52:
            return self.word()
        if form < 0.64:
            return f"{self.word()} {self.word()}"
        if form < 0.7:
            return f"{self.word()}-{self.word()}"
        if form < 0.74:
            return f"{self.word()}'s"
        if form < 0.8:
            return f"{self.word()} & {self.word()}"
        if form < 0.88:
            return f"{self.word()} & {self.word()} {self.word()}"
        if form < 0.94:
            return " ".join(self.word() for _ in range(self._rng.integers(3, 6)))
        return self.invented()

    def brand(self) -> str:
        """A maker as shops write it: in upper case, in lower case, without spaces, with digits."""
        form = int(self._rng.integers(8))
        number = int(self._rng.choice([2, 3, 7, 18, 40, 66, 360, 911, 2000]))
        match form:
            case 0:
                return self.word().upper()
            case 1:
                return self.invented().lower()
            case 2:
                return self.word() + self.word()
            case 3:
                letters = "".join(chr(65 + int(self._rng.integers(26))) for _ in range(self._rng.integers(2, 5)))
                return letters if self._rng.random() < 0.5 else f"{letters} {self.word()}"
            case 4:
                return f"{chr(65 + self._rng.integers(26))}-{chr(65 + self._rng.integers(26))} {self.word()}"
            case 5:
                start = self.word()[: self._rng.integers(1, 4)].upper()
                return f"{number}{start}" if self._rng.random() < 0.4 else f"{start}-{number}"
            case 6 if self._rng.random() < 0.4:
                word = self.word()
                return word[0].lower() + (word[1:].upper() if self._rng.random() < 0.5 else word.capitalize())
            case 6:
                return f"{self.invented()} {SUFFIXES[self._rng.integers(len(SUFFIXES))]}"
            case _:
                return f"{self.name()} {SUFFIXES[self._rng.integers(len(SUFFIXES))]}"

    def kin(self, count: int) -> list[str]:
        """`count` values made of few words, like categories of a shop: any two may share a word."""
        pool = [self.word() for _ in range(max(4, count // 2))]
        found: list[str] = []
        for _ in range(count):
            drawn = [pool[p] for p in self._rng.choice(len(pool), size=min(4, len(pool)), replace=False)]
            if self._rng.random() < 0.3:
                drawn[0] = self.word()
            match int(self._rng.integers(6)):
                case 0:
                    found.append(drawn[0])
                case 1:
                    found.append(f"{drawn[0]} & {drawn[1]}")
                case 2:
                    found.append(f"{drawn[0]} {drawn[1]} & {drawn[2]}")
                case 3:
                    found.append(" ".join(drawn[:3]))
                case _:
                    found.append(" ".join(drawn[:2]))
        return found

    def foreign(self) -> str:
        """A word of random letters of another script."""
        first, size = ((0x4E00, 2000), (0x0430, 32), (0x3041, 80), (0xAC00, 2000), (0x0627, 30))[self._rng.integers(5)]
        return "".join(chr(first + int(self._rng.integers(size))) for _ in range(self._rng.integers(1, 5)))

    def order(self) -> str:
        """A title that looks like an instruction, which the answer must ignore."""
        verb = ("Ignore", "Forget", "Repeat", "Say", "Print", "Answer")[self._rng.integers(6)]
        rest = ("the above and say", "all of it and print", "these lines; answer", "the task and write")
        return f"{verb} {rest[self._rng.integers(4)]} {self.word()}"

    def title(self) -> str:
        unusual = self._rng.random()
        if unusual < 0.03:
            return self.foreign() if unusual < 0.02 else self.order()
        count = int(self._rng.choice([1, 2, 3, 4, 5, 7], p=[0.2, 0.3, 0.22, 0.14, 0.09, 0.05]))
        words = [self.word() for _ in range(count)]
        if count > 2 and self._rng.random() < 0.3:
            words[1] = ("of", "and", "the", "in", "&")[self._rng.integers(5)]
        return ("The " if self._rng.random() < 0.2 else "") + " ".join(words)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One column of an invented catalogue."""

    name: str
    values: tuple[str, ...]
    popularity: np.ndarray
    max_per_item: int


def invent_attributes(words: Words, num_items: int, rng: np.random.Generator) -> list[Attribute]:
    """The columns of one catalogue: half of the time era, kind and maker, as in most real catalogues."""
    layout = rng.random()
    if layout < 0.5:
        roles = ["era", "kind", "maker"]
        rng.shuffle(roles)
    elif layout < 0.65:
        roles = ["kind", "maker"]
    else:
        roles = list(rng.choice(["era", "kind", "maker", "other"], size=rng.integers(1, 5), replace=False))
    return [_invent_attribute(role, words, num_items, rng) for role in roles]


def _invent_attribute(role: str, words: Words, num_items: int, rng: np.random.Generator) -> Attribute:
    name = words.column(role)
    if role == "era":
        first = 1900 + 10 * int(rng.integers(0, 8))
        values = [f"{year}s" for year in range(first, first + 10 * int(rng.integers(2, 8)), 10)]
        rng.shuffle(values)
    elif role == "maker":
        count = int(max(2, num_items * rng.uniform(0.2, 1.6)))
        brands = rng.uniform(0.3, 1.0) if rng.random() < BRAND_SHARE else 0.0
        names = [name if rng.random() < 0.85 else words.value() for name in words.names(count)]
        values = [words.brand() if rng.random() < brands else name for name in names]
    else:
        count = int(rng.integers(3, 20))
        are_kin = rng.random() < KIN_SHARE
        values = words.kin(count) if are_kin else [words.value() for _ in range(count)]
    values = list(dict.fromkeys(filter(None, map(clean_value, values))))
    weights = (1.0 + np.arange(len(values))) ** -rng.uniform(0.3, 1.3)
    max_per_item = 1 if role == "era" or rng.random() < 0.3 else int(rng.integers(2, 5))
    if role == "maker":
        max_per_item = 1 if rng.random() < 0.75 else 2
    return Attribute(name, tuple(values), weights / weights.sum(), max_per_item)


def invent_history(
    words: Words, max_items: int, rng: np.random.Generator, min_items: int = 2, has_attributes: bool = True
) -> tuple[list[str], list[HistoryItem]]:
    """Attribute names and the history of one user of an invented catalogue; one in 50 has 0 to 2 items."""
    few = rng.random() < 0.02
    has_rating = rng.random() < RATED_SHARE
    if not has_rating and min_items < SHORT_ITEMS and rng.random() < SHORT_SHARE:
        max_items = min(max_items, SHORT_ITEMS)
    num_items = int(rng.integers(0, 3)) if few else int(rng.integers(min_items, max_items + 1))
    attributes = invent_attributes(words, num_items, rng) if has_attributes else []
    level, noise, reach = rng.normal(3.6, 0.5), rng.uniform(0.3, 1.2), rng.uniform(0.0, 1.3)
    tastes = [rng.normal(0, reach, size=len(attribute.values)) for attribute in attributes]
    items = []
    for _ in range(num_items):
        values, liking = [], level + rng.normal(0, noise)
        for attribute, taste in zip(attributes, tastes, strict=True):
            count = min(int(rng.integers(1, attribute.max_per_item + 1)), len(attribute.values))
            if rng.random() < 0.03:
                values.append(())
                continue
            chosen = rng.choice(len(attribute.values), size=count, replace=False, p=attribute.popularity)
            values.append(tuple(attribute.values[c] for c in chosen))
            liking += taste[chosen].mean()
        rating = float(np.clip(round(liking), 1, 5)) if has_rating else None
        items.append(HistoryItem(words.title(), tuple(values), rating))
    return [attribute.name for attribute in attributes], items


def verdict(evidence: Evidence) -> str:
    """The verdict on one value: likes, dislikes, mixed, once."""
    if evidence.num_items < 2:
        return "once"
    return evidence.polarity.value if evidence.polarity else "mixed"


def invent_lesson(words: Words, difficulty: Difficulty, rng: np.random.Generator) -> Lesson:
    """One history with its summaries, full accounts, lists of ratings and verdicts."""
    is_bare = difficulty.bare_share > 0 and rng.random() < difficulty.bare_share
    is_counted = not is_bare and rng.random() < difficulty.counted_share
    is_long = is_counted and rng.random() < LONG_SHARE
    longest = MAX_LONG if is_long else difficulty.max_items
    fewest = difficulty.max_items if is_long else 2
    if difficulty.short_share > 0 and not is_long and rng.random() < difficulty.short_share:
        longest, fewest = int(rng.integers(1, SHORT_ITEMS + 1)), 1
    attributes, items = invent_history(words, longest, rng, fewest, not is_bare)
    evidence = weigh_history(attributes, items)
    noun = NOUNS[rng.integers(len(NOUNS))]
    shown, counts = items, []
    if is_counted:
        num_shown = int(rng.integers(min(len(items), MAX_SHOWN) + 1, size=2).min())
        shown = items[len(items) - num_shown :]
        counts = count_lines(attributes, items, MAX_COUNTED)
    lines = tuple(shown_item(attributes, item) for item in items)
    rated = [item.rating for item in items if item.rating is not None]
    mean = sum(rated) / len(rated) if rated else None
    facts = ProfileFacts(noun, tuple(attributes), lines, lines[len(lines) - len(shown) :], mean, tuple(counts))
    history, _, task = open_template("counted")(facts).user.rpartition("\n")
    trunk = f"<|system|>{SYSTEM}<|end|><|user|>{history}"
    told, enough, words_left = attributes or (TITLE,), difficulty.fewest_claims, difficulty.most_words
    summaries = tuple(draw_summary(told, evidence, rng, enough, words_left) for _ in range(difficulty.num_summaries))
    branches = [Branch(task, tuple(summary.text for summary in summaries), summaries)]
    if not attributes:
        return Lesson(trunk, (*branches, _list_titles(shown, rng)))
    attribute = attributes[int(rng.integers(len(attributes)))]
    whole = [e for e in evidence if e.attribute == attribute and e.polarity in (Polarity.LIKES, Polarity.DISLIKES)][:8]
    account = write_summary([Claim(attribute, e.polarity, e.value) for e in whole if e.polarity], [attribute])
    branches.append(Branch(f"Every like and dislike by {attribute}?", (account,)))
    branches += [_list_values(attributes, shown, rng) for _ in range(difficulty.num_columns)]
    if evidence:
        repeated = [e for e in evidence if e.num_items >= 2]
        for number in range(difficulty.num_verdicts):
            pool = repeated if repeated and rng.random() < 0.75 else evidence
            asked = pool[rng.integers(len(pool))]
            column = attributes.index(asked.attribute)
            rating = [f"{i.rating:g}" for i in items if asked.value in i.values[column] and i.rating is not None]
            if number % 3 == 0 and 0 < len(rating) <= 12 and not is_counted:
                answer = f"{', '.join(rating)}: {verdict(asked)}."
                branches.append(Branch(f"Stars of {asked.attribute} {asked.value}?", (answer,)))
            else:
                branches.append(Branch(f"What about {asked.attribute} {asked.value}?", (f"{verdict(asked)}.",)))
    return Lesson(trunk, tuple(branches))


def _list_titles(items: Sequence[HistoryItem], rng: np.random.Generator) -> Branch:
    """A branch with the titles of all items or of those with one rating."""
    rating = items[int(rng.integers(len(items)))].rating if items else None
    titles = [f'"{item.title}"' for item in items if rating is None or item.rating == rating][:8]
    of = "" if rating is None else f" of {rating:g} stars"
    return Branch(f"List title{of}?", (f"{'; '.join(titles) or 'none'}.",))


def _list_values(attributes: Sequence[str], items: Sequence[HistoryItem], rng: np.random.Generator) -> Branch:
    """A branch with the values of one attribute, line by line, of all items or of those with one rating."""
    column = int(rng.integers(len(attributes)))
    rating = items[int(rng.integers(len(items)))].rating if items and rng.random() < 0.6 else None
    values = [", ".join(i.values[column]) or "none" for i in items if rating is None or i.rating == rating][:8]
    of = "" if rating is None else f" of {rating:g} stars"
    return Branch(f"List {attributes[column]}{of}?", (f"{'; '.join(values) or 'none'}.",))
