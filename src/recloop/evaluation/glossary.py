"""The words that a report links to one line each, said in this place alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape


@dataclass(frozen=True, slots=True)
class Term:
    """A word and what it means. also: other forms of it that are linked to it."""

    word: str
    meaning: str
    also: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """What links to it: ``word-random-labels``."""
        return "word-" + re.sub(r"[^a-z0-9]+", "-", self.word.lower())


GLOSSARY = (
    Term("seed", "One repetition with other random draws. A claim needs three, all on one side of 0.", ("seeds",)),
    Term("interval", "Where 95% of means lie when users are drawn again with replacement.", ("intervals",)),
    Term("Holm", "A correction that raises p by the number of differences a table tests."),
    Term("chance", "The candidates in random order: the expected value."),
    Term("demonstration", "A run that shows what a study looks like. With one or two seeds nothing may be claimed."),
    Term("untuned", "The language model before training, or what it writes, as in KAR.", ("base model",)),
    Term("trained text", "What the language model writes after training on the rewards."),
    Term(
        "training on random labels",
        "The same training with better and worse, or the rewards, dealt out at random: what training does by itself.",
        ("random labels",),
    ),
    Term(
        "ID history",
        "The reranker reads ids and ratings of the items that the language model is shown, and no text.",
        ("history as IDs",),
    ),
    Term("summary by a fixed rule", "A text that a template fills from the history.", ("best fixed template",)),
    Term("texts of other users", "Every user gets another user's text, which is not about them.", ("shuffled",)),
    Term("reranker", "A model that orders the candidates of a list; it may read a text.", ("rerankers",)),
    Term("reward model", "A reranker that was fitted before training and then frozen. It gives the rewards."),
    Term(
        "evaluation reranker",
        "A new reranker, fitted on train users for each variant, which scores the test users.",
        ("evaluators", "evaluator", "evaluation rerankers"),
    ),
    Term("reward", "What a completion is worth, measured on lists of its user; training raises it.", ("rewards",)),
    Term("completion", "One text that a language model writes for a prompt.", ("completions",)),
    Term("preference pair", "A better and a worse completion about the same user.", ("pairs", "pair")),
    Term("DPO", "Training on preference pairs: chosen completions become likelier than rejected ones."),
    Term("SFT", "Training to write given texts: here the best completions."),
    Term("GRPO", "Reinforcement: what the model writes is compared with its other answers to the same prompt."),
    Term("test users", "Those whose lists report the result. No choice and no training sees their labels."),
    Term("reward users", "Those whose lists give rewards. No reranker is fitted on them."),
    Term("train users", "Those on whose lists rerankers are fitted."),
    Term("validation users", "Those on whose lists choices are made, such as the best epoch.", ("valid users",)),
    Term(
        "liked",
        "Has a positive label: the rating reaches the log's threshold, or without ratings the interaction happened.",
    ),
    Term("candidates", "The items of one list, which are put in order."),
    Term("canonical form", "Attribute by attribute, what a user likes and dislikes, as the bundled model writes it."),
    Term("split-half reliability", "How far odd and even lists prefer the same completions: 0 is noise, 1 is none."),
    Term("entropy", "How undecided the model is about the next token, in nats."),
    Term("hint", "A sentence that the language model left after a mistake; one may be added to a prompt.", ("hints",)),
    Term("policy", "A small model that chooses a hint for each session."),
)  # fmt: skip

_BY_WORD = {form.lower(): term for term in GLOSSARY for form in (term.word, *term.also)}
_WORDS = re.compile(r"\b(" + "|".join(map(re.escape, sorted(_BY_WORD, key=len, reverse=True))) + r")\b", re.IGNORECASE)


def terms_in(text: str) -> tuple[Term, ...]:
    """The terms that a text uses, each once, in their order in the text."""
    return tuple(dict.fromkeys(_BY_WORD[match[0].lower()] for match in _WORDS.finditer(text)))


def linked(text: str) -> Markup:
    """A text as HTML, the first use of each term linked to its line in the glossary."""
    parts: list[Markup] = []
    seen: set[Term] = set()
    end = 0
    for match in _WORDS.finditer(text):
        term = _BY_WORD[match[0].lower()]
        if term not in seen:
            seen.add(term)
            link = Markup('<a class="term" href="#{}">{}</a>').format(term.anchor, match[0])
            parts += [escape(text[end : match.start()]), link]
            end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def used_terms(texts: Iterable[str]) -> tuple[Term, ...]:
    """The terms of `GLOSSARY` that any of these texts uses, in its order."""
    used = {term for text in texts for term in terms_in(text)}
    return tuple(term for term in GLOSSARY if term in used)
