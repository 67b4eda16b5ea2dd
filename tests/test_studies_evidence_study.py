"""Studies become runs; runs become tables over all their users."""

import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from recloop.data.splits import split_users
from recloop.errors import DataError, SettingError
from recloop.evaluation.significance import holm
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.names import BEST_OF_N, NO_TEXT, RANDOM_LABELS, SHUFFLED, TRAINED, UNTUNED
from recloop.records import Group
from studies.evidence import bench
from studies.evidence.__main__ import main
from studies.evidence.bench import QUICK_STUDIES, QualityConfig, bench_quality
from studies.evidence.figures import Interval, Line, interval_plot, line_plot
from studies.evidence.labels import by_heading, table, verdict
from studies.evidence.numbers import (
    ContrastNumbers,
    PredictedNumbers,
    ReliabilityNumbers,
    RunNumbers,
    TableNumbers,
    VariantNumbers,
)
from studies.evidence.pooling import (
    PooledContrast,
    gap_closed,
    pooled_contrasts,
    pooled_predicted,
    pooled_reliability,
    pooled_variants,
)
from studies.evidence.statistics import moments_of
from studies.evidence.study import (
    MAX_MINUTES,
    changed_settings,
    chosen_runs,
    read_studies,
    study_runs,
)

ROOT = Path(__file__).resolve().parents[1]
MAIN = 'title = "Main"\nplace = "main"\nfolds = [1, 2]\nminutes = 7\n[run.dpo]\nlearning_rate = 1e-3\nbeta = 0.5\n'


def write_studies(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


def test_the_studies_of_the_repository_hold_together() -> None:
    for folder in (ROOT / "studies" / "quality", ROOT / QUICK_STUDIES):
        runs = study_runs(read_studies(folder))
        assert len({run.name for run in runs}) == len(runs)
        assert all(0 < run.minutes <= MAX_MINUTES for run in runs)
        by_name = {run.name: place for place, run in enumerate(runs)}
        for run in runs:
            for source in (run.reuses_from, run.transfer_from if "transfer" in run.extras else None):
                assert source is None or by_name[source] < by_name[run.name], f"{run.name} needs {source}"
    quick = study_runs(read_studies(ROOT / QUICK_STUDIES))
    assert sum(run.minutes for run in quick) <= 20
    assert {run.config.data.name for run in quick} == {"simulated"}


@pytest.mark.parametrize(("file", "study"), [("sentence.toml", "ml1m-sentence"), ("smollm2.toml", "amazon-smollm2")])
def test_the_settings_for_users_are_those_of_the_study(file: str, study: str) -> None:
    mine = tomllib.loads((ROOT / "studies" / file).read_text(encoding="utf-8"))
    found = [run for run in study_runs(read_studies(ROOT / "studies" / "quality")) if run.study == study]
    assert found
    for run in found:
        theirs = {"data": run.config.data, "seeds": run.config.seeds, "variants": run.config.variants}
        said = Dpo4RecConfig.model_validate(mine | theirs | {"split": mine["split"] | {"fold": run.fold}})
        assert said == run.config


def test_no_test_user_of_a_table_was_chosen_on() -> None:
    """Folds of one log are disjoint: choices and tables must have different ones, of equal size."""
    studies = read_studies(ROOT / "studies" / "quality")
    runs = [run for run in study_runs(studies) if run.config.data.name == "ml-1m"]
    assert {(run.config.data.users, run.config.data_seed) for run in runs} == {(None, 0)}
    choosing: set[int] = set()
    reporting: dict[int, set[int]] = {}
    for run in runs:
        groups = split_users(6040, run.config.split, run.config.data_seed)
        if studies[run.study].place == "choices":
            choosing |= {*groups[Group.VALID].tolist(), *groups[Group.TEST].tolist()}
        else:
            reporting[run.fold] = set(groups[Group.TEST].tolist())
    assert choosing
    assert not any(choosing & users for users in reporting.values())
    assert len(set().union(*reporting.values())) == sum(map(len, reporting.values()))


def test_folds_are_seeds_and_splits_or_simulated_logs(tmp_path: Path) -> None:
    split = MAIN.replace("minutes", 'folds_are = "splits"\nminutes')
    folder = write_studies(tmp_path / "s", a=MAIN, b=split)
    first, second, third, fourth = study_runs(read_studies(folder))
    assert [run.name for run in (first, second, third, fourth)] == ["a.fold1", "a.fold2", "b.fold1", "b.fold2"]
    assert (first.config.seeds, first.config.data_seed) == ((1,), 1)
    assert (second.config.seeds, second.config.data_seed) == ((2,), 2)
    assert [(run.config.split.fold, run.config.data_seed) for run in (third, fourth)] == [(1, 0), (2, 0)]


def test_settings_change_the_study_and_a_base_gives_it_its_own(tmp_path: Path) -> None:
    child = (
        'title = "C"\nplace = "ablations"\nfolds = [1]\nminutes = 3\nbase = "a"\nreuses_from = "a"\n'
        "[run.dpo]\nepochs = 2\n"
        '[settings.x]\ntitle = "X"\nminutes = 5\nrun.dpo.learning_rate = 1e-4\n'
    )
    runs = study_runs(read_studies(write_studies(tmp_path / "s", a=MAIN, c=child)))
    changed = runs[-1]
    assert (changed.name, changed.minutes, changed.reuses_from) == ("c.x.fold1", 5, "a.fold1")
    assert (changed.config.dpo.learning_rate, changed.config.dpo.beta, changed.config.dpo.epochs) == (1e-4, 0.5, 2)
    assert [run.name for run in chosen_runs(runs, ("a.*", "*x*"))] == ["a.fold1", "a.fold2", "c.x.fold1"]
    with pytest.raises(SettingError, match=r"no study run matches a\.fold9; the runs are a\.fold1"):
        chosen_runs(runs, ("a.fold9",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MAIN.replace("[run.dpo]", "[run]\nseeds = [4]\n[run.dpo]"), "sets seeds, which each run sets"),
        (MAIN.replace("[run.dpo]", "[run.split]\nfold = 3\n[run.dpo]"), r"sets split\.fold"),
        (MAIN.replace("learning_rate", "lr"), "are no valid run.*an old name; write dpo.learning_rate"),
        (MAIN.replace("= 7", "= 46"), "less than or equal to 45"),
        (MAIN.replace("minutes", 'base = "a"\nminutes'), "base of a must be another study"),
        (MAIN.replace("title", "titel"), "is no study"),
        (MAIN + '[settings.x]\ntitle = "X"\n', "needs one called base for its tables, got x"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=f"(?s){message}"):
        study_runs(read_studies(write_studies(tmp_path / "s", a=text)))
    with pytest.raises(SettingError, match="got none in"):
        read_studies(tmp_path)


def test_a_changed_setting_makes_a_run_missing_and_a_new_or_removed_one_does_not(tmp_path: Path) -> None:
    run = study_runs(read_studies(write_studies(tmp_path / "s", a=MAIN)))[0]
    stored: dict[str, Any] = run.config.model_dump(mode="json")
    assert changed_settings(stored, run) == []
    del stored["dpo"]["lora_rank"]  # a setting of a later version
    assert changed_settings(stored, run) == []
    stored["dpo"]["removed"] = 1
    assert changed_settings(stored, run) == []
    stored["dpo"]["learning_rate"] = 5e-4
    assert changed_settings(stored, run) == ["dpo.learning_rate: 0.0005, now 0.001"]


def test_a_page_of_nothing_says_so_everywhere(tmp_path: Path) -> None:
    config = QualityConfig(studies=ROOT / "studies" / "quality")
    said = bench_quality(config, tmp_path)
    page = (tmp_path / "results.md").read_text()
    for run in study_runs(read_studies(config.studies)):
        assert run.name in said
        assert f"`{run.name}`" in page
    sections = [part for part in page.split("\n## ")[1:] if not part.startswith("Study runs")]
    assert all("*not run yet*" in section for section in sections)
    assert list((tmp_path / "results").iterdir()) == []


def test_a_foreign_file_among_the_results_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.fold1.json").write_text('{"run": "a.fold1"}')
    with pytest.raises(DataError, match="remove it and do the run again"):
        bench_quality(QualityConfig(studies=write_studies(tmp_path / "s", a=MAIN)), tmp_path)


def test_the_command_line_reaches_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[QualityConfig, Path]] = []
    monkeypatch.setattr(bench, "bench_quality", lambda config, out, _: seen.append((config, out)) or "said")
    assert main(["--run", "a.fold1,b.*", "--data", "/d"]) == 0
    assert main(["--quick"]) == 0
    (asked, out), (small, small_out) = seen
    assert (asked.run, asked.data, out) == (("a.fold1", "b.*"), Path("/d"), Path("docs"))
    assert (small.studies, small.run, small_out) == (QUICK_STUDIES, ("*",), Path("runs/quality-quick"))


def table_of(values: dict[str, np.ndarray]) -> TableNumbers:
    names = list(values)
    pairs = [(TRAINED, name) for name in names if name != TRAINED] + [(BEST_OF_N, UNTUNED)]
    return TableNumbers(
        ranker="prm",
        group="test",
        num_users=len(values[TRAINED]),
        num_lists=len(values[TRAINED]),
        variants=tuple(VariantNumbers(name=n, values={"ndcg@5": moments_of(v)}) for n, v in values.items()),
        contrasts=tuple(
            ContrastNumbers(
                name=name,
                against=against,
                values={"ndcg@5": moments_of(values[name] - values[against])},
                p={},
                low={},
                high={},
            )
            for name, against in pairs
        ),
    )


@pytest.fixture
def folds() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(8)
    found = []
    for size in (60, 90):
        untuned = rng.normal(0.5, 0.1, size)
        best = untuned + np.abs(rng.normal(0.06, 0.02, size))
        trained = untuned + 0.5 * (best - untuned) + rng.normal(0, 0.01, size)
        found.append({UNTUNED: untuned, TRAINED: trained, SHUFFLED: untuned - 0.001, BEST_OF_N: best})
    return found


def test_tables_of_folds_are_the_table_of_all_their_users(folds: list[dict[str, np.ndarray]]) -> None:
    tables = [table_of(fold) for fold in folds]
    everyone = {name: np.concatenate([fold[name] for fold in folds]) for name in folds[0]}
    for name, pooled in pooled_variants(tables, "ndcg@5").items():
        assert pooled.values.mean == pytest.approx(everyone[name].mean())
        assert pooled.by_fold == tuple(pytest.approx(fold[name].mean()) for fold in folds)
    found = pooled_contrasts(tables, "ndcg@5", TRAINED, (UNTUNED, NO_TEXT, SHUFFLED))
    assert [contrast.against for contrast in found] == [UNTUNED, SHUFFLED]  # what no fold has is left out
    p = np.array([moments_of(everyone[TRAINED] - everyone[baseline]).p for baseline in (UNTUNED, SHUFFLED)])
    assert [contrast.p_holm for contrast in found] == pytest.approx(holm(p).tolist())


def test_the_gap_closed_is_the_ratio_of_means(folds: list[dict[str, np.ndarray]]) -> None:
    closed = gap_closed([table_of(fold) for fold in folds], "ndcg@5")
    everyone = {name: np.concatenate([fold[name] for fold in folds]) for name in folds[0]}
    top, bottom = everyone[TRAINED] - everyone[UNTUNED], everyone[BEST_OF_N] - everyone[UNTUNED]
    assert closed is not None
    assert closed.share == pytest.approx(top.mean() / bottom.mean())
    assert closed.interval is not None
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(top), (4000, len(top)))
    by_bootstrap = np.quantile(top[drawn].mean(axis=1) / bottom[drawn].mean(axis=1), [0.025, 0.975])
    assert closed.interval == pytest.approx(by_bootstrap.tolist(), abs=0.01)
    above = moments_of(top - bottom / 2)
    assert (closed.above_half.mean, closed.above_half.variance) == pytest.approx((above.mean, above.variance))
    worse = [{**fold, BEST_OF_N: fold[UNTUNED]} for fold in folds]
    assert gap_closed([table_of(fold) for fold in worse], "ndcg@5") is None


def test_predicted_rewards_are_pooled_by_users() -> None:
    def numbers(explained: float, gained: list[float]) -> RunNumbers:
        values = moments_of(np.array(gained))
        reached = {TRAINED: values} | ({} if len(gained) == 1 else {RANDOM_LABELS: values})
        one = PredictedNumbers(metric="loglik", explained=explained, gained=values, reached=reached)
        return RunNumbers.model_construct(predicted=(one,))

    older = RunNumbers.model_construct(predicted=())
    pooled = pooled_predicted([numbers(0.1, [1.0, 2.0, 3.0]), older, numbers(0.5, [7.0])])
    assert [one.metric for one in pooled] == ["loglik"]
    assert pooled[0].explained == pytest.approx((3 * 0.1 + 0.5) / 4)
    assert pooled[0].gained == moments_of(np.array([1.0, 2.0, 3.0, 7.0]))
    assert pooled[0].reached == {TRAINED: pooled[0].gained}  # a variant that a fold lacks is left out


def test_reliabilities_weigh_by_users_and_their_variances_add() -> None:
    def numbers(value: float, half: float, users: int) -> RunNumbers:
        one = ReliabilityNumbers(
            metric="loglik",
            num_lists=4,
            reliability=value,
            low=value - half,
            high=value + half,
            num_users=users,
        )
        return RunNumbers.model_construct(reliability=(one,))

    pooled = pooled_reliability([numbers(0.2, 0.1, 100), numbers(0.5, 0.2, 300)])[0]
    assert pooled.reliability == pytest.approx((100 * 0.2 + 300 * 0.5) / 400)
    half = np.sqrt((0.25 * 0.1) ** 2 + (0.75 * 0.2) ** 2)
    assert (pooled.high - pooled.low) / 2 == pytest.approx(half)
    assert pooled.num_users == 400


def test_a_claim_needs_a_small_p_every_fold_and_three_of_them(folds: list[dict[str, np.ndarray]]) -> None:
    two = pooled_contrasts([table_of(fold) for fold in folds], "ndcg@5", TRAINED, (UNTUNED,))[0]
    assert verdict(two, 0.01, 3) == "2 of 3 folds: open, so far yes"
    assert verdict(two, 0.01, 2) == "**holds**"
    mixed = [*folds, {name: values.copy() for name, values in folds[0].items()}]
    mixed[2][TRAINED] = mixed[2][UNTUNED] - 1e-4
    three = pooled_contrasts([table_of(fold) for fold in mixed], "ndcg@5", TRAINED, (UNTUNED,))[0]
    assert three.p_holm < 0.01
    assert verdict(three, 0.01, 3) == "**does not hold**"  # one fold below 0
    unsure = PooledContrast(TRAINED, UNTUNED, two.difference, 0.2)
    assert verdict(unsure, 0.01, 2) == "**does not hold**"
    assert verdict(None, 0.01, 3) == "*not run yet*"


@pytest.mark.slow
def test_figures_are_whole_svg_files_with_text_escaped() -> None:
    intervals = [
        Interval("a < b & c", 0.01, -0.01, 0.03, (0.02, 0.0)),
        Interval("d", -0.02, -0.03, -0.01, (-0.02,)),
    ]
    lines = [Line("ndcg@5", (2.0, 4.0), (0.1, 0.4)), Line("loglik", (2.0, 4.0), (0.2, 0.5))]
    for draw in (lambda: interval_plot(intervals, "x"), lambda: line_plot(lines, "Reliability", "lists", "r")):
        svg = draw()
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert draw() == svg
    texts = [node.text for node in ElementTree.fromstring(interval_plot(intervals, "x")).iter()]
    assert "a < b & c" in texts


def test_tables_and_their_order() -> None:
    assert table(("a", "b"), [["1", "2"]]) == ["| a | b |", "| --- | ---: |", "| 1 | 2 |", ""]
    with pytest.raises(SettingError, match="must have 2 cells"):
        table(("a", "b"), [["1"]])
    names = {"best_of_n": 0, "transferred": 0, "trained": 0, "trained_r1": 0, "shuffled": 0, "no_text": 0}
    order = [name for name, _ in by_heading(names)]
    assert order == ["no_text", "shuffled", "trained", "trained_r1", "transferred", "best_of_n"]
