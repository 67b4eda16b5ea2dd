"""The code of the pages: every fenced block, the commands in it, and what each says it needs."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from recloop import cli
from recloop.config import load_config
from recloop.methods.registry import METHODS, method_named
from scripts import site_pages

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# The mark of a block (its first line) or of a command (the end of its line) that wants more than this machine.
NEEDS = re.compile(r"# needs (?P<what>[^#\n]+)")
COMMENT = re.compile(r"(?:^|\s)# .*")
NEEDED = (
    "a GPU",
    "a network",
    "a server",
    "MovieLens-1M",
    "Docker",
    "llama.cpp",
    "the run above",
    "Ray",
    "several machines",
)
FILE = re.compile(r"`?\b(?P<name>[\w-]+\.(?:toml|jinja|json))\b`?")
WITH_SETTINGS = ("run", "prompts", "encoders", *cli.STEPS)


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its fence, from 1; before: what the page says above it; needs: of the whole block."""

    page: str
    line: int
    language: str
    text: str
    before: str

    @property
    def needs(self) -> str:
        found = NEEDS.match(self.text)
        return found["what"].strip() if found else ""

    @property
    def file(self) -> str:
        """How the page calls it, in its first line or in the paragraph before it; empty for no name."""
        paragraph = self.before.rstrip().rpartition("\n\n")[2]
        found = FILE.search(self.text.partition("\n")[0]) or FILE.search(paragraph)
        return found["name"] if found else ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A line of a bash block, continued lines joined. needs: what it says, or its block."""

    words: tuple[str, ...]
    needs: str

    def __str__(self) -> str:
        return " ".join(self.words)


def pages() -> dict[str, str]:
    """README, and every page of the site that is written by hand, by its file in the repository."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    files += [ROOT / name.removeprefix("repository/") for name in sorted(site_pages.repository_pages())]
    written = [file for file in files if file.is_file() and file.suffix == ".md"]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in written}


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found["language"], found["text"], text[: found.start()])
        for found in FENCE.finditer(text)
    ]


def commands_of(block: Block) -> list[Command]:
    """The commands of a bash block."""
    commands: list[Command] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(COMMENT.sub("", line))
        if words:
            found = NEEDS.search(line)
            commands.append(Command(tuple(words), found["what"].strip() if found else block.needs))
    return commands


def parse(words: tuple[str, ...]) -> None:
    """Read a command line as `recloop` does, with its settings, and do nothing; an error when it does not fit."""
    verb = words[1]
    _, bound, _ = cli.app.parse_args(list(words[1:]), exit_on_error=False, print_error=False)
    if verb not in WITH_SETTINGS:
        return
    names, overrides = cli.sorted_words(bound.args)
    given = bound.arguments.get("options")
    file = given.config if given else bound.arguments.get("config")
    method = method_named(names[0] if names and names[0] in METHODS else "dpo4rec")
    load_config(method.config, file, overrides)


def smaller(command: Command, settings: dict[str, str]) -> Command:
    """The command with these settings, but for those that it has."""
    added = [word for key, value in settings.items() if f"--{key}" not in command.words for word in (f"--{key}", value)]
    return replace(command, words=(*command.words, *added))


def link_clone(folder: Path) -> None:
    """What commands on pages name of a clone, in a folder."""
    for name in ("configs", "studies", "requirements"):
        (folder / name).symlink_to(ROOT / name)


def write_files(page: str) -> None:
    """The files that a page shows, by their names, into this folder; without one, `mine.toml` is the README's."""
    for shown in ("README.md", page):
        for block in BLOCKS:
            if block.page == shown and block.language in ("toml", "jinja", "json") and block.file:
                Path(block.file).write_text(block.text, encoding="utf-8")


def those_of(language: str) -> list[list[Block]]:
    """The blocks of a language, by page."""
    found = [[block for block in BLOCKS if block.page == page and block.language == language] for page in PAGES]
    return [blocks for blocks in found if blocks]


def page_of(blocks: list[Block]) -> str:
    """What a test of a page's blocks is called."""
    return blocks[0].page


PAGES = pages()
BLOCKS = [block for page, text in PAGES.items() for block in blocks_of(page, text)]
