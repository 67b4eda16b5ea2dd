"""The quality bench from studies to page, on very small simulated logs."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from test_methods_dpo4rec_recipe import write_lm

from recloop.evaluation.per_user_scores import read_variant_scores
from recloop.methods.dpo4rec.evaluate import TRAINED, UNTUNED
from recloop.records import Group, Lists
from studies.evidence import bench
from studies.evidence.bench import QualityConfig, bench_quality
from studies.evidence.numbers import UnitResult, read_unit, write_unit
from studies.evidence.pooling import pooled_predicted
from studies.evidence.study import read_studies, units_of
from studies.evidence.wording import percent, with_interval
from studies.evidence.worth import MIN_USERS, REWARD_KINDS, first_lists

pytestmark = pytest.mark.slow

RUN = """
[run]
rounds = 1
rows = "core"
backbones = ["prm"]
[run.data.simulated]
num_users = 60
num_items = 150
num_interactions = 24
[run.split]
train = 0.4
feedback = 0.3
valid = 0.1
test = 0.2
[run.completions]
feedback = 3
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
    "first": ('title = "First log"\nplace = "main"\npanels = [1, 2]\nminutes = 7\n' + RUN),
    "pick": (
        'title = "Picked"\nplace = "choices"\npanels = [0]\nminutes = 3\nbase = "first"\n'
        'reuses_from = "pick.base"\n'
        '[variants.base]\ntitle = "as it is"\nkind = "base"\n'
        '[variants.loglik]\ntitle = "log-likelihood"\nkind = "reward"\nrun.reward.metric = "loglik"\n'
    ),
    "other": (
        'title = "Other log"\nplace = "external"\npanels = [1]\nminutes = 5\nbase = "first"\n'
        'transfer_from = "first"\n[run.data.simulated]\nsignal = 0.5\n'
        '[variants.base]\ntitle = "both"\nextras = ["transfer"]\n'
    ),
    "parts": (
        'title = "Changed"\nplace = "ablations"\npanels = [1]\nminutes = 4\nbase = "first"\n'
        'reuses_from = "first"\n[variants.leak]\ntitle = "leaky reward model"\nextras = ["leakage"]\n'
        '[variants.mlp]\ntitle = "MLP"\nrun.reranker.adaptor = "mlp"\n'
    ),
}
DONE = ("first.p1", "first.p2", "pick.base.p0", "other.base.p1", "parts.leak.p1")
MISSING = ("pick.loglik.p0", "parts.mlp.p1")


@dataclass(frozen=True)
class Bench:
    config: QualityConfig
    out: Path
    said: str

    def unit(self, name: str) -> UnitResult:
        return read_unit(self.out / "results" / f"{name}.json")

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
    assert "5 of 7 units are there" in done.said
    missing = done.said.split("missing", 1)[1]
    assert [name for name in MISSING if name not in missing] == []
    assert [name for name in DONE if name in missing] == []
    assert re.search(r"3 +pick\.loglik\.p0 +not run yet", missing)
    assert "not run yet" in done.section("Ablations")
    assert "not run yet" in done.section("Choices, made on valid users")


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


def test_a_units_numbers_are_those_of_its_run(done: Bench) -> None:
    runs = done.config.runs / "first.p1"
    table = done.unit("first.p1").table("prm")
    assert table is not None
    values = {}
    for row in (UNTUNED, TRAINED):
        stored = read_variant_scores(runs / "reranker" / f"{row}.prm.s1" / "rows.parquet")
        values[row] = next(one for one in stored if one.name == row).of("ndcg@5")[0]
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
    told = {one.metric: one for one in pooled_predicted([done.unit("first.p1"), done.unit("first.p2")])}
    assert tuple(told) == REWARD_KINDS
    assert all(one.gained.num_users >= 2 * MIN_USERS and one.explained < 1 for one in told.values())
    section = done.section("How much of the reward can a prompt teach?")
    assert f"| {percent(told['loglik'].explained)} | {with_interval(told['loglik'].gained)} |" in section


def test_an_variant_is_measured_by_the_reward_of_the_run_it_takes_from(done: Bench) -> None:
    variant, source = done.unit("parts.leak.p1"), done.unit("first.p1")
    assert variant.reused_from == source.unit
    own = next(one.reached for one in source.predicted if one.reached)
    assert TRAINED in own
    assert variant.predicted_by_source == own  # the variant has the source run's trained model
    assert not source.predicted_by_source
    assert not done.unit("pick.base.p0").predicted_by_source  # whom it names is itself


def test_a_number_of_the_page_is_that_of_the_files(done: Bench) -> None:
    units = [done.unit(name) for name in ("first.p1", "first.p2")]
    parts = []
    for unit in units:
        table = unit.table("prm")
        assert table is not None
        contrast = table.contrast(TRAINED, UNTUNED)
        assert contrast is not None
        parts.append(contrast.values["ndcg@5"])
    num = sum(part.num_users for part in parts)
    mean = sum(part.num_users * part.mean for part in parts) / num
    told = f"{mean:+.4f}".replace("-", "−")
    by_panel = " ".join(f"{part.mean:+.4f}".replace("-", "−") for part in parts)
    line = next(row for row in done.section("Main tables").splitlines() if "Trained less Untuned (KAR)" in row)
    assert told in line
    assert by_panel in line
    assert "2 of 3 panels, so it shows nothing yet" in done.section("What was to be shown")


def test_no_user_and_no_text_of_a_log_is_in_a_file(done: Bench) -> None:
    """Of a simulated log, three examples may stand there; of any other log not one text."""
    unit = done.unit("first.p1")
    assert 0 < len(unit.examples) <= 3
    config = dict(unit.config)
    config["data"] = dict(config["data"]) | {"name": "ml-1m"}
    with pytest.raises(ValueError, match="simulated data only"):
        UnitResult.model_validate(unit.model_dump() | {"config": config})
    bare = unit.model_dump(mode="json", exclude={"examples", "config", "versions"})

    def longest(value: object) -> int:
        if isinstance(value, dict):
            return max((longest(inner) for inner in value.values()), default=0)
        if isinstance(value, list):
            inner_most = max((longest(inner) for inner in value), default=0)
            return max(inner_most, len(value) if value and isinstance(value[0], float | int) else 0)
        return 0

    assert longest(bare) < 10  # no list of numbers as long as there are users
    assert len(json.dumps(bare)) < 100_000


def test_a_unit_that_is_done_is_not_done_again(done: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "do_unit", lambda *_: pytest.fail("was done again"))
    bench_quality(done.config.model_copy(update={"run": ("first.*",)}), done.out)


def test_a_unit_gone_on_with_gives_the_same_file(done: Bench, tmp_path: Path) -> None:
    """The run folder is finished; its numbers are measured again and come out equal."""
    config = done.config.model_copy(update={"run": ("parts.leak.p1", "other.base.p1")})
    bench_quality(config, tmp_path)
    for name in config.run:
        again, before = (folder / "results" / f"{name}.json" for folder in (tmp_path, done.out))
        assert again.read_text() == before.read_text()


def test_a_unit_from_scratch_gives_the_same_numbers_but_for_time(done: Bench, tmp_path: Path) -> None:
    config = done.config.model_copy(update={"run": ("first.p2",), "runs": tmp_path / "runs"})
    bench_quality(config, tmp_path)
    again = read_unit(tmp_path / "results" / "first.p2.json")
    same, before = (unit.model_dump(exclude={"costs"}) for unit in (again, done.unit("first.p2")))
    assert same == before


def test_another_embedded_language_model_makes_a_unit_missing(
    done: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unit = next(u for u in units_of(read_studies(done.config.studies)) if u.name == "first.p1")
    lm = unit.config.lm.model_copy(update={"name": "bundled"})
    bundled = replace(unit, config=unit.config.model_copy(update={"lm": lm}))
    result = done.unit("first.p1").model_copy(update={"config": bundled.settings})
    write_unit(tmp_path / "first.p1.json", result)
    assert bench.state_of(bundled, tmp_path).why == "run with another bundled language model"
    monkeypatch.setattr(bench, "weights_hash", lambda _: result.lm_digest)
    assert bench.state_of(bundled, tmp_path).result == result


def test_other_settings_make_a_unit_missing(done: Bench, tmp_path: Path) -> None:
    changed = tmp_path / "studies"
    changed.mkdir()
    for file in done.config.studies.glob("*.toml"):
        text = file.read_text().replace("num_interactions = 24", "num_interactions = 26")
        (changed / file.name).write_text(text)
    said = bench_quality(done.config.model_copy(update={"studies": changed}), done.out)
    assert "0 of 7 units are there" in said
    assert "run with other settings (data.simulated.num_interactions: 24, now 26)" in said
    bench_quality(done.config, done.out)


def test_a_transferred_language_model_is_read_on_the_users_of_the_run(done: Bench) -> None:
    table = done.unit("other.base.p1").table("prm")
    assert table is not None
    assert table.contrast("transferred", UNTUNED) is not None
    assert "Trained on another log, transferred less Untuned (KAR)" in done.section("Another log")


def test_a_leak_on_purpose_is_measured_on_the_same_reward_users(done: Bench) -> None:
    unit = done.unit("parts.leak.p1")
    assert unit.leakage is not None
    assert unit.leakage.claimed.num_users == unit.rewards[0].best_less_mean.num_users
    # Rewards of this study are as earned, so the honest reward models' stand there too.
    assert unit.leakage.honest_best_less_mean.mean == pytest.approx(unit.rewards[0].best_less_mean.mean)
    assert unit.reused_from == "first.p1"
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
