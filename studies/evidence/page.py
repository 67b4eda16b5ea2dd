"""``results.md``: the page, put together from its sections; a missing unit leaves a line, never a hole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recloop.files import atomic_write_text
from studies.evidence.ablation_sections import ablations, choices, leakage
from studies.evidence.main_sections import claims, main_tables
from studies.evidence.pooling import Evidence
from studies.evidence.sections import FIGURES, Part
from studies.evidence.side_sections import cost, predicted, reliability, units, written

PAGE = "results.md"
HEAD = """\
# Results

Written by `recloop bench quality` from the files in `results/`, one per unit; do not edit. Every number here
is in those files or follows from them.

**How to read.** A unit is one whole run of DPO4Rec with its own test users (a *panel*: panels share no test
user; as in cross-validation, one panel's test users may fit and reward in another), seed, reward model, trained
language model and evaluators. Differences are taken user by user and added up over the test users of all
panels: intervals are 95% of the mean over users, p is the sign-flip test (large-sample form), "Holm" is p
corrected for all differences of one language model (trained, or trained on another log) in its table and metric.
The test speaks of users, given the trained models; that training itself repeats is what the signs of the
panels say. Settings were chosen on valid users who report nowhere. A list without a positive is left out, and
every user weighs the same.
"""
SECTIONS: tuple[tuple[str, Callable[[Evidence], Part]], ...] = (
    ("What was to be shown", claims),
    ("Can the reward be trusted?", reliability),
    ("How much of the reward can a prompt teach?", predicted),
    ("Choices, made on valid users", choices),
    ("Main tables", lambda evidence: main_tables(evidence, "main")),
    ("Another log", lambda evidence: main_tables(evidence, "external")),
    ("Ablations", ablations),
    ("What a leak would have claimed", leakage),
    ("What the trained language model writes differently", written),
    ("Cost", cost),
    ("Units", units),
)


def write_page(out: Path, evidence: Evidence) -> Path:
    """Write the page and its figures over older ones; figures of sections without numbers are removed."""
    lines, drawn = [HEAD], dict[str, str]()
    for title, section in SECTIONS:
        part = section(evidence)
        lines += [f"## {title}", "", *part.lines, ""]
        drawn |= part.figures
    folder = out / FIGURES
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.name not in drawn:
            old.unlink()
    for name, svg in drawn.items():
        atomic_write_text(folder / name, svg)
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    atomic_write_text(out / PAGE, text.rstrip() + "\n")
    return out / PAGE
