"""How long the sentences of a page are and how easily it reads, e.g. of the README now and before it was rewritten.

    python -m scripts.readability README.md docs/*.md docs/guides/*.md
    git show 63b6b2c8^:README.md | python -m scripts.readability -

Flesch's reading ease is 206.835 - 1.015 words per sentence - 84.6 syllables per word. Above 60 is plain English, and
below 30 is hard to read. Code in a line counts as one word of one syllable, since nobody reads it aloud.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
LINKED = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
END = re.compile(r"(?<=[.?!])(?<!e\.g\.)\s+")


def sentences(markdown: str) -> list[str]:
    """The prose of a page: no code, tables, headings; a list's item is a block, and a link one word."""
    found: list[str] = []
    for block in re.split(r"\n\s*\n|\n(?=- )", FENCE.sub("", markdown)):
        if not block.startswith(("|", "#", "![")):
            found += END.split(LINK.sub("link", " ".join(block.split())))
    return [one for one in found if one]


def num_syllables(word: str) -> int:
    """Groups of vowels, less a silent e at the end; one at least."""
    letters = re.sub(r"[^a-z]", "", word.lower())
    silent = letters.endswith("e") and not letters.endswith(("le", "ee"))
    return max(1, len(re.findall(r"[aeiouy]+", letters)) - silent)


def readability(markdown: str) -> dict[str, float]:
    """Sentences, their mean and longest length in words, and Flesch's reading ease; links count by their words."""
    prose = sentences(LINKED.sub(r"\1", re.sub(r"`[^`\n]+`", "code", FENCE.sub("", markdown))))
    words = [[word for word in one.split() if re.search(r"[A-Za-z0-9]", word)] for one in prose]
    lengths = [len(one) for one in words if one]
    syllables = sum(num_syllables(word) for one in words for word in one)
    mean = sum(lengths) / len(lengths)
    return {
        "sentences": len(lengths),
        "mean": mean,
        "longest": max(lengths),
        "ease": 206.835 - 1.015 * mean - 84.6 * syllables / sum(lengths),
    }


def main(names: list[str]) -> None:
    """Print a line for each page."""
    print(f"{'page':32} sentences  mean  longest  Flesch")
    for name in names:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        of = readability(text)
        print(f"{name:32} {of['sentences']:9.0f} {of['mean']:5.1f} {of['longest']:8.0f} {of['ease']:7.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
