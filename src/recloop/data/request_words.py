"""Requests in natural words: many ways to say the same conditions.

Every function draws one wording of the conditions it is given. Attributes have the names of the log, so that a
model can be held to the words of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recloop.records import Condition

MAKERS = frozenset((
    "director", "author", "artist", "studio", "brand", "developer", "publisher", "designer", "maker", "writer",
))  # fmt: skip
KINDS = frozenset(["genre", "category", "style", "type", "theme", "subject", "mood"])
ERAS = frozenset(("era", "decade", "period"))

BY_MAKER = ("by {value}", "by {attribute} {value}", "from {value}", "whose {attribute} is {value}")
OF_KIND = ("of {attribute} {value}", "that counts as {value}", "listed under {value}", "with {attribute} {value}")
FROM_ERA = ("from the {value}", "of the {value}", "with {attribute} {value}", "that takes me to the {value}")
WITH_VALUE = ("with {attribute} {value}", "whose {attribute} is {value}", "with {value} as {attribute}")
AS_ITEM = (
    'with the same {attribute} as "{title}"',
    'with the {attribute} of "{title}"',
    'that shares its {attribute} with "{title}"',
    'whose {attribute} is that of "{title}"',
)
ASKING = (
    "I would like a {noun} {wish}.",
    "Can you suggest a {noun} {wish}?",
    "I am looking for a {noun} {wish}.",
    "Which {noun} would you pick if I want one {wish}?",
    "Find me one {noun} {wish}, please.",
    "Tonight I want a {noun} {wish}.",
    "Please recommend a {noun} {wish}.",
    "My next {noun} should be one {wish}.",
)
CLAIMING = (
    'I know that "{title}" has {attribute} {value}. {asking}',
    'As "{title}" is one with {attribute} {value}, I am curious for more. {asking}',
    'My friends told me about "{title}" and its {attribute}, {value}. {asking}',
    'I enjoyed "{title}", the one with {value} as {attribute}. {asking}',
)
BY_TASTE = (
    "that fits my taste in {attribute}",
    "of the {attribute} I like most",
    "with the {attribute} that my history likes best",
    "of my favourite {attribute}",
)
AS_GROUP = (
    "Which {noun} suits people like me by {attribute}? I am: {group}.",
    "I am: {group}. Suggest a {noun} of the {attribute} that others like me favour.",
    "For someone who is: {group}. Find a {noun} of the {attribute} that such people like most.",
)
FORMS = ((MAKERS, BY_MAKER), (KINDS, OF_KIND), (ERAS, FROM_ERA))  # names of attributes, wordings of their values
JOINTS = (" and ", ", ", ", and also ", " but also ")


def one_of(noun: str) -> str:
    """The singular of a plural noun: ``films`` is ``film``, ``groceries`` is ``grocery``."""
    return noun[:-3] + "y" if noun.endswith("ies") else noun.removesuffix("s")


def wish_of(condition: Condition, rng: np.random.Generator) -> str:
    """One condition, named: ``by Ann Vale``."""
    forms = next((forms for names, forms in FORMS if condition.attribute in names), WITH_VALUE)
    return _draw(forms, rng).format(attribute=condition.attribute, value=condition.value)


def ask(noun: str, wishes: Sequence[str], rng: np.random.Generator) -> str:
    """A whole request for one of the plural `noun`, by conditions in words as of `wish_of`, said in this order.

    Example:
        >>> ask("films", ["by Ann Vale", "of the 1990s"], np.random.default_rng(3))
        'I would like a film by Ann Vale but also of the 1990s.'
    """
    wish = wishes[0]
    for more in wishes[1:]:
        wish += _draw(JOINTS, rng) + more
    return _with_article(_draw(ASKING, rng).format(noun=one_of(noun), wish=wish), noun)


def ask_explicitly(noun: str, conditions: Sequence[Condition], rng: np.random.Generator) -> str:
    """A request that names every condition."""
    return ask(noun, [wish_of(condition, rng) for condition in conditions], rng)


def ask_by_item(noun: str, title: str, attribute: str, more: Sequence[Condition], rng: np.random.Generator) -> str:
    """A request for the attribute value of another item, and further conditions that are named."""
    wish = _draw(AS_ITEM, rng).format(attribute=attribute, title=title)
    return ask(noun, [wish, *(wish_of(one, rng) for one in more)], rng)


def ask_misinformed(
    noun: str, title: str, false: Condition, more: Sequence[Condition], rng: np.random.Generator
) -> str:
    """As `ask_by_item`, after a false claim about that item."""
    asking = ask_by_item(noun, title, false.attribute, more, rng)
    claim = _draw(CLAIMING, rng)
    return claim.format(title=title, attribute=false.attribute, value=false.value, asking=asking)


def ask_by_taste(noun: str, attribute: str, more: Sequence[Condition], rng: np.random.Generator) -> str:
    """A request for the value of one attribute that the history likes most, and further conditions that are named."""
    wish = _draw(BY_TASTE, rng).format(attribute=attribute)
    return ask(noun, [wish, *(wish_of(one, rng) for one in more)], rng)


def ask_as_group(noun: str, attribute: str, group: Mapping[str, str], rng: np.random.Generator) -> str:
    """A request for the value of one attribute that people like the user like more than others do."""
    told = ", ".join(f"{name} {value}" for name, value in group.items())
    asking = _draw(AS_GROUP, rng).format(noun=one_of(noun), attribute=attribute, group=told)
    return _with_article(asking, noun)


def _draw(forms: Sequence[str], rng: np.random.Generator) -> str:
    return forms[int(rng.integers(len(forms)))]


def _with_article(text: str, noun: str) -> str:
    one = one_of(noun)
    return text.replace(f" a {one}", f" an {one}") if one[:1].lower() in "aeiou" else text
