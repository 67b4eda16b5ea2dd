"""Stages taken over from another run: what would come out the same is not done again.

A stage would come out the same where its inputs are, and the settings that it reads beyond them, and the
versions of what computes it. `READS` names those settings by method and by how a stage's name begins;
`tests/test_methods_taking.py` holds it against what a run does read. Nothing is taken unless ``prepare`` was,
so what that reads is not named again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from recloop.errors import RunError
from recloop.experiment.manifest import CONFIG, MANIFEST, differing_keys, read_manifest, read_object, versions
from recloop.experiment.run_folder import PASSING, REUSED, RunFolder
from recloop.progress import Progress

SOURCE_RUN = "reuses_from"  # in the manifest: the folder of the other run
LOG = "prepare"  # the stage that everything follows from
Stages = Mapping[str, Mapping[str, Any]]
COMPLETIONS_FILE, VECTORS_FILE = "completions.sqlite", "vectors.sqlite"
RERANKING = ("reranker", "item_vector_width")
MEASURING = ("metrics", "reward.metric")
READS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "dpo4rec": {
        LOG: ("data", "data_seed", "split", "protocol", "prompt", "lm"),
        "sample": ("completions",),
        "sample.untuned": ("completions", "rounds"),  # without rounds nobody is sampled to be rewarded
        "encode": ("encoder",),
        "reward_model": RERANKING,
        "reward": ("reward", "reranker"),
        "pairs": ("pairs", "dpo.max_reply_tokens", "reward.metric"),
        "train": ("dpo", "reference"),
        "fit": (*RERANKING, *MEASURING),
        "score": ("reranker", *MEASURING),
    },
    "rerec": {
        LOG: ("data", "data_seed", "split", "requests", "prompt", "lm"),
        "embed": ("embedding",),
        "train.supervised": ("sft",),
        "train": ("grpo",),
        "sample": ("answering",),
        "sample.kept": ("retention",),
        "sample.next": ("next_item", "grpo.max_prompt_tokens"),
        "sample.next.baselines": ("next_item", "seeds"),
    },
}


def require_source_run(source: Path, method: str) -> None:
    """RunError unless a run of `method` may take from this folder."""
    if not (source / MANIFEST).is_file():
        raise RunError(f"a run folder is wanted to take from, got {source}; check the path")
    manifest = read_manifest(source)
    if manifest["method"] != method or method not in READS:
        raise RunError(
            f"a run takes from one of the same method, {' or '.join(READS)}, got one of {manifest['method']} "
            f"for one of {method}; leave it out"
        )
    changed = differing_keys(manifest["versions"], versions())
    if changed:
        raise RunError(
            f"{source} was made with other versions ({'; '.join(changed)}), so its stages would not come out "
            f"the same; leave it out"
        )


def reuse_from(run: RunFolder, source: Path) -> None:
    """From now on take from another run what it has done and would be the same here.

    Completions and vectors are kept by the content of prompt, weights, sampling and text; a run that has none yet
    gets the other's, so that none is paid for twice even where a stage must be done again.

    Raises:
        RunError: no run of the same method there, this run itself, or one that other versions made.
    """
    require_source_run(source, run.manifest["method"])
    if source.resolve() == run.path.resolve():
        raise RunError(f"a run cannot take from itself, got {source}; name another run's folder")
    for name in (COMPLETIONS_FILE, VECTORS_FILE):
        if (source / name).is_file() and not (run.path / name).exists():
            _copy_database(source / name, run.path / name)
    run.remember(**{SOURCE_RUN: str(source.resolve())})


def source_run_of(run: RunFolder) -> str | None:
    """Name of the run that this one was told to take from; None when it was told of none."""
    return Path(run.manifest[SOURCE_RUN]).name if SOURCE_RUN in run.manifest else None


def own_stages(stages: Stages) -> Stages:
    """The stages that the run did itself."""
    return {name: entry for name, entry in stages.items() if REUSED not in entry}


def reused_in_words(stages: Stages) -> tuple[str, ...]:
    """A line that says how many stages another run did; none when it did none."""
    sources = [entry[REUSED] for entry in stages.values() if REUSED in entry]
    return (f"{len(sources)} of {len(stages)} stages from {sources[0]}",) if sources else ()


def reuse_stage(run: RunFolder, name: str, inputs: Mapping[str, Any], progress: Progress) -> None:
    """Take one stage from the run's source run, where there is one and the stage would come out the same."""
    method = run.manifest["method"]
    beginning = beginning_of(method, name)
    if SOURCE_RUN not in run.manifest or run.is_done(name) or not beginning:
        return
    source = Path(run.manifest[SOURCE_RUN])
    if not (source / MANIFEST).is_file():
        return
    entry = read_manifest(source)["stages"].get(name)
    if entry is None or not (name == LOG or REUSED in run.manifest["stages"][LOG]):
        return
    paths = READS[method][beginning]
    theirs = settings_read(read_object(source / CONFIG), paths)
    changed = differing_keys(theirs, settings_read(run.config, paths))
    if not changed and entry["inputs"] == json.loads(json.dumps(dict(inputs))):
        run.take(name, source, entry)
        progress.say(f"{name} is taken from {source.name}")
    elif name == LOG:
        why = "; ".join(changed) or "the log or the language model is another one, under the same settings"
        progress.say(f"nothing is taken from {source.name}, for log, groups or prompts differ: {why}")


def beginning_of(method: str, stage: str) -> str:
    """The longest beginning of a stage's name that `READS` has; empty for a stage that is never taken."""
    words = stage.split(".")
    beginnings = (".".join(words[:num]) for num in range(len(words), 0, -1))
    return next((name for name in beginnings if name in READS.get(method, {})), "")


def forecast_of_reuse(config: Mapping[str, Any], source: Path) -> str:
    """What a run with this configuration would take, as far as settings tell: for ``--dry-run``."""
    theirs, reads = read_object(source / CONFIG), READS[read_manifest(source)["method"]]
    changed = {
        name: differing_keys(settings_read(theirs, paths), settings_read(config, paths))
        for name, paths in reads.items()
    }
    if changed[LOG]:
        why = "; ".join(changed[LOG])
        return f"nothing will be taken from {source}, for log, groups or prompts differ: {why}"
    same = ", ".join(name for name in reads if not changed[name])
    return f"counted, but taken from {source} where inputs are the same: {same}"


def settings_read(config: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """A configuration's values under these dotted names; without what decides no result."""
    found: dict[str, Any] = {}
    for path in paths:
        value: Any = config
        for key in path.split("."):
            value = value[key]
        if isinstance(value, dict):
            parts = cast(dict[str, Any], value)
            value = {key: part for key, part in parts.items() if f"{path}.{key}" not in PASSING}
        found[path] = value
    return found


def _copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
        if target.name == COMPLETIONS_FILE:  # what the other run paid for is not this run's cost
            new.execute("delete from usage")
            new.commit()
