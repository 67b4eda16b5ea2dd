"""What a run folder holds, in words: its steps, and its tables once there are any. Light to import."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from recloop.errors import RunError
from recloop.evaluation.labels import p_value
from recloop.evaluation.verdict import verdict_text
from recloop.experiment.manifest import (
    CONFIG,
    MANIFEST,
    has_file,
    read_manifest,
    read_object,
    require_form,
    require_published,
)
from recloop.experiment.reuse import own_steps, reused_in_words
from recloop.progress import format_seconds

RESULTS, REPORT = "results.json", "report.html"
WIDTH = 100  # of the verdict's lines
OTHERS_SHOWN = 3  # metrics beside the tested one


class _Form(BaseModel, strict=True, extra="allow", allow_inf_nan=False):
    """What may stand in results.json, as `recloop.evaluation.tables` writes it."""


class _Interval(_Form):
    value: float
    low: float
    high: float
    by_seed: Annotated[list[float], Field(min_length=1)]


class _Variant(_Form):
    name: str
    estimate: _Interval


class _Contrast(_Form):
    name: str
    against: str
    difference: _Interval
    p: float
    p_holm: float
    verdict: Literal["better", "worse", "not shown", "too few seeds"]


class _Comparison(_Form):
    metric: str
    mean: str
    empty: str
    num_users: int
    num_lists: int
    variants: Annotated[list[_Variant], Field(min_length=1)]
    contrasts: list[_Contrast]


class _Table(_Form):
    title: str
    unit: str
    reranker: str
    is_demonstration: bool
    below_chance: str = ""  # a run made before has neither
    chance: float | None = None
    metrics: Annotated[list[_Comparison], Field(min_length=1)]


_Share = Annotated[float | None, Field(ge=0, le=1)]


class _TextTruth(_Form):
    num_texts: Annotated[int, Field(ge=1)]
    true: _Share
    titles_true: _Share


class _Results(_Form):
    tables: Annotated[list[_Table], Field(min_length=1)]
    labels: dict[str, str]
    truth: dict[str, _TextTruth] = {}

    @model_validator(mode="after")
    def _has_all(self) -> Self:
        for table in self.tables:
            names = [one.name for one in table.metrics[0].variants]
            told = [pair for one in table.metrics for c in one.contrasts for pair in (c.name, c.against)]
            is_same = all([v.name for v in one.variants] == names for one in table.metrics)
            if not is_same or not {*told} <= {*names} <= {*self.labels}:
                raise ValueError("every metric needs the same variants, and each a label")
        return self


def read_results(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a run, the labels of its variants and the truth of their texts, from results.json.

    Raises:
        RunError: it is gone, or not what the run wrote.
    """
    path = require_published(folder, manifest, RESULTS)
    results = read_object(path)
    require_form(path, results, _Results)
    return results


def show(folder: Path) -> str:
    """The tables, the verdict and the report's path of a finished run; the steps done so far of another.

    Raises:
        RunError: the folder is no run, or is damaged.
    """
    if not all(has_file(folder, name) for name in (CONFIG, MANIFEST)):
        raise RunError(f"{folder} holds no run (no {CONFIG} or {MANIFEST}); check the path")
    manifest = read_manifest(folder)
    steps: Mapping[str, Any] = manifest["steps"]
    parts = [describe_steps(steps)]
    if "evaluate" in steps:
        results = read_results(folder, manifest)
        parts += [describe_table(table, results["labels"]) for table in results["tables"]]
        parts += ["\n".join(wrap(text, WIDTH)) for text in verdict_text(results).split("\n\n")]
    end = f"report: {folder / REPORT}" if "report" in steps else f"not finished; go on with: recloop resume {folder}"
    return "\n\n".join([*parts, end])


def describe_steps(steps: Mapping[str, Any]) -> str:
    """A line per verb: how many steps of it are done, and what they took."""
    from recloop.llm.server.cost import describe_server_usage

    by_verb: dict[str, list[Mapping[str, Any]]] = {}
    own = own_steps(steps)
    for name, entry in own.items():
        by_verb.setdefault(name.partition(".")[0], []).append(entry)
    lines: list[str] = []
    for verb, entries in by_verb.items():
        tokens = sum(entry.get("tokens", 0) for entry in entries)
        wall = format_seconds(sum(entry["wall_s"] for entry in entries))
        lines.append(f"  {verb:<12}{len(entries):>4} done {wall:>14}" + (f"   {tokens:,} tokens" if tokens else ""))
    server = (f"  {line}" for line in (*reused_in_words(steps), *describe_server_usage(own)))
    return "\n".join(["steps", *(lines or ["  none yet"]), *server])


def describe_table(table: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """One main table with its tests.

    Args:
        table: of results.json.
        labels: of variants, by name.
    """
    main, *others = table["metrics"]
    shown = others[:OTHERS_SHOWN]
    mark = "   DEMONSTRATION: one seed, nothing here may be claimed" if table["is_demonstration"] else ""
    unit = table["unit"]
    over = f"mean over {main['num_users']:,} test {unit}s"
    if unit == "user":
        over = f"{main['mean']} {over}, {main['num_lists']:,} lists; lists without a positive: {main['empty']}"
    width = max(len(labels[one["name"]]) for one in main["variants"])
    lines = [
        f"  {'':<{width}}  {main['metric']:>8}  {'95% interval':<17}" + "".join(f"{o['metric']:>11}" for o in shown)
    ]
    for place, one in enumerate(main["variants"]):
        estimate = one["estimate"]
        rest = "".join(f"{other['variants'][place]['estimate']['value']:>11.4f}" for other in shown)
        lines.append(
            f"  {labels[one['name']]:<{width}}  {estimate['value']:>8.4f}  "
            f"{estimate['low']:.4f} to {estimate['high']:.4f} {rest}"
        )
    tests = [f"  {'difference in ' + main['metric']:<{2 * width + 9}} {'':>8}  {'p':>8} {'p (Holm)':>9}"]
    for contrast in main["contrasts"]:
        pair = f"{labels[contrast['name']]} - {labels[contrast['against']]}"
        p, p_holm = p_value(contrast["p"]), p_value(contrast["p_holm"])
        difference = f"{contrast['difference']['value']:>+8.4f}"
        tests.append(f"  {pair:<{2 * width + 9}} {difference}  {p:>8} {p_holm:>9}  {contrast['verdict']}")
    head = f"{table['title']}{mark}\n{over}"
    chance = table.get("below_chance", "")  # a run made before has none
    lines += ["  " + chance] if chance else []
    return "\n".join([head, *lines, "", *(tests if main["contrasts"] else [])]).rstrip()
