"""Settings: TOML files, flags and objects, for all three methods."""

from __future__ import annotations

import math
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fuzz.mutate import mutated_bytes, nested, odd_text, odd_value
from fuzz.target import Case, Kind, require
from recloop.cli import sorted_words
from recloop.config import load_config, override
from recloop.errors import SettingError
from recloop.methods.registry import METHODS, method_named
from recloop.prompts.template import ProfileFacts, open_template
from recloop.settings import Setting, settings_of, validate

VALUES = {"int": ("3", "0", "-1", "1e3"), "float": ("0.5", "1", "-1", "1e3"), "bool": ("true", "no", "1")}
TEMPLATE = "{% set system = 'Be brief.' %}{% for item in shown %}{{ item.line }}\n{% endfor %}{{ noun }} {{ factors }}"
LOOPS = (
    "{% for i in range(10**9) %}{% endfor %}x",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ 'x' * 10**11 }}", "{{ 10**10**10 }}",
    "{{ noun|center(10**11) }}",
    "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", "{{ ''.__class__.__mro__ }}",
    "{% include '/etc/passwd' %}",
    "{{ noun.format(noun) }}", "{{ '%99999999999d'|format(1) }}",
    "{% set ns = namespace(a='x') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}x",
    "(" * 500 + "{{ " + "(" * 500 + "1" + ")" * 500 + " }}", "{{ lipsum(n=10**7) }}",
)  # fmt: skip


def _make(work: Path) -> Case:  # noqa: ARG001
    models = [method_named(name).config for name in METHODS]
    known = {model: list(settings_of(model)) for model in models}
    trees = {model: model().model_dump(mode="json") for model in models}

    def case(rng: random.Random, folder: Path) -> Callable[[], None]:
        model = rng.choice(models)
        match rng.randrange(10):
            case 0 | 1 | 2:
                return _flags(model, known[model], rng)
            case 3 | 4 | 5:
                return _file(model, known[model], rng, folder)
            case 6 | 7:
                return _tree(model, trees[model], rng)
            case 8:
                return _template(rng, folder)
            case _:
                return _twice(model, known[model], rng, folder)

    return case


def _value(setting: Setting, rng: random.Random) -> str:
    if rng.random() < 0.4:
        return odd_text(rng)
    kinds = [kind for kind in VALUES if kind in setting.facts]
    return rng.choice(VALUES[rng.choice(kinds)]) if kinds else rng.choice((setting.default, "a,b", '["a"]', "x"))


def _flags(model: type[BaseModel], known: list[Setting], rng: random.Random) -> Callable[[], None]:
    words: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        setting = rng.choice(known)
        flag, value = setting.flag, _value(setting, rng)
        if rng.random() < 0.1:
            flag = "--" + odd_text(rng) if rng.random() < 0.5 else flag[:-1]
        words += rng.choice(([flag, value], [f"{flag}={value}"], [flag]))

    def read() -> None:
        _, overrides = sorted_words(words)
        check(model, load_config(model, None, overrides))
        if len(overrides) == 1 and overrides[0][1] is not None:
            require_said(load_config(model, None, overrides), overrides[0][0], overrides[0][1])

    return read


def require_said(config: BaseModel, flag: str, text: str) -> None:
    """`Wrong` unless a setting that is a number is the one that was typed."""
    value: Any = config
    for name in flag.replace("-", "_").split("."):
        value = getattr(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    require(type(value)(text) == value, f"--{flag} {text!r} is read as {value!r}")


def _file(model: type[BaseModel], known: list[Setting], rng: random.Random, folder: Path) -> Callable[[], None]:
    lines: list[str] = []
    for setting in rng.sample(known, rng.choice((1, 2, 5))):
        value = _value(setting, rng)
        lines.append(f"{setting.key} = {value}" if rng.random() < 0.6 else f"{setting.key} = {_quoted(value)}")
    raw = "\n".join(lines).encode("utf-8", "surrogatepass")
    kind = rng.random()
    if kind < 0.4:
        raw = mutated_bytes(raw, rng)
    elif kind < 0.42:
        raw = b"a = " + nested(rng.choice((200, 100_000)), *rng.choice((("[", "]"), ("{a=", "}")))).encode()
    elif kind < 0.44:
        raw = (".".join("a" * 50_000) + " = 1").encode()
    file = folder / "settings.toml"
    file.write_bytes(raw)
    return lambda: check(model, load_config(model, file, []))


def _quoted(text: str) -> str:
    return '"' + re.sub(r'["\\\x00-\x1f]', "", text) + '"'


def _tree(model: type[BaseModel], tree: Mapping[str, Any], rng: random.Random) -> Callable[[], None]:
    """A whole configuration, as a run folder keeps it, with one other value."""
    changed: Any = dict(tree)
    at = changed
    while True:
        key = rng.choice(list(at))
        if isinstance(at[key], dict) and at[key] and rng.random() < 0.85:
            at[key] = at = dict(at[key])
            continue
        at[key] = odd_value(rng)
        break
    if rng.random() < 0.3:
        return lambda: check(model, override(model, changed, [("seeds", "0")]))
    return lambda: check(model, validate(model, changed))


def _template(rng: random.Random, folder: Path) -> Callable[[], None]:
    file = folder / "prompt.jinja"
    raw = rng.choice(LOOPS).encode() if rng.random() < 0.3 else mutated_bytes(TEMPLATE.encode(), rng)
    file.write_bytes(raw)
    facts = ProfileFacts("films", ("genre",), (), (), None, factors="genre")
    return lambda: require(bool(open_template(file)(facts).user), "an empty prompt")


def _twice(model: type[BaseModel], known: list[Setting], rng: random.Random, folder: Path) -> Callable[[], None]:
    """Two spellings of one setting; only a refusal is right."""
    setting = rng.choice([one for one in known if "_" in one.key and one.default != "none"])
    file = folder / "settings.toml"
    other = setting.key.replace("_", "-")
    file.write_text(f"{setting.key} = {_toml(setting)}\n{other} = {_toml(setting)}\n")

    def read() -> None:
        try:
            load_config(model, file, [])
        except SettingError as error:
            require("twice" in str(error), f"the error does not say that the name stands twice: {error}")
            return
        require(False, f"{setting.key} and {other} in one file")

    return read


def _toml(setting: Setting) -> str:
    try:
        tomllib.loads(f"a = {setting.default}")
    except tomllib.TOMLDecodeError:
        return _quoted(setting.default)
    return setting.default


def check(model: type[BaseModel], config: BaseModel) -> None:
    """`Wrong` where a number is not finite, or the configuration that a run keeps is another one."""
    odd = [key for key, value in _numbers(config.model_dump(), "") if not math.isfinite(value)]
    require(not odd, f"{odd} are not finite")
    again = validate(model, config.model_dump(mode="json"))
    require(again == config, f"kept and read again it is another one: {again!r} for {config!r}")


def _numbers(tree: Any, key: str) -> Iterator[tuple[str, float]]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from _numbers(value, f"{key}.{name}")
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _numbers(value, key)
    elif isinstance(tree, float):
        yield key, tree


KIND = Kind("settings", 10_000, _make)
