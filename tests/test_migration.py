"""The page on migration names every old command, setting and value, and what it says replaces them is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import recloop
from page_sentences import MAX_WORDS
from recloop.cli import MOVED
from recloop.methods.registry import METHODS, method_named
from recloop.settings import RENAMED, RENAMED_VALUES, current_name, settings_of
from scripts.readability import sentences
from test_words import OLD

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
CODE = re.compile(r"`([^`]+)`")


def rows(heading: str) -> list[tuple[str, str]]:
    """The cells of the two-column tables below a heading of the page, before the next heading."""
    section = PAGE.split(f" {heading}\n", 1)[1].split("\n#", 1)[0]
    found = re.findall(r"^\| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    return [(old, new) for old, new in found if CODE.search(old)]


@cache
def names_in(module: str) -> frozenset[str] | None:
    """What a module of recloop defines at its top; None where there is no such module. Imports nothing."""
    path = ROOT / "src" / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return None
    return frozenset(getattr(one, "name", "") for one in ast.parse(file.read_text(encoding="utf-8")).body)


def is_there(name: str) -> bool:
    """Whether a dotted name is a public one of `rl`, a module, or something that a module defines."""
    if name.startswith("rl."):
        return name.removeprefix("rl.") in recloop.__all__
    module, _, last = name.rpartition(".")
    return names_in(name) is not None or last in (names_in(module) or ())


def test_the_tables_of_commands_settings_and_values_are_those_of_the_code() -> None:
    commands = {f"`recloop {old}`": f"`{new}`" for old, new in MOVED.items() if old != "bench"}
    assert dict(rows("Commands")) == commands
    renamed = {f"`{old}`": f"`{new}`" for old, new in (RENAMED | RENAMED_VALUES).items()}
    assert dict(rows("Settings")) == renamed


def test_settings_that_are_gone_are_in_no_method() -> None:
    section = PAGE.split("### Settings that are gone\n", 1)[1].split("\nThree kinds", 1)[0]
    gone = [current_name(key) for key in CODE.findall(section)]
    known = {one.key for name in METHODS for one in settings_of(method_named(name).config)}
    assert len(gone) > 30
    assert [key for key in gone if any(f"{one}.".startswith(f"{key}.") for one in known)] == []


def test_what_replaces_an_import_is_there_and_what_it_replaces_is_not() -> None:
    table = rows("Imports")
    old = [name for cell, _ in table for name in CODE.findall(cell)]
    new = [name for _, cell in table for name in CODE.findall(cell) if name.startswith(("rl.", "recloop."))]
    assert len(new) > 25
    assert [name for name in new if not is_there(name)] == []
    assert [name for name in old if is_there(name)] == []


def test_versions_are_told_newest_first_in_the_form_of_keep_a_changelog() -> None:
    heads = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    versions = [re.fullmatch(r"\[(Unreleased|\d+\.\d+\.\d+)\](?: - \d{4}-\d{2}-\d{2})?", head) for head in heads]
    assert all(versions)
    released = [match[1] for match in versions if match and match[1] != "Unreleased"]
    assert released == sorted(released, key=lambda one: tuple(map(int, one.split("."))), reverse=True)
    for part in re.split(r"^## ", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]


def test_the_newest_version_told_is_the_packages_and_the_citations() -> None:
    newest = re.findall(r"^## \[(\d.*?)\]", CHANGELOG, re.MULTILINE)[0]
    cited = re.findall(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    assert [newest] == cited == [recloop.__version__]


@pytest.mark.parametrize("page", [PAGE, CHANGELOG], ids=["migration", "changelog"])
def test_sentences_are_short(page: str) -> None:
    assert [one for one in sentences(page) if len(one.split()) > MAX_WORDS] == []


def test_the_changelog_uses_todays_words() -> None:
    assert OLD.findall(CHANGELOG) == []
