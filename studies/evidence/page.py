"""Writes ``results.md`` from its sections; a missing run leaves a line that names it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recloop.files import atomic_write_text
from studies.evidence.ablation_sections import ablations, choices, leakage
from studies.evidence.glance import at_a_glance
from studies.evidence.main_sections import claims, main_tables, short_histories
from studies.evidence.pooling import Evidence
from studies.evidence.sections import FIGURES, Part
from studies.evidence.side_sections import cost, predicted, reliability, study_runs_done, written

PAGE = "results.md"
HEAD = """\
# Results

Written by `python -m studies.evidence` from the files in `results/`, one per study run; do not edit. Every number
here is in those files or follows from them.

**How to read.** A study run is one whole run of DPO4Rec with its own test users, seed, reward model, trained language
model and evaluation rerankers. Its test users are a *fold*: folds share no test user. As in cross-validation, the test
users of one fold may be train or reward users in another. Differences are taken user by user and pooled over the test
users of all folds. Intervals are 95% intervals of the mean over users. p is the sign-flip test in its large-sample
form. "Holm" is p corrected for all differences of one language model (trained here, or on another log) in its table
and metric. The test generalises over users, given the trained models. Whether training itself repeats is shown by the
signs of the folds. Settings were chosen on valid users who are test users in no table; where a fold's own result led
to a change, the study's text says so. A list without a positive is left out, and every user has the same weight.
"""
SECTIONS: tuple[tuple[str, Callable[[Evidence], Part]], ...] = (
    ("At a glance", at_a_glance),
    ("What was to be shown", claims),
    ("Can the reward be trusted?", reliability),
    ("How much of the reward can a prompt teach?", predicted),
    ("Choices, made on valid users", choices),
    ("Main tables", lambda evidence: main_tables(evidence, "main")),
    ("Another log", lambda evidence: main_tables(evidence, "external")),
    ("Short histories: text beside item ids", short_histories),
    ("Ablations", ablations),
    ("What a leak would have claimed", leakage),
    ("What the trained language model writes differently", written),
    ("Cost", cost),
    ("Study runs", study_runs_done),
)


def write_page(out: Path, evidence: Evidence) -> Path:
    """The path of the page, written with its figures over older ones; figures that no section has are removed."""
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
