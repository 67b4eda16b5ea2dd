"""What the documentation site has beside docs/: pages made from the code, and from files that its pages link to.

`mkdocs.yml` names this module as a hook, so `make site` calls `on_files`, `on_page_markdown` and `on_post_page`.
Nothing that it makes is written into the repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import TYPE_CHECKING, Any

import recloop
from recloop.evaluation.glossary import GLOSSARY
from recloop.methods.registry import METHODS, method_named
from recloop.settings import Setting, settings_of

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
GLOSSARY_MARK = "[[glossary of the report]]"
OUTSIDE = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "examples/README.md",
)  # of docs/; what pages link to follows
NOTEBOOKS = ("quickstart", "worth_it", "anatomy_of_a_reward")
ROOMS = {
    "methods": "Whole methods",
    "data": "Logs and lists",
    "llm": "Language models",
    "prompts": "Prompts",
    "encoders": "Encoders",
    "rerankers": "Rerankers",
    "rewards": "Rewards",
    "training": "Training",
    "evaluation": "Evaluation",
    "records": "Records",
    "experiment": "Steps",
    "errors": "Errors",
}
UNNAMED = {
    '<input class="md-toggle" data-md-toggle="drawer"': "Show the pages",
    '<input class="md-toggle" data-md-toggle="search"': "Show the search",
    '<div class="md-search" data-md-component="search"': "Search",
}
LANGUAGES = {".py": "python", ".toml": "toml", ".jinja": "jinja", ".txt": "text"}
FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the site, with the pages that are made here."""
    from mkdocs.structure.files import File

    for uri, text in {**reference_pages(), **repository_pages()}.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """A page of docs/ with its links as the site has them, and the glossary in its place."""
    if page.file.generated_by is not None:
        return markdown
    return with_site_links(markdown, f"docs/{page.file.src_uri}").replace(GLOSSARY_MARK, glossary())


def on_post_page(output: str, **_: Any) -> str:
    """The page with names for the theme's own controls, which screen readers would find without any."""
    for control, name in UNNAMED.items():
        output = output.replace(control, f'{control} aria-label="{name}"')
    return output


def site_uri(path: str) -> str:
    """Where the site has a file or folder of the repository; what is not in docs/ is a page below repository/."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        return f"repository/{path}/index.md"
    return f"repository/{path}" + ("" if path.endswith(".md") else ".md")


def with_site_links(markdown: str, source: str) -> str:
    """A page's text with links to the repository's files as the site has them.

    Args:
        source: the page's file, relative to the repository.
    """

    def replaced(link: re.Match[str]) -> str:
        target = normpath(join(dirname(source), link[1]))
        if not (ROOT / target).exists():  # mkdocs reports it
            return link[0]
        return f"]({relpath(site_uri(target), dirname(site_uri(source)))}{link[2] or ''})"

    parts = FENCED.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(replaced, part) for part in parts)


def repository_pages() -> dict[str, str]:
    """Address to text of a page for each file outside of docs/ that a page links to, from page to page."""
    waiting = [*OUTSIDE, *(f"examples/{name}.ipynb" for name in NOTEBOOKS)]
    waiting += [page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")]
    pages: dict[str, str] = {}
    seen = set(waiting)
    while waiting:
        source = waiting.pop()
        text = page_of(ROOT / source)
        if not source.startswith("docs/"):
            pages[site_uri(source)] = with_site_links(text, source)
        linked = {normpath(join(dirname(source), link[1])) for link in LINK.finditer(FENCED.sub("", text))}
        new = {path for path in linked - seen if not path.startswith("docs/") and (ROOT / path).exists()}
        waiting += sorted(new)
        seen |= new
    return pages


def page_of(path: Path) -> str:
    """A file or folder of the repository as Markdown."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_dir():
        return f"# {name}\n\n" + "\n".join(
            f"- [{file.name}]({path.name}/{file.name})" for file in sorted(path.iterdir()) if file.is_file()
        )
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".ipynb":
        return "\n\n".join(notebook_parts(json.loads(text)))
    return f"# {name}\n\n{fenced(text, LANGUAGES.get(path.suffix, 'text'))}"


def notebook_parts(notebook: dict[str, Any]) -> Iterator[str]:
    """A notebook's cells as Markdown, each with what it printed when it was executed last."""
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else fenced(source, "python")
        for output in cell.get("outputs", ()):
            yield fenced("".join(output["text"] if "text" in output else output["data"]["text/plain"]), "text")


def fenced(text: str, language: str) -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def reference_pages() -> dict[str, str]:
    """Address to text of the pages on the public names and on each method's settings."""
    pages = {f"reference/settings-{name}.md": settings_page(name) for name in METHODS}
    return {"reference/api.md": api_page(), **pages}


def api_page() -> str:
    """The public names, by the room of the package that they are from; mkdocstrings fills them in."""
    rooms = {name: module.split(".")[0] for name, module in recloop._MODULE_OF.items()}
    names = sorted(rooms, key=lambda name: name[0].isupper())  # functions before the records they are about
    parts = ["# Python: the names of `recloop`", "`import recloop as rl`; each is imported when it is first used."]
    for room, title in ROOMS.items():
        parts += [f"## {title}", *(f"::: recloop.{name}" for name in names if rooms[name] == room)]
    return "\n\n".join(parts)


def settings_page(method: str) -> str:
    """All settings of a method: what `recloop run METHOD --help-all` prints."""
    known = list(settings_of(method_named(method).config))
    about = (
        f"All {len(known)}, as `recloop run {method} --help-all` prints them. Each is a flag, a line of a TOML file "
        "and an argument of `rl.run`. *First* marks those that `--help` shows."
    )
    parts = [f"# Settings of `recloop run {method}`", about]
    for section, inside in groupby(known, lambda setting: setting.key.rpartition(".")[0].partition(".")[0]):
        settings = list(inside)
        parts += [f"## {section}\n\n{settings[0].about}" if section else "## Of the whole run"]
        parts += [_setting(setting) for setting in settings]
    return "\n\n".join(parts)


def _setting(setting: Setting) -> str:
    first = " *First.*" if setting.is_shown_first else ""
    anchor = setting.flag.removeprefix("--").replace(".", "-")
    return (
        f"`{setting.flag}`{{ #{anchor} }} `{setting.facts}`{setting.bounds}{first}\n"
        f":   {(setting.info.description or 'see the section').strip()}"
    )


def glossary() -> str:
    """The words of the report, from the one place that has them."""
    return "\n\n".join(f"**{term.word}**\n:   {term.meaning}" for term in GLOSSARY)
