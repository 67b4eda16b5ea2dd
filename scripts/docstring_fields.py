"""What mkdocstrings is told of our docstrings: `name: meaning` lines are lists, and an `Example:` is code."""

from __future__ import annotations

import re
from textwrap import dedent, indent
from typing import Any

import griffe

FIELDS = re.compile(r"(?:\w+: .+(?:\n {4}.+)*(?:\n|$))+")
FIELD = re.compile(r"^(\w+): (.+(?:\n {4}.+)*)", re.MULTILINE)
EXAMPLE = re.compile(r"^Example:\n((?: {4}.*(?:\n|$)|\n)+)", re.MULTILINE)


class DocstringFields(griffe.Extension):
    """Puts docstrings into griffe's words, before griffe parses them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_griffe_reads(obj.docstring.value)


def as_griffe_reads(docstring: str) -> str:
    """The docstring with its paragraphs of fields as lists, and its example as a section of code."""
    paragraphs = docstring.split("\n\n")
    listed = (FIELD.sub(_item, part) if FIELDS.fullmatch(part) else part for part in paragraphs)
    return EXAMPLE.sub(_example, "\n\n".join(listed))


def _item(field: re.Match[str]) -> str:
    return f"- `{field[1]}`: {' '.join(field[2].split())}"


def _example(found: re.Match[str]) -> str:
    code = dedent(found[1]).strip()
    return "Examples:\n" + indent(code if code.startswith(">>>") else f"```python\n{code}\n```", "    ")
