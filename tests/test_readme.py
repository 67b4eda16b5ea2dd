"""The README is short, its links lead somewhere, its commands exist, and its numbers stand in the results."""

import re
from pathlib import Path

import pytest

from page_sentences import MAX_WORDS
from recloop import cli
from scripts.readability import FENCE, LINK, sentences

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
MAX_LINES = 150


def test_it_is_short_and_its_sentences_are_too() -> None:
    assert len(README.splitlines()) <= MAX_LINES
    assert [one for one in sentences(README) if len(one.split()) > MAX_WORDS] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS], ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    linked = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if not link.startswith("http")]
    assert [link for link in linked if not (page.parent / link).exists()] == []


def test_every_page_of_the_docs_is_linked() -> None:
    """From here, or from the navigation of the site, whose first page is linked from here."""
    linked = set(LINK.findall(README))
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    in_site = {f"docs/{page}" for page in re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)}
    assert "docs/index.md" in linked
    assert {page.relative_to(ROOT).as_posix() for page in DOCS} <= linked | in_site


def test_its_commands_exist() -> None:
    words = re.findall(r"^\s*(?:\.venv/bin/)?recloop (\S+)", "\n".join(FENCE.findall(README)), re.MULTILINE)
    assert len(words) >= 2
    assert set(words) <= set(cli.app)
    targets = re.findall(r"^make (\w+)", "\n".join(FENCE.findall(README)), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["run", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_its_numbers_stand_in_the_results() -> None:
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    log = (ROOT / "docs" / "log.md").read_text(encoding="utf-8")
    rows = [line for line in README.splitlines() if re.match(r"\| (MovieLens|Amazon|Simulated)", line)]
    assert len(rows) == 5
    for row in rows:
        where = log if row.startswith("| Simulated") else results
        for number in re.findall(r"\.\d{3,4}", row):
            assert f"0{number}" in where or number in where, f"{number} of {row}"
