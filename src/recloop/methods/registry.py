"""The methods by their names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from recloop.errors import SettingError
from recloop.methods.method import Method

METHODS: Mapping[str, str] = {
    "dpo4rec": "recloop.methods.dpo4rec",
    "rerec": "recloop.methods.rerec",
    "re2llm": "recloop.methods.re2llm",
}
"""Name -> the module whose METHOD it is."""


def method_named(name: str) -> Method:
    """The method of this name; SettingError, with the names there are, when there is none."""
    if name not in METHODS:
        raise SettingError(f"there is no method {name}; the methods are {', '.join(METHODS)}")
    return import_module(METHODS[name]).METHOD
