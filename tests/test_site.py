"""The documentation site's pages: short sentences, all of them in the navigation, and what is made from the code."""

import json
import re
from pathlib import Path

import pytest

import recloop
from page_sentences import MAX_WORDS
from recloop.config import describe_settings
from recloop.evaluation.glossary import GLOSSARY, terms_in
from recloop.evaluation.significance import ALPHA, MIN_SEEDS
from recloop.methods.registry import METHODS, method_named
from scripts import site_pages
from scripts.readability import LINK, readability, sentences

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# Written by programs, and the log, which is kept as it was written.
LONG_SENTENCES = ("benchmarks.md", "results.md", "log.md")
WRITTEN = [page for page in sorted(DOCS.rglob("*.md")) if page.name not in LONG_SENTENCES]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_sentences_are_short(page: Path) -> None:
    assert [one for one in sentences(page.read_text(encoding="utf-8")) if len(one.split()) > MAX_WORDS] == []


def test_readability_is_that_of_flesch() -> None:
    """By hand: 6 and 5 words of 7 and 5 syllables; code is a word of one, and a silent e is none."""
    found = readability("# Left out\n\nThe cat sat on [a table](x.md).\nHe wrote `a.b(c)` in haste.\n\n```\nno\n```\n")
    assert (found["sentences"], found["longest"], found["mean"]) == (2, 6, 5.5)
    assert found["ease"] == pytest.approx(206.835 - 1.015 * 5.5 - 84.6 * 12 / 11)


def test_what_a_table_must_show_is_what_the_verdict_asks() -> None:
    page = (DOCS / "runs.md").read_text(encoding="utf-8")
    assert f"p at most {ALPHA:.2f}".replace("0.", ".") in page
    assert MIN_SEEDS == 3
    assert "**Three seeds, all of one sign.**" in page


@pytest.mark.parametrize("first", [ROOT / "README.md", DOCS / "index.md"], ids=lambda page: page.name)
def test_what_new_users_ask_is_one_click_away(first: Path) -> None:
    """How do I add a reward that punishes length? Can I trust this table?"""
    links = {(first.parent / link).resolve() for link in LINK.findall(first.read_text(encoding="utf-8"))}
    asked = {"guides/own-reward.md": "## Punish length\n", "runs.md": "## Can I trust this table?\n"}
    for page, heading in asked.items():
        assert DOCS / page in links
        assert heading in (DOCS / page).read_text(encoding="utf-8")


def test_links_become_those_of_the_site() -> None:
    page = "[a](../src/recloop/errors.py), [b](data.md#years), [c](https://a.org), [d](gone.md)"
    page += "\n```\n[e](../LICENSE)\n```\n"
    found = site_pages.with_site_links(page, "docs/models.md")
    assert "[a](repository/src/recloop/errors.py.md), [b](data.md#years), [c](https://a.org), [d](gone.md)" in found
    assert "[e](../LICENSE)" in found
    assert site_pages.with_site_links("[a](docs/data.md)", "SECURITY.md") == "[a](../data.md)"
    assert site_pages.with_site_links("[a](../../configs/published)", "docs/guides/x.md") == (
        "[a](../repository/configs/published/index.md)"
    )


def test_files_that_pages_link_to_are_pages() -> None:
    pages = site_pages.repository_pages()
    assert {"repository/SECURITY.md", "repository/CHANGELOG.md", "repository/examples/06_own_reward.py.md"} <= set(
        pages
    )
    assert "(../examples/06_own_reward.py.md)" not in pages["repository/SECURITY.md"]
    assert "rl.run(" in pages["repository/examples/06_own_reward.py.md"]
    assert "(dpo4rec-ml-1m.toml.md)" in pages["repository/configs/published/index.md"]


def test_a_notebook_shows_what_it_printed() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {
            "cell_type": "code",
            "source": ["print(1)\n", "2"],
            "outputs": [{"text": ["1\n"]}, {"data": {"text/plain": "2"}}],
        },
    ]
    parts = list(site_pages.notebook_parts({"cells": cells}))
    assert parts == ["# Title", "```python\nprint(1)\n2\n```", "```text\n1\n```", "```text\n2\n```"]
    for name in site_pages.NOTEBOOKS:
        notebook = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text(encoding="utf-8"))
        assert len(list(site_pages.notebook_parts(notebook))) > len(notebook["cells"])


def test_docstrings_are_put_into_the_words_of_griffe() -> None:
    pytest.importorskip("griffe", reason="comes with the extra docs")
    from scripts.docstring_fields import as_griffe_reads

    fields = "A record.\n\nname: what it is\n    called.\nkey: where.\n\nA sentence: and so\non.\n\nArgs:\n    a: b."
    listed = "A record.\n\n- `name`: what it is called.\n- `key`: where.\n\nA sentence: and so\non.\n\nArgs:\n    a: b."
    assert as_griffe_reads(fields) == listed
    assert as_griffe_reads("Says.\n\nExample:\n    >>> 1\n    1\n") == "Says.\n\nExamples:\n    >>> 1\n    1"
    assert as_griffe_reads("Says.\n\nExample:\n    f()") == "Says.\n\nExamples:\n    ```python\n    f()\n    ```"


def test_every_public_name_is_in_the_reference() -> None:
    named = re.findall(r"^::: recloop\.(\w+)$", site_pages.api_page(), re.MULTILINE)
    assert sorted(named) == sorted(set(recloop.__all__) - {"__version__"})


@pytest.mark.parametrize("method", METHODS)
def test_settings_are_those_of_help(method: str) -> None:
    printed = describe_settings(method_named(method).config, method, every=True)
    page = site_pages.settings_page(method)
    assert re.findall(r"^  (--\S+)  \[", printed, re.MULTILINE) == re.findall(r"^`(--\S+)`\{", page, re.MULTILINE)
    about = re.findall(r"^      (.+)", printed, re.MULTILINE)
    assert [one for one in about if one not in page] == []


def test_the_glossary_has_each_word_once() -> None:
    page = (DOCS / "concepts.md").read_text(encoding="utf-8")
    assert page.count(site_pages.GLOSSARY_MARK) == 1
    assert re.findall(r"^\*\*(.+)\*\*$", site_pages.glossary(), re.MULTILINE) == [term.word for term in GLOSSARY]
    own = [word.strip() for line in re.findall(r"^\*\*(.+)\*\*$", page, re.MULTILINE) for word in line.split(",")]
    assert len(own) >= 10
    reported = {form.lower() for term in GLOSSARY for form in (term.word, *term.also)} - {"base model"}
    assert [word for word in own if word.lower() in reported] == []
    assert terms_in(page)


def test_the_controls_of_the_theme_have_names() -> None:
    for control in site_pages.UNNAMED:
        named = site_pages.on_post_page(f'<p>{control} id="x">')
        assert re.fullmatch(rf'<p>{re.escape(control)} aria-label="[\w ]+" id="x">', named)
