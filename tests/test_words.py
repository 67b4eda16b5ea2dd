"""One word per thing: the words that code, help, report and docs no longer use."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLD = re.compile(
    r"\b(drafts?|journals?|judges?|judged|foretold|foretells?|givers?|facets?|headlines?|rivals?|anew|hint agents?"
    r"|feedback users?|so much as|to be had|twice over|embedded (?:LM|language model|model)|simulated worlds?"
    r"|EndpointLM|DraftJournal|take_from|earns?|earned)\b",
    re.IGNORECASE,
)
# Where an old word must stand: the table that maps old settings to new ones, a string that seeds derive from, and the
# name of a mode of SQLite.
ALLOWED = {
    "src/recloop/settings.py": None,
    "docs/migration.md": None,
    "src/recloop/llm/server/protocol.py": "{seed} draft {completion}",
    "src/recloop/llm/cache_locks.py": "pragma journal_mode",
    "src/recloop/methods/dpo4rec/evaluate.py": 'f"judge {number}" if number else "judge"',
    "studies/evidence/extras.py": 'f"judge {number}" if number else "judge"',
}
WRITTEN = ("src", "examples", "benchmarks", "studies", "scripts", "fuzz", "docs", "README.md", "CONTRIBUTING.md")
HISTORY = ("docs/log.md",)


def texts() -> list[Path]:
    roots = [ROOT / name for name in WRITTEN]
    files = [file for root in roots for file in ([root] if root.is_file() else root.rglob("*"))]
    kinds = (".py", ".md", ".toml", ".jinja")
    return [file for file in files if file.suffix in kinds and file.relative_to(ROOT).as_posix() not in HISTORY]


def test_old_words_are_gone() -> None:
    found: list[str] = []
    for file in texts():
        name = file.relative_to(ROOT).as_posix()
        if name in ALLOWED and ALLOWED[name] is None:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            allowed = ALLOWED.get(name)
            if (match := OLD.search(line)) and not (allowed and allowed in line):
                found.append(f"{name}:{number}: {match[0]}")
    assert found == []


def test_every_exception_is_still_needed() -> None:
    for name, line in ALLOWED.items():
        assert line is None or line in (ROOT / name).read_text(encoding="utf-8"), name
