"""From studies to the page, on very small simulated logs."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recloop.cli import main
from recloop.evaluation.per_user_scores import read_variant_scores
from recloop.methods.dpo4rec.names import ID_HISTORY, TRAINED, TRAINED_BESIDE_IDS, UNTUNED
from recloop.prompts.text_truth import SAYS
from recloop.records import Group, Lists
from studies.evidence import bench
from studies.evidence.bench import QualityConfig, bench_quality
from studies.evidence.labels import percent, with_interval
from studies.evidence.numbers import RunNumbers, read_numbers, write_numbers
from studies.evidence.pooling import pooled_predicted
from studies.evidence.reward_quality import MIN_USERS, REWARD_KINDS, first_lists
from studies.evidence.study import read_studies, study_runs
from studies.evidence.tables import CHECKED
from test_methods_dpo4rec_recipe import write_lm

pytestmark = pytest.mark.slow

RUN = """
[run]
rounds = 1
variants = "core"
backbones = ["prm"]
[run.data.simulated]
num_users = 60
num_items = 150
num_interactions = 24
[run.split]
train = 0.4
reward = 0.3
valid = 0.1
test = 0.2
[run.completions]
reward = 3
test = 2
[run.reranker]
max_epochs = 1
min_epoch_steps = 2
[run.statistics]
num_flips = 400
num_resamples = 100
[run.prompt]
max_prompt_tokens = 300
[run.lm]
name = "transformers:{lm}"
max_tokens = 24
[run.encoder]
name = "static"
[run.dpo]
max_pairs = 8
"""
STUDIES = {
    "first": ('title = "First log"\nplace = "main"\nfolds = [1, 2]\nminutes = 7\nextras = ["checked"]\n' + RUN),
    "pick": (
        'title = "Picked"\nplace = "choices"\nfolds = [0]\nminutes = 3\nbase = "first"\n'
        'reuses_from = "pick.base"\n'
        '[settings.base]\ntitle = "as it is"\nkind = "base"\n'
        '[settings.loglik]\ntitle = "log-likelihood"\nkind = "reward"\nrun.reward.metric = "loglik"\n'
    ),
    "other": (
        'title = "Other log"\nplace = "external"\nfolds = [1]\nminutes = 5\nbase = "first"\n'
        'transfer_from = "first"\n[run.data.simulated]\nsignal = 0.5\n'
        '[settings.base]\ntitle = "both"\nextras = ["transfer"]\n'
    ),
    "parts": (
        'title = "Changed"\nplace = "ablations"\nfolds = [1]\nminutes = 4\nbase = "first"\n'
        'reuses_from = "first"\n[settings.leak]\ntitle = "leaky reward model"\nextras = ["leakage"]\n'
        '[settings.mlp]\ntitle = "MLP"\nrun.reranker.adaptor = "mlp"\n'
    ),
    "windows": (
        'title = "Windows"\nplace = "short"\nclaims = false\nfolds = [1]\nminutes = 3\nbase = "first"\n'
        '[run]\nvariants = "fitted"\n'
        '[settings.window3]\ntitle = "3"\nrun.protocol.window_max = 3\n'
        '[settings.window5]\ntitle = "5"\nrun.protocol.window_max = 5\n'
    ),
}
DONE = (
    "first.fold1",
    "first.fold2",
    "pick.base.fold0",
    "other.base.fold1",
    "parts.leak.fold1",
    "windows.window3.fold1",
)
MISSING = ("pick.loglik.fold0", "parts.mlp.fold1", "windows.window5.fold1")


@dataclass(frozen=True)
class Bench:
    config: QualityConfig
    out: Path
    said: str

    def numbers(self, name: str) -> RunNumbers:
        return read_numbers(self.out / "results" / f"{name}.json")

    @property
    def page(self) -> str:
        return (self.out / "results.md").read_text(encoding="utf-8")

    def section(self, title: str) -> str:
        return self.page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("quality")
    lm = write_lm(folder / "lm")
    (folder / "studies").mkdir()
    for name, text in STUDIES.items():
        (folder / "studies" / f"{name}.toml").write_text(text.replace("{lm}", str(lm)))
    config = QualityConfig(studies=folder / "studies", runs=folder / "runs", run=DONE)
    said = bench_quality(config, folder / "docs")
    return Bench(config.model_copy(update={"run": ()}), folder / "docs", said)


def test_what_is_missing_is_named_with_its_minutes(done: Bench) -> None:
    assert "6 of 9 study runs are done" in done.said
    missing = done.said.split("missing", 1)[1]
    assert [name for name in MISSING if name not in missing] == []
    assert [name for name in DONE if name in missing] == []
    assert re.search(r"3 +pick\.loglik\.fold0 +not run yet", missing)
    assert "not run yet" in done.section("Ablations")
    assert "not run yet" in done.section("Choices, made on valid users")


def test_the_bands_of_a_feature_hold_all_users_and_add_up_to_the_difference(done: Bench) -> None:
    tables = [done.numbers(f"first.fold{fold}").table("prm", "test") for fold in (1, 2)]
    checked = 0
    for table in filter(None, tables):
        whole = table.contrast(TRAINED, UNTUNED)
        assert whole is not None
        for by in {one.by for one in table.slices}:
            parts = [one.values["ndcg@5"] for one in table.slices if (one.name, one.by) == (TRAINED, by)]
            in_bands = sum(part.num_users for part in parts)
            assert table.num_users - 3 <= in_bands <= table.num_users  # a band of one user is left out
            assert min(part.num_users for part in parts) > 1
            if in_bands == table.num_users:
                added = sum(part.num_users * part.mean for part in parts) / table.num_users
                assert added == pytest.approx(whole.values["ndcg@5"].mean, abs=1e-10)  # as stored
                checked += 1
    assert checked
    said = done.section("Main tables")
    assert "| difference | what the user's trained texts say | users | mean ndcg@5 |" in said
    assert re.search(rf"\| Trained minus Untuned \(KAR\) \| ({'|'.join(SAYS)}) \| \d+ \|", said)
    assert re.search(r"\| Trained minus Untuned \(KAR\) \| 11 to 30 \| \d+ \|", done.section("Main tables"))


def test_merging_twice_changes_nothing(done: Bench) -> None:
    def state() -> dict[str, bytes]:
        return {str(p.relative_to(done.out)): p.read_bytes() for p in done.out.rglob("*") if p.is_file()}

    before = state()
    bench_quality(done.config, done.out)
    assert state() == before
    assert {name for name in before if name.endswith(".svg")} >= {
        "results/first-prm.svg",
        "results/parts.svg",
        "results/first-reliability.svg",
    }


def test_the_numbers_are_those_of_the_run_folder(done: Bench) -> None:
    runs = done.config.runs / "first.fold1"
    table = done.numbers("first.fold1").table("prm")
    assert table is not None
    values = {}
    for name in (UNTUNED, TRAINED):
        stored = read_variant_scores(runs / "reranker" / f"{name}.prm.s1" / "rows.parquet")
        values[name] = next(one for one in stored if one.name == name).of("ndcg@5")[0]
    difference = values[TRAINED] - values[UNTUNED]
    contrast = table.contrast(TRAINED, UNTUNED)
    assert contrast is not None
    assert contrast.values["ndcg@5"].mean == pytest.approx(difference.mean(), abs=1e-9)
    assert contrast.values["ndcg@5"].variance == pytest.approx(difference.var(ddof=1), rel=1e-8)
    results = json.loads((runs / "results.json").read_text())["tables"][0]["metrics"][0]
    tested = next(c for c in results["contrasts"] if (c["name"], c["against"]) == (TRAINED, UNTUNED))
    assert contrast.p["ndcg@5"] == pytest.approx(tested["p"], abs=0.1)  # other flips
    assert contrast.values["ndcg@5"].mean == pytest.approx(tested["difference"]["value"])


def test_what_a_prompt_can_teach_is_on_the_page(done: Bench) -> None:
    told = {one.metric: one for one in pooled_predicted([done.numbers("first.fold1"), done.numbers("first.fold2")])}
    assert tuple(told) == REWARD_KINDS
    assert all(one.gained.num_users >= 2 * MIN_USERS and one.explained < 1 for one in told.values())
    section = done.section("How much of the reward can a prompt teach?")
    assert f"| {percent(told['loglik'].explained)} | {with_interval(told['loglik'].gained)} |" in section


def test_a_setting_is_measured_by_the_reward_of_its_source_run(done: Bench) -> None:
    changed, source = done.numbers("parts.leak.fold1"), done.numbers("first.fold1")
    assert changed.reused_from == source.run
    own = next(one.reached for one in source.predicted if one.reached)
    assert TRAINED in own
    trained = {name: value for name, value in own.items() if name != CHECKED}
    assert changed.predicted_by_source == trained  # it has the source run's trained model
    assert not source.predicted_by_source
    assert not done.numbers("pick.base.fold0").predicted_by_source  # it would be its own source


def test_texts_that_were_checked_are_a_variant(done: Bench) -> None:
    for fold in (1, 2):
        numbers, folder = done.numbers(f"first.fold{fold}"), done.config.runs / f"first.fold{fold}"
        texts = {one.variant: one.num_completions for one in numbers.writing}
        assert texts[CHECKED] == texts[TRAINED]
        trained, checked = (
            pl.read_parquet(folder / "steps" / f"sample.{name}.s{fold}" / "test.parquet") for name in (TRAINED, CHECKED)
        )
        assert not trained["is_finished"].all()  # this language model says nonsense, which names nothing
        assert checked.filter(pl.col("text") != "")["is_finished"].all()  # but what is cut off is refused
        table = numbers.table("prm", "test")
        assert table is not None
        assert table.contrast(CHECKED, UNTUNED) is not None
        assert table.contrast(CHECKED, TRAINED) is not None
    told = done.section("What was to be shown").partition("Is a gain one of untruth?")[2]
    assert sum(line.startswith("| First log") for line in told.splitlines()) == 1


def test_a_run_can_be_reported_after_its_extras(done: Bench) -> None:
    folder = done.config.runs / "first.fold1"
    report = folder / "report.html"
    before = report.read_text()
    assert main(["report", str(folder)]) == 0
    assert len(report.read_text()) > 0.9 * len(before)


def test_a_number_of_the_page_is_that_of_the_files(done: Bench) -> None:
    runs = [done.numbers(name) for name in ("first.fold1", "first.fold2")]
    parts = []
    for run in runs:
        table = run.table("prm")
        assert table is not None
        contrast = table.contrast(TRAINED, UNTUNED)
        assert contrast is not None
        parts.append(contrast.values["ndcg@5"])
    num = sum(part.num_users for part in parts)
    mean = sum(part.num_users * part.mean for part in parts) / num
    told = f"{mean:+.4f}".replace("-", "−")
    by_fold = " ".join(f"{part.mean:+.4f}".replace("-", "−") for part in parts)
    line = next(row for row in done.section("Main tables").splitlines() if "Trained minus Untuned (KAR)" in row)
    assert told in line
    assert by_fold in line
    assert "2 of 3 folds, so it shows nothing yet" in done.section("What was to be shown")
    glance = next(row for row in done.section("At a glance").splitlines() if row.startswith("| First log"))
    assert told in glance
    assert "2 of 3 folds: open" in glance


def test_short_histories_have_text_beside_the_ids(done: Bench) -> None:
    table = done.numbers("windows.window3.fold1").table("prm")
    assert table is not None
    contrast = table.contrast(TRAINED_BESIDE_IDS, ID_HISTORY)
    assert contrast is not None
    section = done.section("Short histories: text beside item ids")
    row = next(
        line for line in section.splitlines() if line.startswith("| 3 | Trained and ID history minus ID history")
    )
    assert with_interval(contrast.values["ndcg@5"]) in row
    assert f"| 3 | {table.num_users} |" in section
    assert "windows.window5.fold1" in section


def test_no_user_and_no_text_of_a_log_is_in_a_file(done: Bench) -> None:
    """There may be three examples of a simulated log, and no text of any other log."""
    numbers = done.numbers("first.fold1")
    assert 0 < len(numbers.examples) <= 3
    config = dict(numbers.config)
    config["data"] = dict(config["data"]) | {"name": "ml-1m"}
    with pytest.raises(ValueError, match="simulated data only"):
        RunNumbers.model_validate(numbers.model_dump() | {"config": config})
    bare = numbers.model_dump(mode="json", exclude={"examples", "config", "versions"})

    def longest(value: object) -> int:
        if isinstance(value, dict):
            return max((longest(inner) for inner in value.values()), default=0)
        if isinstance(value, list):
            inner_most = max((longest(inner) for inner in value), default=0)
            return max(inner_most, len(value) if value and isinstance(value[0], float | int) else 0)
        return 0

    assert longest(bare) < 10  # no list of numbers as long as there are users
    assert len(json.dumps(bare)) < 100_000


def test_a_run_that_is_done_is_not_repeated(done: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "do_run", lambda *_: pytest.fail("was repeated"))
    bench_quality(done.config.model_copy(update={"run": ("first.*",)}), done.out)


def test_a_resumed_run_gives_the_same_file(done: Bench, tmp_path: Path) -> None:
    """The run folder is finished, so only its numbers are measured again."""
    config = done.config.model_copy(update={"run": ("parts.leak.fold1", "other.base.fold1")})
    bench_quality(config, tmp_path)
    for name in config.run:
        again, before = (folder / "results" / f"{name}.json" for folder in (tmp_path, done.out))
        assert again.read_text() == before.read_text()


def test_a_run_from_scratch_gives_the_same_numbers_but_for_time(done: Bench, tmp_path: Path) -> None:
    config = done.config.model_copy(update={"run": ("first.fold2",), "runs": tmp_path / "runs"})
    bench_quality(config, tmp_path)
    again = read_numbers(tmp_path / "results" / "first.fold2.json")
    same, before = (numbers.model_dump(exclude={"costs"}) for numbers in (again, done.numbers("first.fold2")))
    assert same == before


def test_another_bundled_language_model_makes_a_run_missing(
    done: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = next(one for one in study_runs(read_studies(done.config.studies)) if one.name == "first.fold1")
    lm = run.config.lm.model_copy(update={"name": "bundled"})
    bundled = replace(run, config=run.config.model_copy(update={"lm": lm}))
    numbers = done.numbers("first.fold1").model_copy(update={"config": bundled.config_json})
    write_numbers(tmp_path / "first.fold1.json", numbers)
    assert bench.state_of(bundled, tmp_path).why == "run with another bundled language model"
    monkeypatch.setattr(bench, "weights_hash", lambda _: numbers.lm_digest)
    assert bench.state_of(bundled, tmp_path).numbers == numbers


def test_other_settings_make_a_run_missing(done: Bench, tmp_path: Path) -> None:
    changed = tmp_path / "studies"
    changed.mkdir()
    for file in done.config.studies.glob("*.toml"):
        text = file.read_text().replace("num_interactions = 24", "num_interactions = 26")
        (changed / file.name).write_text(text)
    said = bench_quality(done.config.model_copy(update={"studies": changed}), done.out)
    assert "0 of 9 study runs are done" in said
    assert "run with other settings (data.simulated.num_interactions: 24, now 26)" in said
    bench_quality(done.config, done.out)


def test_a_transferred_language_model_is_read_on_the_users_of_the_run(done: Bench) -> None:
    table = done.numbers("other.base.fold1").table("prm")
    assert table is not None
    assert table.contrast("transferred", UNTUNED) is not None
    assert "Trained on another log, transferred minus Untuned (KAR)" in done.section("Another log")


def test_a_leak_on_purpose_is_measured_on_the_same_reward_users(done: Bench) -> None:
    numbers = done.numbers("parts.leak.fold1")
    assert numbers.leakage is not None
    assert numbers.leakage.claimed.num_users == numbers.rewards[0].best_less_mean.num_users
    # Rewards of this study are not cross-fitted, so these are the honest reward models' too.
    assert numbers.leakage.honest_best_less_mean.mean == pytest.approx(numbers.rewards[0].best_less_mean.mean)
    assert numbers.reused_from == "first.fold1"
    assert "claimed" in done.section("What a leak would have claimed")


def test_first_lists_are_those_of_users_with_enough_that_have_a_value() -> None:
    user_B = np.array([1, 1, 1, 4, 4, 7])
    ones = np.ones((6, 2), dtype=np.int64)
    lists = Lists(Group.REWARD, user_B, ones, ones.astype(np.float32), ones.astype(bool))
    has_value_B = np.array([True, False, True, True, True, True])
    assert first_lists(lists, has_value_B, 2).tolist() == [0, 2, 3, 4]
    assert first_lists(lists, has_value_B, None).tolist() == [0, 2, 3, 4]
    assert first_lists(lists, np.full(6, True), 2).tolist() == [0, 1, 3, 4]
    assert first_lists(lists, np.full(6, True), None).tolist() == [0, 1, 2, 3, 4]
    assert first_lists(lists, np.full(6, True), 3).tolist() == [0, 1, 2]
