"""Settings as users name them: a configuration's values, their old names, and one clear error for what does not fit."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from recloop.errors import SettingError

Config = TypeVar("Config", bound=BaseModel)
FIRST = "shown_first"
MAX_NUMBER = 2**63
BOUND_WORDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
MIN_LIKENESS = 0.75  # a guess: two letters swapped in a word of six are still near

# Old names of settings. A name stands for whole parts of a dotted key, wherever they are in it.
RENAMED = {
    "headline": "primary_metric",
    "rows": "variants",
    "arms": "variants",
    "world": "simulated",
    "facets": "attributes",
    "facet_separator": "attribute_separator",
    "useful_facets": "useful_attributes",
    "data.simulated.num_train": "data.simulated_sessions.num_train",
    "data.simulated.num_test": "data.simulated_sessions.num_test",
    "data.simulated.num_candidates": "data.simulated_sessions.num_candidates",
    "data.simulated.max_items": "data.simulated_sessions.max_items",
    "data.log": "data",
    "data.sessions": "sessions",
    "table.stars": "table.rating",
    "stars_min": "rating_min",
    "stars_max": "rating_max",
    "positive_from_stars": "positive_from_rating",
    "split.feedback": "split.reward",
    "split.turn": "split.fold",
    "endpoint": "server",
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
    "grpo.answers": "grpo.num_generations",
    "grpo.clip": "grpo.epsilon",
    "grpo.updates": "grpo.num_iterations",
    "grpo.warmup": "grpo.warmup_steps",
    "lr": "learning_rate",
    "agent": "policy",
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
    "shipped": "base_model",
}


def setting(default: Any, description: str, **limits: Any) -> Any:
    """A field of a configuration; the limits are pydantic's, e.g. ``ge=1``."""
    return Field(default, description=description, **limits)


def shown_first(default: Any, description: str, **limits: Any) -> Any:
    """A `setting` that `--help` shows, and not `--help-all` alone."""
    return setting(default, description, json_schema_extra={FIRST: True}, **limits)


def shown_later(default: Any, description: str) -> Any:
    """A section none of whose settings `--help` shows."""
    return setting(default, description, json_schema_extra={FIRST: False})


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of a configuration, as a user names it.

    key: dotted, snake case, e.g. ``data.on_bad_rows``.
    about: what the outermost section that holds it is for; empty outside any section.
    section: the section it stands in as the configuration has it by default; None where it has none.
    is_later: a section around it is `shown_later`.
    """

    key: str
    info: FieldInfo
    about: str = ""
    section: BaseModel | None = None
    is_later: bool = False

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
        return not self.is_later and _first_of(self.info) is True

    @property
    def facts(self) -> str:
        """Type and default, as in ``int|none = none``."""
        return f"{'|'.join(_type_names(self.info.annotation))} = {self.default}"

    @property
    def bounds(self) -> str:
        """As in ``, at least 0, at most 1``; empty where there are none."""
        limits = (
            (words, getattr(limit, name, None)) for limit in self.info.metadata for name, words in BOUND_WORDS.items()
        )
        return "".join(f", {words} {limit}" for words, limit in limits if limit is not None)


def _first_of(info: FieldInfo) -> Any:
    """True of `shown_first`, False of `shown_later`, else None."""
    extra = info.json_schema_extra
    return extra.get(FIRST) if isinstance(extra, dict) else None


def settings_of(
    model: type[BaseModel],
    prefix: str = "",
    about: str = "",
    section: BaseModel | None = None,
    is_later: bool = False,
) -> Iterator[Setting]:
    """All values of a configuration, sections opened, in the order they are declared.

    Args:
        section: what the whole configuration has here by default, if it has something.
    """
    for name, info in model.model_fields.items():
        sections = [leaf for leaf in leaves(info.annotation) if isinstance(leaf, type) and issubclass(leaf, BaseModel)]
        default = info.default if section is None else getattr(section, name)
        if not sections:
            yield Setting(prefix + name, info, about, section, is_later)
        seen: set[str] = set()
        for kind in sections:
            inside = default if isinstance(default, kind) else None
            later = is_later or _first_of(info) is False
            for one in settings_of(kind, f"{prefix}{name}.", about or info.description or name, inside, later):
                if one.key not in seen:
                    seen.add(one.key)
                    yield one


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` on top, section by section.

    Example:
        >>> merged({"dpo": {"learning_rate": 1, "beta": 2}}, {"dpo": {"learning_rate": 3}})
        {'dpo': {'learning_rate': 3, 'beta': 2}}
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = merged(cast(dict[str, Any], old), cast(dict[str, Any], value)) if both else value
    return result


def validate(model: type[Config], tree: Mapping[str, Any]) -> Config:
    """The configuration these sections and values make; SettingError names every value that does not fit."""
    try:
        config = model.model_validate(tree)
    except ValidationError as error:
        lines = [_explain(fault, model) for fault in error.errors(include_url=False)]
        raise SettingError("the settings do not hold together:\n  " + "\n  ".join(lines)) from error
    except OverflowError as error:
        raise SettingError(f"a setting must be a number of 64 bits, got more ({error}); give another") from error
    for key, value in _numbers(config):
        if not -MAX_NUMBER < value < MAX_NUMBER:
            raise SettingError(
                f"{key} must be a finite number of 64 bits, got {value!r:.40}; give one, or leave it out"
            )
    return config


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a configuration, with their dotted keys."""
    if isinstance(value, BaseModel):
        for name, part in value:
            yield from _numbers(part, f"{key}.{name}" if key else name)
    elif isinstance(value, tuple | list):
        for part in cast(Sequence[object], value):
            yield from _numbers(part, key)
    elif isinstance(value, dict):
        for name, part in cast(dict[str, object], value).items():
            yield from _numbers(part, f"{key}.{name}")
    elif isinstance(value, int | float):
        yield key, value


def current_name(key: str) -> str:
    """A dotted key with every old name in it replaced; the key itself where it has none.

    Example:
        >>> current_name("data.world.useful_facets")
        'data.simulated.useful_attributes'
    """
    for old, new in RENAMED.items():
        key = re.sub(rf"(?<![^.]){re.escape(old)}(?![^.])", new, key)
    return key


def unknown_setting(key: str, model: type[BaseModel]) -> str:
    """Why there is no such setting: it has a new name, or another one is near."""
    known = [one.key for one in settings_of(model)]
    new = current_name(key)
    if new != key and any(f"{name}.".startswith(f"{new}.") for name in known):
        return f"an old name; write {new}"
    return f"no such setting in {model.__name__}{near_matches(key, known)}"


def near_matches(word: str, known: Sequence[str]) -> str:
    """``; did you mean X or Y?`` by the whole name or its last part; nothing when no known name is near."""

    def likeness(name: str) -> float:
        ends = (word.rsplit(".", 1)[-1], name.rsplit(".", 1)[-1])
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in ((word, name), ends))

    scored = sorted(((likeness(name), name) for name in known), key=lambda pair: -pair[0])
    near = [name for score, name in scored[:3] if score >= MIN_LIKENESS]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def leaves(annotation: Any) -> Iterator[Any]:
    """The members of a union of types, `Annotated` taken off."""
    if get_origin(annotation) is Annotated:
        yield from leaves(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from leaves(part)
    else:
        yield annotation


def _explain(fault: Any, model: type[BaseModel]) -> str:
    key, value = ".".join(str(part) for part in fault["loc"]), fault["input"]
    if fault["type"] == "extra_forbidden":
        return f"{key}: {unknown_setting(key, model)}"
    if fault["type"] == "model_type":
        return f"{key} is a section, got the value {value!r}; set one of its fields"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] != "missing" and not isinstance(value, dict | BaseModel):
        message += f", got {value!r}"
    if isinstance(value, str) and value in RENAMED_VALUES:
        message += f", an old name; write {RENAMED_VALUES[value]}"
    return f"{key}: {message}" if key else message


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in cast(Sequence[object], value)) or "empty"
    return "none" if value is None else str(value)


def _type_names(annotation: Any) -> Iterator[str]:
    for leaf in leaves(annotation):
        if leaf is type(None):
            yield "none"
        elif leaf_args := get_args(leaf):
            yield "|".join(str(a) for a in leaf_args) if str(leaf).startswith("typing.Literal") else "list"
        else:
            choices = getattr(leaf, "__members__", None)
            yield "|".join(str(c.value) for c in choices.values()) if choices else leaf.__name__
