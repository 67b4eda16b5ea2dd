"""Studies become units; units become tables over all their users."""

import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from recloop import cli
from recloop.data.splits import split_users
from recloop.errors import DataError, SettingError
from recloop.evaluation.report_sections import Chart, Curve
from recloop.evaluation.significance import holm
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.evaluate import BEST_OF_N, NO_TEXT, RANDOM_LABELS, SHUFFLED, TRAINED, UNTUNED
from recloop.records import Group
from studies.evidence import bench
from studies.evidence.bench import QUICK_STUDIES, QualityConfig, bench_quality
from studies.evidence.figures import Bar, interval_plot, lines
from studies.evidence.moments import moments_of
from studies.evidence.numbers import (
    ContrastNumbers,
    PredictedNumbers,
    ReliabilityNumbers,
    RowNumbers,
    TableNumbers,
    UnitResult,
)
from studies.evidence.pooling import (
    PooledContrast,
    gap_closed,
    pooled_contrasts,
    pooled_predicted,
    pooled_reliability,
    pooled_rows,
)
from studies.evidence.study import (
    MAX_MINUTES,
    changed_settings,
    chosen_units,
    read_studies,
    units_of,
)
from studies.evidence.wording import by_heading, table, verdict

ROOT = Path(__file__).resolve().parents[1]
MAIN = 'title = "Main"\nplace = "main"\npanels = [1, 2]\nminutes = 7\n[run.dpo]\nlr = 1e-3\nbeta = 0.5\n'


def write_studies(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


def test_the_studies_of_the_repository_hold_together() -> None:
    for folder in (ROOT / "studies" / "quality", ROOT / QUICK_STUDIES):
        units = units_of(read_studies(folder))
        assert len({unit.name for unit in units}) == len(units)
        assert all(0 < unit.minutes <= MAX_MINUTES for unit in units)
        by_name = {unit.name: place for place, unit in enumerate(units)}
        for unit in units:
            for source in (unit.reuses_from, unit.transfer_from if "transfer" in unit.extras else None):
                assert source is None or by_name[source] < by_name[unit.name], f"{unit.name} needs {source}"
    quick = units_of(read_studies(ROOT / QUICK_STUDIES))
    assert sum(unit.minutes for unit in quick) <= 20
    assert {unit.config.data.name for unit in quick} == {"simulated"}


def test_the_settings_for_users_are_those_of_the_main_study() -> None:
    mine = tomllib.loads((ROOT / "studies" / "sentence.toml").read_text(encoding="utf-8"))
    units = units_of(read_studies(ROOT / "studies" / "quality"))
    for unit in units:
        if unit.study == "ml1m-sentence":
            theirs = {"data": unit.config.data, "seeds": unit.config.seeds}
            said = Dpo4RecConfig.model_validate(mine | theirs | {"split": mine["split"] | {"fold": unit.panel}})
            assert said == unit.config


def test_no_panel_that_reports_was_chosen_on() -> None:
    """Panels of one log are disjoint: choices and tables must name different ones, of equal size."""
    studies = read_studies(ROOT / "studies" / "quality")
    units = [unit for unit in units_of(studies) if unit.config.data.name == "ml-1m"]
    assert {(unit.config.data.users, unit.config.data_seed) for unit in units} == {(None, 0)}
    choosing: set[int] = set()
    reporting: dict[int, set[int]] = {}
    for unit in units:
        groups = split_users(6040, unit.config.split, unit.config.data_seed)
        if studies[unit.study].place == "choices":
            choosing |= {*groups[Group.VALID].tolist(), *groups[Group.TEST].tolist()}
        else:
            reporting[unit.panel] = set(groups[Group.TEST].tolist())
    assert choosing
    assert not any(choosing & users for users in reporting.values())
    assert len(set().union(*reporting.values())) == sum(map(len, reporting.values()))


def test_panels_are_seeds_and_turns_or_worlds(tmp_path: Path) -> None:
    turned = MAIN.replace("minutes", 'panels_are = "turns"\nminutes')
    folder = write_studies(tmp_path / "s", a=MAIN, b=turned)
    first, second, third, fourth = units_of(read_studies(folder))
    assert [unit.name for unit in (first, second, third, fourth)] == ["a.p1", "a.p2", "b.p1", "b.p2"]
    assert (first.config.seeds, first.config.data_seed) == ((1,), 1)
    assert (second.config.seeds, second.config.data_seed) == ((2,), 2)
    assert [(u.config.split.fold, u.config.data_seed) for u in (third, fourth)] == [(1, 0), (2, 0)]


def test_variants_change_the_study_and_a_base_gives_it_its_settings(tmp_path: Path) -> None:
    child = (
        'title = "C"\nplace = "ablations"\npanels = [1]\nminutes = 3\nbase = "a"\ntakes_from = "a"\n'
        "[run.dpo]\nepochs = 2\n"
        '[variants.x]\ntitle = "X"\nminutes = 5\nrun.dpo.lr = 1e-4\n'
    )
    units = units_of(read_studies(write_studies(tmp_path / "s", a=MAIN, c=child)))
    variant = units[-1]
    assert (variant.name, variant.minutes, variant.reuses_from) == ("c.x.p1", 5, "a.p1")
    assert (variant.config.dpo.lr, variant.config.dpo.beta, variant.config.dpo.epochs) == (1e-4, 0.5, 2)
    assert [unit.name for unit in chosen_units(units, ("a.*", "*x*"))] == ["a.p1", "a.p2", "c.x.p1"]
    with pytest.raises(SettingError, match=r"no unit is called a\.p9; the units are a\.p1"):
        chosen_units(units, ("a.p9",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MAIN.replace("[run.dpo]", "[run]\nseeds = [4]\n[run.dpo]"), "sets seeds, which each unit sets"),
        (MAIN.replace("[run.dpo]", "[run.split]\nfold = 3\n[run.dpo]"), r"sets split\.fold"),
        (MAIN.replace("lr", "lrr"), "make no run.*lrr"),
        (MAIN.replace("= 7", "= 46"), "less than or equal to 45"),
        (MAIN.replace("minutes", 'base = "a"\nminutes'), "base of a must be another study"),
        (MAIN.replace("title", "titel"), "is no study"),
        (MAIN + '[variants.x]\ntitle = "X"\n', "needs one called base, got x"),
    ],
)
def test_a_study_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingError, match=f"(?s){message}"):
        units_of(read_studies(write_studies(tmp_path / "s", a=text)))
    with pytest.raises(SettingError, match="got none in"):
        read_studies(tmp_path)


def test_a_changed_setting_makes_a_unit_old_and_a_new_one_does_not(tmp_path: Path) -> None:
    unit = units_of(read_studies(write_studies(tmp_path / "s", a=MAIN)))[0]
    stored: dict[str, Any] = unit.config.model_dump(mode="json")
    assert changed_settings(stored, unit) == []
    del stored["dpo"]["lora_rank"]  # a setting of a later version
    assert changed_settings(stored, unit) == []
    stored["dpo"]["lr"] = 5e-4
    assert changed_settings(stored, unit) == ["dpo.lr: 0.0005, now 0.001"]


def test_a_page_of_nothing_says_so_everywhere(tmp_path: Path) -> None:
    config = QualityConfig(studies=ROOT / "studies" / "quality")
    said = bench_quality(config, tmp_path)
    page = (tmp_path / "results.md").read_text()
    for unit in units_of(read_studies(config.studies)):
        assert unit.name in said
        assert f"`{unit.name}`" in page
    sections = [part for part in page.split("\n## ")[1:] if not part.startswith("Units")]
    assert all("*not run yet*" in section for section in sections)
    assert list((tmp_path / "results").iterdir()) == []


def test_a_foreign_file_among_the_units_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.p1.json").write_text('{"unit": "a.p1"}')
    with pytest.raises(DataError, match="remove it and do the unit again"):
        bench_quality(QualityConfig(studies=write_studies(tmp_path / "s", a=MAIN)), tmp_path)


def test_the_command_line_reaches_the_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[QualityConfig, Path]] = []
    monkeypatch.setattr(bench, "bench_quality", lambda config, out, _: seen.append((config, out)) or "said")
    assert cli.main(["bench", "quality", "--run", "a.p1,b.*", "--data", "/d"]) == 0
    assert cli.main(["bench", "quality", "--quick"]) == 0
    assert cli.main(["bench", "simulated", "--quick"]) == 2
    (asked, out), (small, small_out) = seen
    assert (asked.run, asked.data, out) == (("a.p1", "b.*"), Path("/d"), Path("docs"))
    assert (small.studies, small.run, small_out) == (QUICK_STUDIES, ("*",), Path("runs/quality-quick"))


def table_of(values: dict[str, np.ndarray]) -> TableNumbers:
    names = list(values)
    pairs = [(TRAINED, name) for name in names if name != TRAINED] + [(BEST_OF_N, UNTUNED)]
    return TableNumbers(
        ranker="prm",
        group="test",
        num_users=len(values[TRAINED]),
        num_lists=len(values[TRAINED]),
        rows=tuple(RowNumbers(name=n, values={"ndcg@5": moments_of(v)}) for n, v in values.items()),
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
def panels() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(8)
    found = []
    for size in (60, 90):
        untuned = rng.normal(0.5, 0.1, size)
        best = untuned + np.abs(rng.normal(0.06, 0.02, size))
        trained = untuned + 0.5 * (best - untuned) + rng.normal(0, 0.01, size)
        found.append({UNTUNED: untuned, TRAINED: trained, SHUFFLED: untuned - 0.001, BEST_OF_N: best})
    return found


def test_tables_of_panels_are_the_table_of_all_their_users(panels: list[dict[str, np.ndarray]]) -> None:
    tables = [table_of(panel) for panel in panels]
    everyone = {name: np.concatenate([panel[name] for panel in panels]) for name in panels[0]}
    for name, pooled in pooled_rows(tables, "ndcg@5").items():
        assert pooled.values.mean == pytest.approx(everyone[name].mean())
        assert pooled.by_panel == tuple(pytest.approx(panel[name].mean()) for panel in panels)
    found = pooled_contrasts(tables, "ndcg@5", TRAINED, (UNTUNED, NO_TEXT, SHUFFLED))
    assert [contrast.against for contrast in found] == [UNTUNED, SHUFFLED]  # what no panel has is left out
    p = np.array([moments_of(everyone[TRAINED] - everyone[baseline]).p for baseline in (UNTUNED, SHUFFLED)])
    assert [contrast.p_holm for contrast in found] == pytest.approx(holm(p).tolist())


def test_the_gap_closed_is_the_ratio_of_means(panels: list[dict[str, np.ndarray]]) -> None:
    closed = gap_closed([table_of(panel) for panel in panels], "ndcg@5")
    everyone = {name: np.concatenate([panel[name] for panel in panels]) for name in panels[0]}
    top, bottom = everyone[TRAINED] - everyone[UNTUNED], everyone[BEST_OF_N] - everyone[UNTUNED]
    assert closed is not None
    assert closed.share == pytest.approx(top.mean() / bottom.mean())
    assert closed.interval is not None
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(top), (4000, len(top)))
    by_bootstrap = np.quantile(top[drawn].mean(axis=1) / bottom[drawn].mean(axis=1), [0.025, 0.975])
    assert closed.interval == pytest.approx(by_bootstrap.tolist(), abs=0.01)
    worse = [{**panel, BEST_OF_N: panel[UNTUNED]} for panel in panels]
    assert gap_closed([table_of(panel) for panel in worse], "ndcg@5") is None


def test_what_is_foretold_is_pooled_by_users() -> None:
    def unit(explained: float, gained: list[float]) -> UnitResult:
        values = moments_of(np.array(gained))
        reached = {TRAINED: values} | ({} if len(gained) == 1 else {RANDOM_LABELS: values})
        one = PredictedNumbers(metric="loglik", explained=explained, gained=values, reached=reached)
        return UnitResult.model_construct(predicted=(one,))

    older = UnitResult.model_construct(predicted=())
    pooled = pooled_predicted([unit(0.1, [1.0, 2.0, 3.0]), older, unit(0.5, [7.0])])
    assert [one.metric for one in pooled] == ["loglik"]
    assert pooled[0].explained == pytest.approx((3 * 0.1 + 0.5) / 4)
    assert pooled[0].gained == moments_of(np.array([1.0, 2.0, 3.0, 7.0]))
    assert pooled[0].reached == {TRAINED: pooled[0].gained}  # a row that a panel lacks is left out


def test_reliabilities_weigh_by_users_and_their_variances_add() -> None:
    def unit(value: float, half: float, users: int) -> UnitResult:
        one = ReliabilityNumbers(
            metric="loglik",
            num_lists=4,
            reliability=value,
            low=value - half,
            high=value + half,
            num_users=users,
        )
        return UnitResult.model_construct(reliability=(one,))

    pooled = pooled_reliability([unit(0.2, 0.1, 100), unit(0.5, 0.2, 300)])[0]
    assert pooled.reliability == pytest.approx((100 * 0.2 + 300 * 0.5) / 400)
    half = np.sqrt((0.25 * 0.1) ** 2 + (0.75 * 0.2) ** 2)
    assert (pooled.high - pooled.low) / 2 == pytest.approx(half)
    assert pooled.num_users == 400


def test_a_claim_needs_a_small_p_every_panel_and_three_of_them(panels: list[dict[str, np.ndarray]]) -> None:
    two = pooled_contrasts([table_of(panel) for panel in panels], "ndcg@5", TRAINED, (UNTUNED,))[0]
    assert verdict(two, 0.01, 3) == "2 of 3 panels: open, so far yes"
    assert verdict(two, 0.01, 2) == "**holds**"
    mixed = [*panels, {name: values.copy() for name, values in panels[0].items()}]
    mixed[2][TRAINED] = mixed[2][UNTUNED] - 1e-4
    three = pooled_contrasts([table_of(panel) for panel in mixed], "ndcg@5", TRAINED, (UNTUNED,))[0]
    assert three.p_holm < 0.01
    assert verdict(three, 0.01, 3) == "**does not hold**"  # one panel below 0
    unsure = PooledContrast(TRAINED, UNTUNED, two.difference, 0.2)
    assert verdict(unsure, 0.01, 2) == "**does not hold**"
    assert verdict(None, 0.01, 3) == "*not run yet*"


def test_figures_are_whole_svg_files_with_text_escaped() -> None:
    bars = [Bar("a < b & c", 0.01, -0.01, 0.03, (0.02, 0.0)), Bar("d", -0.02, -0.03, -0.01, (-0.02,))]
    curve = Curve("ndcg@5", (2.0, 4.0), (0.1, 0.4))
    chart = Chart("Reliability", "lists", "r", (curve, Curve("loglik", (2.0, 4.0), (0.2, 0.5))))
    for svg in (interval_plot(bars, "difference"), lines(chart)):
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [node.text for node in ElementTree.fromstring(interval_plot(bars, "x")).iter()]
    assert "a < b & c" in texts


def test_tables_and_their_order() -> None:
    assert table(("a", "b"), [["1", "2"]]) == ["| a | b |", "| --- | ---: |", "| 1 | 2 |", ""]
    with pytest.raises(SettingError, match="must have 2 cells"):
        table(("a", "b"), [["1"]])
    names = {"best_of_n": 0, "transferred": 0, "trained": 0, "trained_r1": 0, "shuffled": 0, "no_text": 0}
    order = [name for name, _ in by_heading(names)]
    assert order == ["no_text", "shuffled", "trained", "trained_r1", "transferred", "best_of_n"]
