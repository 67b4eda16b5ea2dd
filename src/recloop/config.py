"""A method's configuration from a TOML file and dotted overrides; nothing unknown is let through."""

from __future__ import annotations

import difflib
import json
import re
import textwrap
import tomllib
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from recloop.errors import SettingError

Config = TypeVar("Config", bound=BaseModel)
Override = tuple[str, str | None]
"""(key, value) as typed, e.g. ``("data.on-bad-rows", "quarantine")``; value None: the flag stood alone."""
FIRST = "shown_first"  # Field(json_schema_extra={"shown_first": True}): `--help` shows it, not only `--help-all`
COMMAND_FLAGS = ("config", "out", "reuse_from", "dry_run", "quick", "help_all")
BOUND_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
LOCAL_MODEL = re.compile(r"(?P<kind>transformers|sentence):(?P<folder>\.{1,2}/.*)")  # relative to this folder
MIN_LIKENESS = 0.75  # a guess: two letters swapped in a word of six are still near
WIDTH, HEAD_WIDTH = 116, 44  # of the lines of `--help`, and of the flags in them

# Old names of settings. A name stands for whole parts of a dotted key, wherever they are in it.
RENAMED = {
    "headline": "primary_metric",
    "rows": "variants",
    "arms": "variants",
    "world": "simulated",
    "facets": "attributes",
    "facet_separator": "attribute_separator",
    "values_per_facet": "values_per_attribute",
    "liked_per_facet": "liked_per_attribute",
    "useful_facets": "useful_attributes",
    "table.stars": "table.rating",
    "stars_min": "rating_min",
    "stars_max": "rating_max",
    "positive_from_stars": "positive_from_rating",
    "split.feedback": "split.reward",
    "split.turn": "split.fold",
    "tuned_name": "trained_name",
    "drafts_per_request": "completions_per_request",
    "drafts.feedback": "completions.reward",
    "drafts": "completions",
    "reward.judges": "reward.num_models",
    "reward.shared": "reward.cross_fit",
    "batch": "batch_size",
    "accumulation": "gradient_accumulation_steps",
    "checkpoint_steps": "save_steps",
    "dpo.likelihood": "dpo.sft_weight",
    "grpo.kl": "grpo.beta",
    "agent": "policy",
    "rivals": "baselines",
    "num_rivals": "num_baselines",
    "measure.metrics": "metrics.names",
    "measure": "metrics",
    "take_from": "reuse_from",
}
RENAMED_VALUES = {
    "worlds": "simulated",
    "embedded": "bundled",
    "embedded:answers": "bundled:answers",
    "tuned": "trained",
    "stars": "rating",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of a configuration, as a user names it.

    key: dotted, snake case, e.g. ``data.on_bad_rows``.
    about: what the outermost section that holds it is for; empty outside any section.
    section: the section it stands in as the configuration has it by default; None where it has none.
    """

    key: str
    info: FieldInfo
    about: str = ""
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

    @property
    def is_shown_first(self) -> bool:
        """Whether `--help` shows it; `--help-all` shows all settings."""
        extra = self.info.json_schema_extra
        return isinstance(extra, dict) and bool(extra.get(FIRST))

    @property
    def facts(self) -> str:
        """Type, default and bounds."""
        limits = (
            (words, getattr(limit, bound, None)) for limit in self.info.metadata for bound, words in BOUND_WORDS.items()
        )
        bounds = [f"{words} {limit}" for words, limit in limits if limit is not None]
        return ", ".join((f"{_type_name(self.info.annotation)} = {self.default}", *bounds))


def load_config(model: type[Config], file: Path | None, overrides: Sequence[Override]) -> Config:
    """The configuration: the model's defaults, then the file, then the overrides in their order.

    Args:
        file: TOML with one table per section; None for none.
        overrides: as typed. A section with a field `name` may stand for it: ``("data", "ml-1m")``. Lists take
            commas or JSON; ``none`` is None.

    Raises:
        SettingError: no such file, not TOML, an unknown key (with near matches) or a value that does not
            fit (with what would).
    """
    tree = read_toml(file) if file is not None else {}
    _require_known(tree, model, {setting.key for setting in settings_of(model)}, f"{file}: " if file else "")
    return _with_absolute_paths(override(model, tree, overrides))


def override(model: type[Config], tree: Mapping[str, Any], overrides: Sequence[Override]) -> Config:
    """A configuration given as a tree of values, with typed overrides as for `load_config`."""
    settings = {setting.key: setting for setting in settings_of(model)}
    changed = _copied(tree)
    for typed, text in overrides:
        key = _resolve(typed, model, settings)
        annotation = settings[key].info.annotation
        if text is None and bool not in _leaves(annotation):
            raise SettingError(f"--{typed} needs a value, got none; write --{typed} VALUE")
        *sections, name = key.split(".")
        inner = changed
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = True if text is None else parse_value(text, annotation)
    return validate(model, changed)


def validate(model: type[Config], tree: Mapping[str, Any]) -> Config:
    """The configuration these sections and values make; SettingError names every value that does not fit."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise SettingError(_explain(error)) from error


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file with its keys in snake case; SettingError when it is absent or not TOML."""
    try:
        with file.open("rb") as handle:
            return _copied(tomllib.load(handle))
    except OSError as error:
        raise SettingError(
            f"the configuration file {file} cannot be read ({error.strerror}); check --config"
        ) from error
    except ValueError as error:
        raise SettingError(f"{file} is not TOML ({error}); correct that line") from error


def current_name(key: str) -> str:
    """A dotted key with every old name in it replaced; the key itself where it has none.

    Example:
        >>> current_name("data.world.useful_facets")
        'data.simulated.useful_attributes'
    """
    for old, new in RENAMED.items():
        key = re.sub(rf"(?<![^.]){re.escape(old)}(?![^.])", new, key)
    return key


def settings_of(
    model: type[BaseModel], prefix: str = "", about: str = "", section: BaseModel | None = None
) -> Iterator[Setting]:
    """All values of a configuration, sections opened, in the order they are declared.

    Args:
        section: what the whole configuration has here by default, if it has something.
    """
    for name, info in model.model_fields.items():
        sections = [leaf for leaf in _leaves(info.annotation) if isinstance(leaf, type) and issubclass(leaf, BaseModel)]
        default = info.default if section is None else getattr(section, name)
        if not sections:
            yield Setting(prefix + name, info, about, section)
        seen: set[str] = set()
        for kind in sections:
            inside = default if isinstance(default, kind) else None
            for setting in settings_of(kind, f"{prefix}{name}.", about or info.description or name, inside):
                if setting.key not in seen:
                    seen.add(setting.key)
                    yield setting


def parse_value(text: str, annotation: Any) -> Any:
    """What a typed value stands for; pydantic does the rest of the conversion."""
    leaves = list(_leaves(annotation))
    if text.lower() == "none" and type(None) in leaves:
        return None
    is_many = any(get_origin(leaf) in (list, tuple, set, frozenset) for leaf in leaves)
    is_table = any(get_origin(leaf) in (dict, Mapping) for leaf in leaves)
    if (is_many and text.startswith("[")) or (is_table and text.startswith("{")):
        try:
            return json.loads(text)
        except ValueError as error:
            raise SettingError(f"{text!r} is not JSON ({error}); quote it for the shell") from error
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
    which = f"All {len(known)}" if every else f"The {len(shown)} most used of {len(known)} (--help-all has all)"
    lines = [f"{which} settings of {name}, for the command line or a TOML file:"]
    for section, settings in groupby(
        known if every else shown, key=lambda setting: setting.key.rpartition(".")[0].split(".")[0]
    ):
        inside = list(settings)
        lines += ["", f"{section}: {inside[0].about}"] if section else [""]
        lines += [_paragraph(setting) if every else _line(setting) for setting in inside]
    return "\n".join(lines)


def near_matches(word: str, known: Sequence[str]) -> str:
    """``; did you mean X or Y?`` by the whole name or its last part; nothing when no known name is near."""

    def likeness(name: str) -> float:
        ends = (word.rsplit(".", 1)[-1].lstrip("-"), name.rsplit(".", 1)[-1].lstrip("-"))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in ((word, name), ends))

    scored = sorted(((likeness(name), name) for name in known), key=lambda pair: -pair[0])
    near = [name for score, name in scored[:3] if score >= MIN_LIKENESS]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _paragraph(setting: Setting) -> str:
    return f"  {setting.flag}  [{setting.facts}]\n      {setting.info.description or ''}".rstrip()


def _line(setting: Setting) -> str:
    head = f"  {setting.flag} [{_type_name(setting.info.annotation)} = {setting.default}]".ljust(HEAD_WIDTH)
    about = textwrap.shorten(setting.info.description or "", max(30, WIDTH - len(head)), placeholder=" ...")
    return f"{head}  {about}"


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


def _is_known(key: str, known: Sequence[str] | Mapping[str, Any] | set[str]) -> bool:
    return key in known or key in COMMAND_FLAGS or any(name.startswith(f"{key}.") for name in known)


def _resolve(typed: str, model: type[BaseModel], settings: Mapping[str, Setting]) -> str:
    """The key that a typed one names; SettingError with its new name, or with near matches, when there is none."""
    key = typed.replace("-", "_")
    if key in settings:
        return key
    if f"{key}.name" in settings:
        return f"{key}.name"
    flags = [setting.flag for setting in settings.values()]
    inside = [flag for flag in flags if flag.startswith(f"--{typed}.")]
    if inside:
        raise SettingError(f"--{typed} is a section, not a value; set one of its fields: {', '.join(inside)}")
    new = current_name(key)
    if new != key and _is_known(new, settings):
        raise SettingError(f"--{typed} is an old name, got it; write --{new.replace('_', '-')}")
    flags += ["--" + flag.replace("_", "-") for flag in COMMAND_FLAGS]
    raise SettingError(
        f"there is no setting --{typed} in {model.__name__}{near_matches('--' + typed, flags)} "
        f"(--help-all lists all settings)"
    )


def _require_known(
    tree: Mapping[str, Any], model: type[BaseModel], known: set[str], where: str, prefix: str = ""
) -> None:
    for name, value in tree.items():
        key = prefix + name
        if key in known:
            continue
        if any(other.startswith(f"{key}.") for other in known):
            if not isinstance(value, dict):
                raise SettingError(f"{where}{key} is a section, got the value {value!r}; write a table [{key}]")
            _require_known(cast(dict[str, Any], value), model, known, where, f"{key}.")
            continue
        new = current_name(key)
        if new != key and _is_known(new, known):
            raise SettingError(f"{where}{key} is an old name, got it; write {new}")
        raise SettingError(f"{where}unknown key {key} in {model.__name__}{near_matches(key, list(known))}")


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The same tables with keys in snake case; a change to them leaves the given ones alone."""
    return {
        key.replace("-", "_"): _copied(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else value
        for key, value in tree.items()
    }


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for fault in error.errors(include_url=False):
        key, value = ".".join(str(part) for part in fault["loc"]), fault["input"]
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] != "missing" and not isinstance(value, dict | BaseModel):
            message += f", got {value!r}"
        if isinstance(value, str) and value in RENAMED_VALUES:
            message += f", an old name; write {RENAMED_VALUES[value]}"
        lines.append(f"{key}: {message}" if key else message)
    return "the configuration does not hold together:\n  " + "\n  ".join(lines)


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
        case str() if (found := LOCAL_MODEL.fullmatch(value)) and Path(found["folder"]).is_dir():
            return f"{found['kind']}:{Path(found['folder']).absolute()}"
        case _:
            return value
