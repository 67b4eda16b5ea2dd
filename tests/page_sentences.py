"""The sentences of a report's own words, without what language models and users wrote."""

from __future__ import annotations

import re
from html.parser import HTMLParser

MAX_WORDS = 25
BLOCKS = {
    "p",
    "li",
    "dt",
    "dd",
    "caption",
    "figcaption",
    "summary",
    "h1",
    "h2",
    "h3",
    "h4",
    "td",
    "th",
    "div",
    "header",
}
WRITTEN_BY_OTHERS = {"completion", "history", "ranks", "facts"}
VOID = {"meta", "br", "hr", "img", "input", "link"}


class _Blocks(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []  # tag, and whether what it holds counts
        self.blocks: list[str] = [""]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            return
        style = set((dict(attrs).get("class") or "").split())
        counts = (not self.open or self.open[-1][1]) and tag not in ("style", "svg", "footer")
        self.open.append((tag, counts and not style & WRITTEN_BY_OTHERS))
        if tag in BLOCKS:
            self.blocks.append("")

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()
        if tag in BLOCKS:
            self.blocks.append("")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][1]:
            self.blocks[-1] += data


def long_sentences(page: str) -> list[str]:
    """Every sentence of the page with more than `MAX_WORDS` words."""
    parser = _Blocks()
    parser.feed(page)
    sentences = [
        one for block in parser.blocks for one in re.split(r"(?<=[.?!])\s+(?=[A-Z0-9])", " ".join(block.split()))
    ]
    return [one for one in sentences if len(one.split()) > MAX_WORDS]
