"""Prompt templates: the built-in ones, Jinja files and objects of your own.

A template turns what is known about one user (`ProfileFacts`) into the texts of the system and the user turn. A
``.jinja`` file is rendered in Jinja's sandbox, and a name that it does not know is an error. What it writes is the
user turn; ``{% set system = "..." %}`` replaces the system turn. The built-in ones are such files.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from recloop.errors import ContractError, SettingError
from recloop.files import read_utf8
from recloop.llm.template_limits import limited_rendering, require_modest

SYSTEM = "You summarise a user's preferences, step by step."
BUILT_IN = ("counted", "attributed", "short", "plain", "dpo4rec")
FOLDER = Path(__file__).parent / "templates"
MAX_CHARS = 200_000  # far beyond any prompt: a template that writes more has an endless loop


@dataclass(frozen=True, slots=True)
class ShownItem:
    """One item of a history, cleaned so that it stays within its line."""

    title: str
    rating: float | None  # None when the log is implicit
    attributes: Mapping[str, tuple[str, ...]]  # the values of each, perhaps none
    line: str  # as the built-in templates write the item, e.g. ``5 stars | "Title" | genre Drama, War``


@dataclass(frozen=True, slots=True)
class ProfileFacts:
    """What is known about one user: the variables of a template, by these names.

    noun: what the items are, plural, e.g. ``films``.
    attributes: names of the items' attributes, in order, e.g. ``("era", "genre", "director")``.
    history: all items of the knowledge window, oldest first.
    shown: the latest of them, as many as fit the token budget; write these, not `history`.
    mean_rating: over `history`; None when the log is implicit.
    counts: lines on what the whole history repeats (`count_lines`); empty where the budget is too small for them.
    profile: what the log says of the user, e.g. ``{"age": "25-34"}``; empty unless ``include_profile``.
    factors: what KAR's prompt asks to consider for such items, e.g. ``genre, director and actors, ...``.
    """

    noun: str
    attributes: tuple[str, ...]
    history: tuple[ShownItem, ...]
    shown: tuple[ShownItem, ...]
    mean_rating: float | None
    counts: tuple[str, ...] = ()
    profile: Mapping[str, str] = field(default_factory=dict[str, str])
    factors: str = ""


@dataclass(frozen=True, slots=True)
class PromptText:
    """What a template writes."""

    system: str
    user: str


class PromptTemplate(Protocol):
    """Writes the prompt about one user. It must write the same for the same facts."""

    def __call__(self, facts: ProfileFacts) -> PromptText: ...


def open_template(template: str | Path | PromptTemplate) -> PromptTemplate:
    """The template of this name, of this ``.jinja`` file, or the object itself.

    Raises:
        SettingError: no such template or file, or the file is not a Jinja template.
        ContractError: an object that cannot be called.

    Example:
        >>> write = open_template("plain")
        >>> write(ProfileFacts("films", (), (), (), None, factors="genre")).user.splitlines()[0]
        "Given a user's films history over time, oldest first: nothing yet."
    """
    if isinstance(template, str | Path):
        file = _file_of(template)
        try:
            return _read(file, read_utf8(file))
        except (OSError, ValueError) as error:
            raise SettingError(f"a prompt template must be a text file, got {file} with: {error}") from error
    if not callable(template):
        kind = type(template).__name__
        raise ContractError(f"a prompt template must be a name, a file or a function of ProfileFacts, got {kind}")
    return template


def template_digest(template: str | Path) -> dict[str, str]:
    """SHA-256 of a template file of the user's, an input of the step that writes prompts; empty for a built-in."""
    if str(template) in BUILT_IN:
        return {}
    return {"template": hashlib.sha256(_file_of(template).read_bytes()).hexdigest()}


def known_template(template: str | Path) -> str | Path:
    """The template; SettingError unless it is the name of a built-in one or of a ``.jinja`` file."""
    if str(template) not in BUILT_IN and Path(template).suffix != ".jinja":
        raise SettingError(f"a prompt template must be {', '.join(BUILT_IN)} or a .jinja file, got {str(template)!r}")
    return template


def _file_of(template: str | Path) -> Path:
    if str(template) in BUILT_IN:
        return FOLDER / f"{template}.jinja"
    file = Path(known_template(template))
    if not file.is_file():
        raise SettingError(f"the prompt template {file} is not there; check the path")
    return file


@lru_cache(maxsize=8)
def _read(file: Path, text: str) -> PromptTemplate:
    """A function that renders the text of a template file."""
    from jinja2 import Environment, StrictUndefined, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    is_ours = file.parent == FOLDER  # the sandbox takes most of the time of a prompt
    kind = Environment if is_ours else ImmutableSandboxedEnvironment
    environment = kind(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    try:
        require_modest(text)
        code = environment.compile(text, filename=str(file))
    except TemplateSyntaxError as error:
        raise SettingError(f"{file}, line {error.lineno}: {error.message}; correct the template") from error
    except (ArithmeticError, RecursionError, SyntaxError, ValueError) as error:  # of Jinja, or of the code it makes
        raise SettingError(f"{file} is no template: {error}; correct it") from error
    template = environment.template_class.from_code(environment, code, environment.globals)

    names = [variable.name for variable in fields(ProfileFacts)]

    def write(facts: ProfileFacts) -> PromptText:
        context = template.new_context({name: getattr(facts, name) for name in names})
        parts: list[str] = []
        num_chars = 0
        try:
            with nullcontext() if is_ours else limited_rendering(str(file), may_set="set" in text):
                for part in template.root_render_func(context):
                    num_chars += len(part)
                    if num_chars > MAX_CHARS:
                        raise OverflowError(f"it writes more than {MAX_CHARS:,} characters")
                    parts.append(part)
        except Exception as error:  # whatever a template can raise
            frames = [f for f in traceback.walk_tb(error.__traceback__) if f[0].f_code.co_filename == str(file)]
            line = f", line {template.get_corresponding_lineno(frames[-1][1])}" if frames else ""
            raise SettingError(f"{file}{line}: {error}; correct the template") from error
        user = "".join(parts).strip()
        if not user:
            raise SettingError(f"{file} writes an empty prompt; correct the template")
        return PromptText(str(context.vars.get("system", SYSTEM)), user)

    return write
