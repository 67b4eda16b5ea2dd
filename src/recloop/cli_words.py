"""The words of a command line: sorted out, and turned into a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from recloop.errors import SettingError

if TYPE_CHECKING:
    from pydantic import BaseModel

    Config = TypeVar("Config", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Arguments:
    """A command's words, sorted out.

    names: positional words after the verb.
    flags: the verb's own flags that were given; a switch has the value ``""``.
    overrides: every other ``--key value``, in order; they are checked against a configuration.
    """

    names: tuple[str, ...]
    flags: dict[str, str]
    overrides: tuple[tuple[str, str], ...]


def parse(words: Sequence[str], *, flags: Sequence[str], switches: Sequence[str]) -> Arguments:
    """Sort the words after a verb.

    Args:
        flags: names that take a value.
        switches: names that take none.

    Raises:
        SettingError: a flag without its value, or given twice; a switch with one.
    """
    names: list[str] = []
    given: dict[str, str] = {}
    overrides: list[tuple[str, str]] = []
    todo = list(words)
    while todo:
        word = todo.pop(0)
        if not word.startswith("--"):
            names.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if name in switches:
            if equals:
                raise SettingError(
                    f"--{name} takes no value, got {value or 'an empty one'}; write --{name}, or leave it out"
                )
            given[name] = ""
            continue
        if not equals:
            if not todo or todo[0].startswith("--"):
                hint = "" if name in flags else near(name, [*flags, *switches])
                raise SettingError(f"--{name} needs a value, got none{hint}; write --{name} VALUE")
            value = todo.pop(0)
        if name not in flags:
            overrides.append((name, value))
        elif name in given:
            raise SettingError(f"--{name} is given twice ({given[name]}, {value}); keep one")
        else:
            given[name] = value
    return Arguments(tuple(names), given, tuple(overrides))


def settings_from(name: str, model: type[Config], arguments: Arguments) -> Config | None:
    """The configuration a command asks for; None when it asked for help, which is then printed."""
    from recloop.config import describe_fields, load_config

    if "help" in arguments.flags:
        print(f"Settings of {name}, on the command line or in a TOML file:\n\n{describe_fields(model)}")
        return None
    file = Path(arguments.flags["config"]) if "config" in arguments.flags else None
    return load_config(model, file, arguments.overrides)


def near(word: str, known: Sequence[str]) -> str:
    """What of the known words comes near this one, as an addition to a message; empty where none does."""
    found = difflib.get_close_matches(word, known, n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(found)}?)" if found else ""
