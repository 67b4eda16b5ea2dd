"""Every block of code of README and site is read by what reads it; `test_code_blocks_run.py` runs Python and commands.

A new block is found by itself. Its commands must be there and read their flags by their own parser; what cannot be run
here says so on the page, as in ``# needs a GPU``, in the block's first line or at the end of a command.
Scripts and notebooks, which are pages of the site too, run in `make examples` and `make notebooks`.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from code_blocks import (
    BLOCKS,
    FENCE,
    NEEDED,
    PAGES,
    ROOT,
    Block,
    commands_of,
    link_clone,
    page_of,
    parse,
    those_of,
    write_files,
)  # fmt: skip
from recloop import cli
from recloop.config import load_config
from recloop.methods.registry import METHODS, method_named
from recloop.settings import settings_of

LANGUAGES = ("bash", "python", "toml", "jinja", "json", "text")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    link_clone(tmp_path)


def test_every_fence_is_closed_and_names_its_language() -> None:
    for page, text in PAGES.items():
        fences = re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)
        own = [block for block in BLOCKS if block.page == page]
        assert len(fences) == 2 * len(own), f"{page}: a fence begins with ``` at the left edge, and ends with it alone"
        assert not re.search(r"\n\n(?: {4}|\t)\S", FENCE.sub("", text)), f"{page}: code is fenced, not indented"
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []
    assert len(BLOCKS) > 50


def test_marks_say_what_is_needed_in_words_that_are_known() -> None:
    marks = [block.needs for block in BLOCKS if block.needs]
    marks += [one.needs for block in BLOCKS if block.language == "bash" for one in commands_of(block) if one.needs]
    assert [mark for mark in marks if not mark.startswith(NEEDED)] == []
    assert {known for known in NEEDED if not any(mark.startswith(known) for mark in marks)} == set()


@pytest.mark.parametrize("blocks", those_of("toml"), ids=page_of)
def test_settings_are_those_of_a_run(blocks: list[Block], tmp_path: Path) -> None:
    for block in blocks:
        (tmp_path / "settings.toml").write_text(block.text, encoding="utf-8")
        method = re.match(r"# settings of (\w+)", block.text)
        config = load_config(method_named(method[1] if method else "dpo4rec").config, tmp_path / "settings.toml", [])
        assert config != load_config(type(config), None, []), block


@pytest.mark.parametrize("blocks", those_of("json"), ids=page_of)
def test_json_is_json(blocks: list[Block]) -> None:
    assert all(json.loads(block.text) for block in blocks)


def test_what_is_printed_is_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks of text: an error message, and the tree of the source."""
    printed = {block.page: block.text for block in BLOCKS if block.language == "text"}
    assert set(printed) == {"docs/migration.md", "CONTRIBUTING.md"}
    (tmp_path / "runs" / "old").mkdir(parents=True)
    for name, text in (("config", "{}"), ("manifest", '{"stages": {}}')):
        (tmp_path / "runs" / "old" / f"{name}.json").write_text(text)
    assert cli.main(["resume", "runs/old"]) != 0
    assert printed["docs/migration.md"].strip() in capsys.readouterr().err
    there = {file.name for file in (*(ROOT / "src").rglob("*"), *ROOT.iterdir())}
    named = re.findall(r"\w+\.py|\w+(?=/)", printed["CONTRIBUTING.md"])
    assert len(named) > 30
    assert set(named) <= there


@pytest.mark.parametrize("blocks", those_of("bash"), ids=page_of)
def test_commands_are_there_and_read_their_flags(blocks: list[Block], tmp_path: Path) -> None:
    write_files(blocks[0].page)
    unknown = []
    for command in (one for block in blocks for one in commands_of(block)):
        match command.words:
            case ("recloop", *_):
                parse(command.words)
            case ("make", *targets):
                makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
                assert all(re.search(rf"^{target}:.*## ", makefile, re.MULTILINE) for target in targets), command
            case ("pip", "install", "-r", file):
                assert (ROOT / file).is_file(), command
            case ("pip", "install", *_):
                extra = re.search(r"\[(.+)\]$", command.words[-1])
                assert extra, command
                assert extra[1] in EXTRAS, command
                assert command.needs.startswith("a network"), f"{command} wants the mark: # needs a network"
            case ("source", place):
                assert place == ".venv/bin/activate"
            case ("curl" | "tensorboard", *_):
                pass  # done below
            case _ if not command.needs:
                unknown.append(str(command))
            case _:
                pass
    assert unknown == [], "run these in a test, or mark them"


def test_flags_in_sentences_are_settings() -> None:
    """``--section.field`` in a line of prose, of any method."""
    known = {setting.flag for name in METHODS for setting in settings_of(method_named(name).config)}
    for page, text in PAGES.items():
        if page in ("docs/log.md", "docs/migration.md", "CHANGELOG.md"):  # they have old names too
            continue
        found = re.findall(r"`(--[a-z0-9-]+\.[a-z0-9.-]+)", text)
        assert [flag for flag in found if flag not in known | {"--section.field"}] == [], page
