"""A configuration from a TOML file and the command line, and the help on its settings."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, cast, get_origin

from pydantic import BaseModel

from recloop.errors import SettingError
from recloop.files import home_expanded, read_utf8
from recloop.settings import (
    Config,
    Setting,
    current_name,
    leaves,
    merged,
    near_matches,
    settings_of,
    unknown_setting,
    validate,
)

Override = tuple[str, str | None]
"""(key, value) as typed, e.g. ``("data.on-bad-rows", "quarantine")``; value None: the flag stood alone."""
COMMAND_FLAGS = ("config", "out", "reuse_from", "dry_run", "quick", "help_all")  # of `recloop run`: no settings
LOCAL_MODEL = re.compile(r"(?P<kind>transformers|sentence):(?P<folder>\.{1,2}/.*)")  # relative to this folder
MAX_CHARS, MAX_DOTS = 1_000_000, 1_000  # of a TOML file, and of one of its keys: reading takes the square of these
WIDTH, HEAD_WIDTH = 116, 44  # of the lines of `--help`, and of the flags in them


def load_config(model: type[Config], files: Path | Sequence[Path] | None, overrides: Sequence[Override]) -> Config:
    """The configuration: the model's defaults, then the files, then the overrides, each in their order.

    Paths become absolute, so that a run can be resumed from any folder.

    Args:
        files: TOML with one table per section; what a later file sets wins. None for none.
        overrides: as typed. A section with a field `name` may stand for it: ``("data", "ml-1m")``. Lists take
            commas or JSON; ``none`` is None.

    Raises:
        SettingError: no such file, not TOML, an unknown key (with near matches) or a value that does not
            fit (with what would).
    """
    tree: dict[str, Any] = {}
    for file in (files,) if isinstance(files, Path) else files or ():
        tree = merged(tree, read_toml(file))
    return _with_absolute_paths(override(model, tree, overrides))


def override(model: type[Config], tree: Mapping[str, Any], overrides: Sequence[Override]) -> Config:
    """A configuration given as a tree of values, with typed overrides as for `load_config`."""
    settings = {setting.key: setting for setting in settings_of(model)}
    changed = _copied(tree)
    spelled: dict[str, str] = {}
    for typed, text in overrides:
        key = _resolve(typed, model, settings)
        if typed != spelled.setdefault(key, typed):
            raise SettingError(f"--{spelled[key]} and --{typed} are one setting twice; give it once")
        annotation = settings[key].info.annotation
        if text is None and bool not in leaves(annotation):
            raise SettingError(f"--{typed} needs a value, got none; write --{typed} VALUE")
        *sections, name = key.split(".")
        inner: Any = changed
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise SettingError(f"{section} is a section, got the value {inner!r}; set one of its fields")
        inner[name] = True if text is None else parse_value(text, annotation)
    return validate(model, changed)


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file with its keys in snake case; SettingError when it is absent or not TOML."""
    try:
        text = read_utf8(file)
        if len(text) > MAX_CHARS or any(part.count(".") > MAX_DOTS for part in re.split(r"[=\n]", text)):
            raise SettingError(
                f"{file} is far larger than settings are, or its keys have too many parts; check --config"
            )
        return _copied(tomllib.loads(text))
    except OSError as error:
        raise SettingError(f"{file} cannot be read as a configuration ({error.strerror}); check --config") from error
    except SettingError:
        raise
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{file} cannot be read as TOML: {error}; correct it") from error


def parse_value(text: str, annotation: Any) -> Any:
    """What a typed value stands for; pydantic does the rest of the conversion."""
    types = list(leaves(annotation))
    if text.lower() == "none" and type(None) in types:
        return None
    is_many = any(get_origin(leaf) in (list, tuple, set, frozenset) for leaf in types)
    is_table = any(get_origin(leaf) in (dict, Mapping) for leaf in types)
    if (is_many and text.startswith("[")) or (is_table and text.startswith("{")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SettingError(f"{text[:80]!r} is not JSON ({error}); quote it for the shell") from error
    if is_many:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def describe_settings(model: type[BaseModel], name: str, *, every: bool) -> str:
    """The settings by section: a line for each that matters first, or a paragraph for each of all.

    Args:
        name: whose settings they are, e.g. ``dpo4rec``.
        every: all settings; also where none is marked as shown first.
    """
    known = list(settings_of(model))
    shown = [setting for setting in known if setting.is_shown_first]
    every = every or not shown
    which = f"All {len(known)}" if every else f"The {len(shown)} most used of {len(known)} (--help-all shows all)"
    lines = [f"{which} settings of {name}, for the command line or a TOML file:"]
    for section, settings in groupby(known if every else shown, key=_section):
        inside = list(settings)
        lines += ["", f"{section}: {inside[0].about}"] if section else [""]
        lines += [_paragraph(setting) if every else _line(setting) for setting in inside]
    return "\n".join(lines)


def _section(setting: Setting) -> str:
    return setting.key.partition(".")[0] if "." in setting.key else ""


def _paragraph(setting: Setting) -> str:
    return f"  {setting.flag}  [{setting.facts}{setting.bounds}]\n      {setting.info.description or ''}".rstrip()


def _line(setting: Setting) -> str:
    head = f"  {setting.flag} [{setting.facts}]".ljust(HEAD_WIDTH)
    if len(head) > WIDTH - 30:  # a long choice: what it is about stands below it
        head = f"{head}\n{'':{HEAD_WIDTH}}"
    room = WIDTH - len(head.rpartition("\n")[2])
    return f"{head}  {textwrap.shorten(setting.info.description or '', room, placeholder=' ...')}"


def _resolve(typed: str, model: type[BaseModel], settings: Mapping[str, Setting]) -> str:
    """The key that a typed one names; SettingError with its new name, or with near matches, when there is none."""
    key = typed.replace("-", "_")
    if key in settings:
        return key
    if f"{key}.name" in settings:
        return f"{key}.name"
    inside = [setting.flag for setting in settings.values() if setting.key.startswith(f"{key}.")]
    if inside:
        raise SettingError(f"--{typed} is a section, not a value; set one of its fields: {', '.join(inside)}")
    if current_name(key) in COMMAND_FLAGS:
        why = f"an old name; write {current_name(key)}"
    elif near := near_matches(key, COMMAND_FLAGS):
        why = f"no such option{near}"
    else:
        why = unknown_setting(key, model)
    raise SettingError(f"--{typed}: {why.replace('_', '-')} (--help-all lists all settings)")


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same tables with keys in snake case; a change to them leaves the given ones alone."""
    copied: dict[str, Any] = {}
    for typed, value in tree.items():
        key = typed.replace("-", "_")
        if key in copied:
            raise SettingError(f"{key} and {key.replace('_', '-')} are one setting twice; give it once")
        copied[key] = _copied(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else value
    return copied


def _with_absolute_paths(config: Config) -> Config:
    """The same with every given path and model folder made absolute.

    A default stays as it is, for validators compare with it.
    """
    changes: dict[str, Any] = {}
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if value != info.default or isinstance(value, BaseModel):
            changes[name] = _absolute(value)
    return config.model_copy(update=changes)


def _absolute(value: Any) -> Any:
    match value:
        case Path():
            return home_expanded(value).absolute()
        case BaseModel():
            return _with_absolute_paths(value)
        case tuple():
            return tuple(map(_absolute, cast(tuple[object, ...], value)))
        case str() if (found := LOCAL_MODEL.fullmatch(value)) and Path(found["folder"]).is_dir():
            return f"{found['kind']}:{Path(found['folder']).absolute()}"
        case _:
            return value
