"""Words for invented catalogues: attributes and their values, title words and made-up names, by domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recloop.records import Domain


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_GIVEN = _words(
    "Ada Alma Arlo Basil Bruna Cass Clio Dario Della Edda Elio Enzo Fay Flora Gwen Hale Hugo Ilse Ines "
    "Ivo Jonas June Kai Lena Lior Livia Luca Mara Milo Nadia Nell Nico Olga Otis Pia Quinn Rhea Rolf "
    "Runa Saul Selma Tess Theo Tilda Uma Vera Viggo Wren Yara Zeno"
)
_FAMILY = _words(
    "Abbey Alder Arden Barrow Bellamy Birch Brandt Calder Carrow Crane Dorn Drake Elling Farrow Finch "
    "Garrick Graves Hollis Holt Ives Jessup Kerr Lang Larkin Locke Marlow Mercer Moss Nash Norden Oakes "
    "Orrin Pell Penrose Quill Rook Rowe Sable Sandoval Severin Stroud Tarn Thorne Underhill Vale Vance "
    "Wilder Winslow Yarrow Zane"
)
_BRAND_HEADS = _words("Arb Bel Cor Dux Fen Gal Hex Jun Kel Lum Mar Nor Orb Pax Rav Sol Tem Ver Wex Zor")
_BRAND_TAILS = _words("adan ello etta ico ida ifex ion ique iva ora ovia um ux yra")
_ADJECTIVES = _words(
    "Amber Bitter Borrowed Broken Burning Crooked Crystal Distant Electric Empty Endless Fading Final "
    "Forgotten Frozen Gentle Golden Hidden Hollow Idle Iron Last Little Lonely Lost Midnight Northern "
    "Open Paper Patient Pale Quiet Restless Scarlet Second Secret Silent Silver Sleeping Stolen Sudden "
    "Tender Velvet Wandering Western Wild Winter Wooden"
)
_NOUNS = _words(
    "Anchor Archive Arrow Bridge Cabin Canyon Carnival Compass Country Crossing Crown Echo Ember Engine "
    "Equation Express Feather Ferry Garden Garrison Harbor Harvest Hour Island Journey Kingdom Lantern "
    "Letter Lighthouse Machine Mirror Mountain Orchard Parade Passage Promise Railway Ransom River Road "
    "Season Shadow Signal Station Summer Thread Tide Tower Valley Verdict Voyage Waltz Window"
)
_PRODUCT_NOUNS = _words(
    "Backpack Blender Bottle Brush Cable Chair Clamp Clock Cooker Cutter Drill Fan Filter Flask Gauge "
    "Glove Grinder Heater Holder Kettle Lamp Level Mat Meter Mixer Mug Opener Pan Pump Rack Saw Scale "
    "Shelf Speaker Spray Stand Stool Tape Timer Tray"
)
_GENRES = _words("Drama Comedy Western Horror Romance War Fantasy Mystery Musical Crime Animation Documentary")
_BOOK_GENRES = (
    *_words("Poetry Thriller Romance History Fantasy Mystery Biography Horror Travel Satire"),
    "Science Fiction",
    "Philosophy",
)
_CATEGORIES = _words("Kitchen Garden Office Camping Bathroom Workshop Fitness Pets Music Cycling Painting Travel")
_MATERIALS = _words("steel wood glass cotton rubber ceramic leather bamboo")
_ERAS = tuple(f"{year}s" for year in range(2010, 1920, -10))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The attributes of a domain's items. `words[f]` are the values of attribute f, None: invented names."""

    attributes: tuple[str, str, str]
    words: tuple[tuple[str, ...] | None, ...]
    nouns: tuple[str, ...]


VOCABULARIES: dict[Domain, Vocabulary] = {
    Domain.MOVIES: Vocabulary(("era", "genre", "director"), (_ERAS, _GENRES, None), _NOUNS),
    Domain.BOOKS: Vocabulary(("era", "genre", "author"), (_ERAS, _BOOK_GENRES, None), _NOUNS),
    Domain.PRODUCTS: Vocabulary(("material", "category", "brand"), (_MATERIALS, _CATEGORIES, None), _PRODUCT_NOUNS),
}


def attribute_values(domain: Domain, attribute: int, num_values: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Distinct values for one attribute: the first of its words, or invented names; fewer when there are fewer."""
    words = VOCABULARIES[domain].words[attribute]
    if words is None:
        heads, tails, joint = (_BRAND_HEADS, _BRAND_TAILS, "") if domain is Domain.PRODUCTS else (_GIVEN, _FAMILY, " ")
        words = tuple(_combine(heads, tails, joint, num_values, rng))
    return words[:num_values]


def deal_values(num_values: int, num_items: int, rng: np.random.Generator) -> np.ndarray:
    """One value per item, all values equally often up to one."""
    return rng.permutation(np.arange(num_items) % num_values)


def item_titles(domain: Domain, num_items: int, rng: np.random.Generator) -> list[str]:
    """Distinct invented titles; numbered sequels where there are more items than pairs of words."""
    nouns = VOCABULARIES[domain].nouns
    num_plain = len(_ADJECTIVES) * len(nouns)
    titles = _combine(_ADJECTIVES, nouns, " ", min(num_items, num_plain), rng)
    more = [f"{titles[n % num_plain]} {n // num_plain + 1}" for n in range(num_plain, num_items)]
    return titles + more


def _combine(heads: Sequence[str], tails: Sequence[str], joint: str, num: int, rng: np.random.Generator) -> list[str]:
    """`num` distinct pairs of a head and a tail; fewer when there are fewer."""
    drawn = rng.permutation(len(heads) * len(tails))[:num]
    return [f"{heads[n // len(tails)]}{joint}{tails[n % len(tails)]}" for n in drawn]
