"""Limits of what a Jinja template may do: a chat template comes with a model, and others wrote it."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, cast

MAX_STEPS = 200_000  # lines run in one rendering; a long conversation takes thousands
MAX_CHARS = 1_000_000  # of one variable
MAX_DIGITS = 6  # of a number inside tags
MAX_FACTOR = 1_000  # texts are multiplied too


def require_modest(source: str) -> None:
    """OverflowError for numbers inside tags that can only make a text enormous; the source must be Jinja."""
    from jinja2 import Environment

    tokens = [(kind, text) for _, kind, text in Environment().lex(source) if kind != "whitespace"]
    for (kind, text), (_, before), (_, after) in zip(
        tokens, [("", ""), *tokens], [*tokens[1:], ("", "")], strict=False
    ):
        is_value = kind in ("integer", "float", "string")
        is_factor = kind == "integer" and "*" in (before, after) and int(text.replace("_", ""), 0) > MAX_FACTOR
        if text == "**" or is_factor or (is_value and re.search(rf"\d{{{MAX_DIGITS + 1}}}", text.replace("_", ""))):
            raise OverflowError(f"it may have no powers and no large numbers, got {text[:60]!r}")


@contextmanager
def limited_rendering(file: str, *, may_set: bool = True) -> Generator[None]:
    """Inside, templates compiled under this file name raise OverflowError where they go on without an end.

    Args:
        may_set: whether they set variables, which then are looked at in every step.
    """
    from jinja2.utils import Namespace

    num_steps = 0

    def each_line(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001
        nonlocal num_steps
        num_steps += 1
        if num_steps > MAX_STEPS:
            raise OverflowError(f"it takes more than {MAX_STEPS:,} steps")
        for value in frame.f_locals.values() if may_set else ():
            if isinstance(value, Namespace):
                value = max(map(str, object.__getattribute__(value, "_Namespace__attrs").values()), key=len, default="")
            if isinstance(value, str) and len(value) > MAX_CHARS:
                raise OverflowError(f"it makes a text of more than {MAX_CHARS:,} characters")
        return each_line

    def each_call(frame: FrameType, event: str, argument: Any) -> Any:  # noqa: ARG001
        return each_line if frame.f_code.co_filename == file else None

    before = cast(Any, sys.gettrace())
    sys.settrace(each_call)
    try:
        yield
    finally:
        sys.settrace(before)
