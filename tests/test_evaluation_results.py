"""Results: a run's tables, users, contrasts and completions as data frames, whatever the method."""

import json
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from made_up_report import CONTRASTS, LEVELS, METRICS, made_up_table
from recloop.errors import DataError, MissingPackageError, RunError, SettingError
from recloop.evaluation.per_user_scores import VariantScores
from recloop.evaluation.report_sections import closing_sections
from recloop.evaluation.results import Results
from recloop.evaluation.significance import StatisticsConfig
from recloop.evaluation.tables import TableSettings, Units, make_table, metric_lines, write_completions, write_tables
from recloop.evaluation.terminal import show

ENTRY = {"folder": "steps/x", "inputs": {}, "outputs": {}, "wall_s": 1.0, "peak_memory_bytes": 2**20, "fingerprint": ""}
FEW = StatisticsConfig(num_resamples=200, num_flips=200)


def manifest_of(*steps):
    done = {step: ENTRY | {"folder": f"steps/{step}"} for step in steps}
    return json.dumps({"method": "mine", "versions": {}, "resumed_with": [], "steps": done})


def requests_table():
    """Two variants on three requests of two users."""
    scores = [
        VariantScores(name, "user", "drop", ("hr@1",), (0,), np.arange(3), np.ones(3, np.int64), values[None, :, None])
        for name, values in (("base_model", np.array([0.0, 1.0, 0.0])), ("rerec", np.array([1.0, 1.0, 0.0])))
    ]
    settings = TableSettings(("hr@1",), "hr@1", FEW, 0, Units("request", ["ann", "ann", "bob"]))
    return make_table("Requests", scores, [("rerec", "base_model")], settings, "base_model")


@pytest.fixture
def folder(tmp_path):
    tables = [made_up_table(3, num_users=40), requests_table()]
    tables[0] = replace(tables[0], units=Units("user", [f"u{n}" for n in range(40)]))
    write_tables(tmp_path, tables)
    written = {"user_id": ["ann"], "variant": ["untuned"], "seed": [0], "number": [2], "text": ["By era: <b>."]}
    write_completions(tmp_path, [pl.DataFrame(written | {"status": ["ok"], "reward": [0.5]})])
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "manifest.json").write_text(manifest_of("sample.x", "evaluate", "report"))
    return tmp_path


def test_a_table_has_a_line_per_variant(folder):
    results = Results(folder)
    shown = results.table()
    assert shown.columns == [
        *("table", "reranker", "variant", "label", "metric", "value", "low", "high", "num_users", "num_seeds"),
    ]
    main = shown.filter(pl.col("table").str.starts_with("PRM"))
    assert set(main["variant"]) == set(LEVELS)
    expected = made_up_table(3, num_users=40).main
    trained = main.row(by_predicate=pl.col("variant") == "trained", named=True)
    assert trained["label"] == "Trained"
    assert trained["value"] == expected.estimates["trained"].value
    assert (trained["num_users"], trained["num_seeds"], trained["reranker"]) == (40, 3, "prm")
    rerankers = dict(main.select("variant", "reranker").iter_rows())
    assert rerankers["reward_model_trained"] == "reward_model"
    requests = shown.filter(pl.col("table") == "Requests")
    assert requests["value"].to_list() == pytest.approx([1 / 3, 2 / 3])
    assert requests["reranker"].null_count() == 2
    assert set(results.table("hr@1")["table"]) == {"PRM, one new evaluator per variant", "Requests"}
    assert results.metrics == METRICS
    with pytest.raises(SettingError, match="no table has the metric ndcg@99; use one of ndcg@5"):
        results.table("ndcg@99")


def test_values_per_user_average_to_the_table(folder):
    results = Results(folder)
    per_user = results.per_user("ndcg@5")
    assert per_user.columns == ["table", "reranker", "variant", "seed", "user_id", "num_lists", "value"]
    means = dict(per_user.group_by("variant").agg(pl.col("value").mean()).iter_rows())
    for variant, value in results.table("ndcg@5").select("variant", "value").iter_rows():
        assert means[variant] == pytest.approx(value)
    assert set(per_user["user_id"]) == {f"u{n}" for n in range(40)}
    requests = results.per_user("hr@1").filter(pl.col("table") == "Requests", pl.col("variant") == "rerec")
    assert list(requests.select("user_id", "request", "value").iter_rows()) == [
        *(("ann", 0, 1.0), ("ann", 1, 1.0), ("bob", 2, 0.0)),
    ]
    with pytest.raises(SettingError, match="no table has the metric"):
        results.per_user("ndcg@99")


def test_contrasts_and_completions(folder):
    results = Results(folder)
    contrasts = results.contrasts()
    assert list(contrasts.select("variant", "against").iter_rows()) == [*CONTRASTS, ("rerec", "base_model")]
    assert contrasts["verdict"][0] == "better"
    assert results.completions().row(0, named=True) == {
        "user_id": "ann",
        "variant": "untuned",
        "seed": 0,
        "number": 2,
        "text": "By era: <b>.",
        "status": "ok",
        "reward": 0.5,
    }
    with pytest.raises(DataError, match="got no variant"):
        write_completions(folder, [pl.DataFrame({"user_id": ["ann"]})])


def test_it_shows_itself(folder):
    results = Results(folder)
    assert "difference in ndcg@5" in repr(results)
    assert results.verdict.startswith("PRM, one new evaluator per variant. On this log")
    assert results.verdict.endswith("What needs no language model was not run: it may do as well.")
    assert " ".join(results.verdict.split()) in " ".join(repr(results).split())
    page = results._repr_html_()
    assert "<td>" in page
    assert "Best of N, cross-validated" in page
    assert "On this log" in page
    assert "<td>0.3333</td>" not in page  # of the second table
    assert results.report_path == folder / "report.html"


@pytest.mark.slow
def test_intervals_are_plotted_or_matplotlib_is_asked_for(folder, monkeypatch):
    results = Results(folder)
    pytest.importorskip("matplotlib")
    panels = results.plot().axes
    assert [len(axes.get_yticks()) for axes in panels] == [len(LEVELS), 2]
    assert [axes.get_title() for axes in panels] == ["PRM, one new evaluator per variant", "Requests"]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'recloop\[plot\]'"):
        results.plot()


def test_an_unfinished_run_says_what_is_done(folder):
    (folder / "manifest.json").write_text(manifest_of("sample.x"))
    results = Results(folder)
    assert "recloop resume" in repr(results)
    assert results._repr_html_().startswith("<pre>")
    with pytest.raises(RunError, match=r"has no results\.json yet; go on with: recloop resume"):
        results.table()
    with pytest.raises(RunError, match="manifest"):
        Results(folder / "nowhere")


def test_lines_for_metrics_and_sections_of_every_report(folder):
    table = requests_table()
    assert [line["value"] for line in metric_lines([table])] == pytest.approx([1 / 3, 2 / 3])
    steps = {"sample.a": ENTRY | {"tokens": 5}, "sample.b": ENTRY | {"tokens": 7}, "evaluate": ENTRY}
    reused = {"sample.c": ENTRY | {"reused_from": "other"}}
    (costs,) = closing_sections([table], steps | reused, ())[2].parts
    assert [(cost.verb, cost.wall_s, cost.num_tokens) for cost in costs.costs] == [
        *(("sample", 2.0, 12), ("evaluate", 1.0, None)),
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"value": ', '"value": "'),
        ('"tables": [', '"tables": [3, '),
        ('"metrics": [', '"metrics": [], "x": ['),
        ('"p": ', '"p": [], "x": '),
        ('"truth": {', '"truth": {"trained": {"num_texts": 0, "true": 0.5, "titles_true": 2.0}'),
        ('"by_seed": [', '"by_seed": [], "x": ['),
        ('"against": "', '"against": "nobody'),
        ('"verdict": "', '"verdict": "surely '),
    ],
)
def test_results_that_somebody_made_up_are_one_error(folder, old, new):
    text = (folder / "results.json").read_text()
    (folder / "results.json").write_text(text.replace(old, new, 1))
    for read in (lambda: Results(folder).table(), lambda: show(folder), lambda: repr(Results(folder))):
        with pytest.raises(RunError, match=r"results\.json (is not JSON|must be what a run wrote)"):
            read()


def test_every_metric_has_the_variants_of_the_first_and_each_a_label(folder):
    told = json.loads((folder / "results.json").read_text())
    del told["tables"][0]["metrics"][1]["variants"][0]
    (folder / "results.json").write_text(json.dumps(told))
    with pytest.raises(RunError, match="every metric needs the same variants"):
        show(folder)


@pytest.mark.parametrize("name", ["results.json", "per_user.parquet", "completions.parquet"])
def test_a_file_that_is_not_what_the_run_wrote_is_not_read(folder, name):
    manifest = json.loads(manifest_of("sample.x", "evaluate", "report"))
    manifest["steps"]["evaluate"]["published"] = {name: {"sha256": 64 * "0", "bytes": (folder / name).stat().st_size}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    results = Results(folder)
    read = {"results.json": results.table, "per_user.parquet": results.per_user}.get(name, results.completions)
    with pytest.raises(RunError, match=rf"{name} is not what the run wrote; recloop resume .* makes it again"):
        read()
