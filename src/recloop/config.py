"""A method's configuration from a TOML file and dotted overrides; nothing unknown is let through."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from recloop.errors import SettingError
from recloop.settings import validate

Config = TypeVar("Config", bound=BaseModel)
BOUND_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
NEAR_MODEL = re.compile(r"(?P<kind>transformers|sentence):(?P<folder>\.{1,2}/.*)")  # seen from this folder
MIN_LIKENESS = 0.75  # a guess: two letters swapped in a word of six are still near


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a configuration, as a user names it.

    key: dotted, snake case, e.g. ``data.on_bad_rows``.
    section: the section it stands in as the configuration has it by default; None where it has none.
    """

    key: str
    info: FieldInfo
    section: BaseModel | None = None

    @property
    def default(self) -> str:
        """As a user would type it; ``required`` when there is none."""
        if self.section is not None:
            return _show(getattr(self.section, self.key.rsplit(".", 1)[-1]))
        return "required" if self.info.is_required() else _show(self.info.get_default())

    @property
    def flag(self) -> str:
        """As on the command line: ``--data.on-bad-rows``."""
        return "--" + self.key.replace("_", "-")


def load_config(model: type[Config], file: Path | None, overrides: Sequence[tuple[str, str]]) -> Config:
    """The configuration: the model's defaults, then the file, then the overrides in their order.

    Args:
        file: TOML with one table per section; None for none.
        overrides: (key, value) as typed, e.g. ``("data.on-bad-rows", "quarantine")``. A section with a
            field `name` may stand for it: ``("data", "ml-1m")``. Lists take commas or JSON; ``none`` is None.

    Raises:
        SettingError: no such file, not TOML, an unknown key (with near matches) or a value that does not
            fit (with what would).
    """
    tree = read_toml(file) if file is not None else {}
    fields = {field.key: field for field in fields_of(model)}
    _require_known(tree, model, fields, f"{file}: " if file is not None else "")
    for typed, text in overrides:
        key = _resolve(typed, model, fields)
        _put(tree, key.split("."), parse_value(text, fields[key].info.annotation))
    return _with_absolute_paths(validate(model, tree))


def override(model: type[Config], tree: Mapping[str, Any], overrides: Sequence[tuple[str, str]]) -> Config:
    """A configuration given as a tree of values, with typed overrides as for `load_config`."""
    fields = {field.key: field for field in fields_of(model)}
    changed = json.loads(json.dumps(dict(tree)))
    for typed, text in overrides:
        key = _resolve(typed, model, fields)
        _put(changed, key.split("."), parse_value(text, fields[key].info.annotation))
    return validate(model, changed)


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file with its keys in snake case; SettingError when it is absent or not TOML."""
    try:
        with file.open("rb") as handle:
            return _snake_case(tomllib.load(handle))
    except OSError as error:
        raise SettingError(
            f"the configuration file {file} cannot be read ({error.strerror}); check --config"
        ) from error
    except ValueError as error:
        raise SettingError(f"{file} is not TOML ({error}); correct that line") from error


def fields_of(model: type[BaseModel], prefix: str = "", section: BaseModel | None = None) -> Iterator[Field]:
    """All values of a configuration, sections opened, in the order they are declared.

    Args:
        section: what the whole configuration has here by default, if it has something.
    """
    for name, info in model.model_fields.items():
        sections = list(_sections_in(info.annotation))
        default = info.default if section is None else getattr(section, name)
        if not sections:
            yield Field(prefix + name, info, section)
        seen: set[str] = set()
        for kind in sections:
            inside = default if isinstance(default, kind) else None
            for field in fields_of(kind, f"{prefix}{name}.", inside):
                if field.key not in seen:
                    seen.add(field.key)
                    yield field


def parse_value(text: str, annotation: Any) -> Any:
    """What a typed value stands for; pydantic does the rest of the conversion."""
    if text.lower() == "none" and type(None) in _leaves(annotation):
        return None
    is_many = any(get_origin(leaf) in (list, tuple, set, frozenset) for leaf in _leaves(annotation))
    is_table = any(get_origin(leaf) in (dict, Mapping) for leaf in _leaves(annotation))
    if (is_many and text.startswith("[")) or (is_table and text.startswith("{")):
        try:
            return json.loads(text)
        except ValueError as error:
            raise SettingError(f"{text!r} is not JSON ({error}); quote it for the shell") from error
    if is_many:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def describe_fields(model: type[BaseModel]) -> str:
    """One paragraph per flag: its default, its bounds, what it does."""
    return "\n".join(_describe(field) for field in fields_of(model))


def near_matches(word: str, known: Sequence[str]) -> str:
    """``; did you mean X or Y?`` by the whole name or its last part; nothing when no known name is near."""

    def likeness(name: str) -> float:
        ends = (word.rsplit(".", 1)[-1].lstrip("-"), name.rsplit(".", 1)[-1].lstrip("-"))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in ((word, name), ends))

    scored = sorted(((likeness(name), name) for name in known), key=lambda pair: -pair[0])
    near = [name for score, name in scored[:3] if score >= MIN_LIKENESS]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _describe(field: Field) -> str:
    info = field.info
    bounds = [
        f"{words} {getattr(limit, bound)}"
        for limit in info.metadata
        for bound, words in BOUND_WORDS.items()
        if hasattr(limit, bound)
    ]
    facts = ", ".join((f"{_type_name(info.annotation)} = {field.default}", *bounds))
    return f"  {field.flag}  [{facts}]\n      {info.description or ''}".rstrip()


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in cast(Sequence[object], value)) or "empty"
    return "none" if value is None else str(value)


def _type_name(annotation: Any) -> str:
    names: list[str] = []
    for leaf in _leaves(annotation):
        if leaf is type(None):
            names.append("none")
        elif leaf_args := get_args(leaf):
            names.append("|".join(str(a) for a in leaf_args) if str(leaf).startswith("typing.Literal") else "list")
        else:
            choices = getattr(leaf, "__members__", None)
            names.append("|".join(str(c.value) for c in choices.values()) if choices else leaf.__name__)
    return "|".join(names)


def _leaves(annotation: Any) -> Iterator[Any]:
    """The members of a union, `Annotated` taken off."""
    if get_origin(annotation) is Annotated:
        yield from _leaves(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _leaves(part)
    else:
        yield annotation


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    for leaf in _leaves(annotation):
        if isinstance(leaf, type) and issubclass(leaf, BaseModel):
            yield leaf


def _resolve(typed: str, model: type[BaseModel], fields: Mapping[str, Field]) -> str:
    """The field a typed key names; SettingError with near matches when there is none."""
    key = typed.replace("-", "_")
    if key in fields:
        return key
    if f"{key}.name" in fields:
        return f"{key}.name"
    flags = [field.flag for field in fields.values()]
    inside = [flag for flag in flags if flag.startswith(f"--{typed}.")]
    if inside:
        raise SettingError(f"--{typed} is a section, not a value; set one of its fields: {', '.join(inside)}")
    raise SettingError(
        f"there is no setting --{typed} in {model.__name__}{near_matches('--' + typed, flags)} "
        f"(--help lists all settings)"
    )


def _require_known(
    tree: Mapping[str, Any], model: type[BaseModel], fields: Mapping[str, Field], where: str, prefix: str = ""
) -> None:
    for name, value in tree.items():
        key = prefix + name
        if key in fields:
            continue
        if any(known.startswith(f"{key}.") for known in fields):
            if not isinstance(value, dict):
                raise SettingError(f"{where}{key} is a section, got the value {value!r}; write a table [{key}]")
            _require_known(cast(dict[str, Any], value), model, fields, where, f"{key}.")
        else:
            raise SettingError(f"{where}unknown key {key} in {model.__name__}{near_matches(key, list(fields))}")


def _put(tree: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def _snake_case(value: Any) -> Any:
    if isinstance(value, dict):
        table = cast(dict[str, Any], value)
        return {key.replace("-", "_"): _snake_case(inner) for key, inner in table.items()}
    return value


def _with_absolute_paths(config: Config) -> Config:
    """The same with every given path and model folder made absolute: a run can be resumed from any folder.

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
            return value.expanduser().absolute()
        case BaseModel():
            return _with_absolute_paths(value)
        case tuple():
            return tuple(map(_absolute, cast(tuple[object, ...], value)))
        case str() if (found := NEAR_MODEL.fullmatch(value)) and Path(found["folder"]).is_dir():
            return f"{found['kind']}:{Path(found['folder']).absolute()}"
        case _:
            return value
