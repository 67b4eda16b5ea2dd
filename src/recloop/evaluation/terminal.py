"""What a run folder holds, in words: its stages, and its tables once there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recloop.errors import RunError
from recloop.evaluation.labels import p_value
from recloop.experiment.manifest import CONFIG, MANIFEST, read_manifest, read_object
from recloop.experiment.reuse import own_stages, reused_in_words
from recloop.llm.server.usage_text import describe_server_usage
from recloop.progress import format_seconds

RESULTS, REPORT = "results.json", "report.html"
OTHERS_SHOWN = 3  # metrics beside the tested one


def show(folder: Path) -> str:
    """The tables and the report's path of a finished run; the stages done so far of another.

    Raises:
        RunError: the folder is no run, or is damaged.
    """
    if not (folder / CONFIG).is_file() or not (folder / MANIFEST).is_file():
        raise RunError(f"{folder} holds no run (no {CONFIG} or {MANIFEST}); check the path")
    stages: Mapping[str, Any] = read_manifest(folder)["stages"]
    parts = [describe_stages(stages)]
    if "evaluate" in stages:
        results = read_object(folder / RESULTS)
        parts += [describe_table(table, results["titles"]) for table in results["tables"]]
    if "report" in stages:
        parts.append(f"report: {folder / REPORT}")
    else:
        parts.append(f"not finished; go on with: recloop resume {folder}")
    return "\n\n".join(parts)


def describe_stages(stages: Mapping[str, Any]) -> str:
    """A line per verb: how many stages of it are done, and what they took."""
    by_verb: dict[str, list[Mapping[str, Any]]] = {}
    own = own_stages(stages)
    for name, entry in own.items():
        by_verb.setdefault(name.partition(".")[0], []).append(entry)
    lines = [
        f"  {verb:<9}{len(entries):>4} done {format_seconds(sum(e['wall_s'] for e in entries)):>14}"
        f"{describe_tokens(entries)}"
        for verb, entries in by_verb.items()
    ]
    server = (f"  {line}" for line in (*reused_in_words(stages), *describe_server_usage(own)))
    return "\n".join(["stages", *(lines or ["  none yet"]), *server])


def describe_tokens(entries: Sequence[Mapping[str, Any]]) -> str:
    """Tokens written, where any were."""
    tokens = sum(entry.get("tokens", 0) for entry in entries)
    return f"   {tokens:,} tokens" if tokens else ""


def describe_table(table: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """One main table with its tests."""
    main, *others = table["metrics"]
    shown = others[:OTHERS_SHOWN]
    mark = "   DEMONSTRATION: one seed, nothing here may be claimed" if table["is_demonstration"] else ""
    over = (
        f"{main['mean']} mean over {main['num_users']:,} test users, {main['num_lists']:,} lists; "
        f"lists without a positive: {main['empty']}"
    )
    if (unit := table.get("unit", "user")) != "user":
        over = f"mean over {main['num_users']:,} test {unit}s"
    head = f"{table['title']}{mark}\n{over}"
    width = max(len(titles[row["name"]]) for row in main["rows"])
    lines = [
        f"  {'':<{width}}  {main['metric']:>8}  {'95% interval':<17}" + "".join(f"{o['metric']:>11}" for o in shown)
    ]
    for place, row in enumerate(main["rows"]):
        estimate = row["estimate"]
        rest = "".join(f"{other['rows'][place]['estimate']['value']:>11.4f}" for other in shown)
        lines.append(
            f"  {titles[row['name']]:<{width}}  {estimate['value']:>8.4f}  "
            f"{estimate['low']:.4f} to {estimate['high']:.4f} {rest}"
        )
    tests = [f"  {'difference in ' + main['metric']:<{2 * width + 9}} {'':>8}  {'p':>8} {'p (Holm)':>9}"]
    for contrast in main["contrasts"]:
        pair = f"{titles[contrast['name']]} - {titles[contrast['against']]}"
        p, p_holm = p_value(contrast["p"]), p_value(contrast["p_holm"])
        difference = f"{contrast['difference']['value']:>+8.4f}"
        tests.append(f"  {pair:<{2 * width + 9}} {difference}  {p:>8} {p_holm:>9}  {contrast['verdict']}")
    return "\n".join([head, *lines, "", *(tests if main["contrasts"] else [])]).rstrip()
