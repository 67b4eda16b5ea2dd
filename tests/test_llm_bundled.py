"""Columns under names that the bundled models can read."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recloop.cli import main
from recloop.data.simulated import SimulatedConfig, simulate_log
from recloop.data.simulated_sessions import SimulatedSessionsConfig, simulate_sessions
from recloop.errors import SettingError
from recloop.experiment.run_folder import RunFolder
from recloop.llm.bundled import (
    STAND_INS,
    bundled_lm_folder,
    columns_fact,
    columns_note,
    in_shown_names,
    reads_few_names,
    taught_names,
    with_readable_columns,
)
from recloop.llm.language_model import Sampling
from recloop.llm.local import TransformersLM
from recloop.methods.method import run_method
from recloop.methods.re2llm import METHOD
from recloop.methods.re2llm import data as sessions_study
from recloop.methods.re2llm.config import Re2llmConfig
from recloop.methods.re2llm.hint_base import read_hint_base
from recloop.progress import SILENT, Progress
from recloop.prompts.user_profile import PromptConfig
from recloop.records import Histories
from recloop.testing import FakeEncoder
from scripts.evaluate_lm.text_quality import evaluate_summaries
from scripts.pretrain_lm.corpus import ROLES, Words, invent_attributes
from scripts.pretrain_lm.tokenizer import english_words
from tiny_lm import build_tiny_lm

BUNDLED = bundled_lm_folder()
PEOPLE = [f"person {n}" for n in range(60)]


@pytest.fixture(scope="module")
def simulated():
    dataset, _ = simulate_log(SimulatedConfig(num_users=60, num_items=140), seed=0)
    return dataset


def renamed(dataset, **names):
    attributes = tuple(names.get(attribute, attribute) for attribute in dataset.attributes)
    return replace(dataset, items=dataset.items.rename(names), attributes=attributes)


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ({"era": [], "genre": [], "director": []}, ["era", "genre", "director"]),
        ({"Genres": ["War"], "Actors": PEOPLE}, ["genre", "actor"]),
        ({"categories": ["War"]}, ["category"]),
        ({"year": ["1994", "2001"], "tags": ["dark"]}, ["era", "category"]),
        ({"decade": [], "year": ["1994"]}, ["decade", "category"]),
        ({"tags": ["dark"], "writer": PEOPLE}, ["category", "maker"]),
        ({"writer": PEOPLE, "director": PEOPLE}, ["label", "director"]),
        ({"category": ["War"], "genre": ["War"]}, ["category", "label"]),
        ({"empty": []}, ["category"]),
        ({n: ["x"] for n in "abcde"}, ["category", "label", "maker", "era", "e"]),
        ({}, []),
    ],
)
def test_each_role_is_taken_once_and_taught_names_come_first(columns, shown) -> None:
    found = taught_names(columns)
    assert list(found) == list(columns)
    assert list(found.values()) == shown


def test_stand_ins_were_taught_and_the_corpus_takes_its_names_from_the_roles() -> None:
    assert all(name in ROLES[role] for role, name in STAND_INS.items())
    rng = np.random.default_rng(0)
    words = Words(english_words(), rng)
    for _ in range(50):
        names = [attribute.name for attribute in invent_attributes(words, 10, rng)]
        assert list(taught_names({name: [] for name in names}).values()) == names


def test_models_trained_from_the_bundled_ones_are_known_by_their_tokenizer(tmp_path: Path) -> None:
    assert reads_few_names(BUNDLED)
    assert reads_few_names(bundled_lm_folder("answers"))
    (tmp_path / "tokenizer.json").write_bytes((BUNDLED / "tokenizer.json").read_bytes())
    assert reads_few_names(tmp_path)
    assert not reads_few_names(Path("server"))
    assert not reads_few_names(build_tiny_lm(tmp_path / "tiny"))


def test_only_the_bundled_models_are_shown_other_names_and_it_is_said(simulated, tmp_path: Path) -> None:
    log = renamed(simulated, genre="shelf", director="writer")
    out = io.StringIO()
    shown, names = with_readable_columns(log, BUNDLED, Progress(out))
    assert names == {"shelf": "category", "writer": "label"}
    assert shown.attributes == ("era", "category", "label")
    assert shown.items["category"].to_list() == simulated.items["genre"].to_list()
    assert out.getvalue() == (
        "shelf is shown as category, writer is shown as label: "
        "the bundled language model (3.3M parameters) knows few column names\n"
    )
    for folder in (None, build_tiny_lm(tmp_path)):
        assert with_readable_columns(log, folder, SILENT) == (log, {})
    assert with_readable_columns(simulated, BUNDLED, SILENT) == (simulated, {})


def test_a_log_without_attributes_is_refused_by_the_bundled_models_alone(simulated, tmp_path: Path) -> None:
    nothing_known = simulated.items.with_columns(genre=pl.Series([[]] * simulated.num_items, dtype=pl.List(pl.String)))
    for log in (replace(simulated, attributes=()), replace(simulated, attributes=("genre",), items=nothing_known)):
        with pytest.raises(SettingError, match=r"got none in simulated; .* lm\.name smollm2"):
            with_readable_columns(log, BUNDLED, SILENT)
        for folder in (None, build_tiny_lm(tmp_path)):
            assert with_readable_columns(log, folder, SILENT) == (log, {})


def test_years_are_shown_as_decades(simulated, tmp_path: Path) -> None:
    years = simulated.items.with_columns(pl.col("era").list.eval(pl.element().str.head(3) + "7"))
    out = io.StringIO()
    for old, names in (("era", {}), ("year", {"year": "era"})):
        log = renamed(replace(simulated, items=years), era=old)
        shown, found = with_readable_columns(log, BUNDLED, Progress(out))
        assert found == names
        assert shown.attributes == simulated.attributes
        assert shown.items.equals(simulated.items)
        assert f"the years of {old} are shown as decades, such as 1990s" in out.getvalue()
        assert with_readable_columns(log, build_tiny_lm(tmp_path / old), SILENT) == (log, {})


def test_columns_may_trade_names() -> None:
    dataset, _ = simulate_log(SimulatedConfig(num_users=60, num_items=140), seed=0)
    log = renamed(dataset, era="genre", genre="category")  # the second of a role becomes a label
    shown, names = with_readable_columns(log, BUNDLED, SILENT)
    assert names == {"category": "label"}
    assert shown.attributes == ("genre", "label", "director")


def test_sessions_are_shown_alike() -> None:
    task = simulate_sessions(SimulatedSessionsConfig(num_train=20, num_test=20), 0)
    log = replace(task, items=task.items.rename({"genre": "shelf"}), attributes=("era", "shelf", "director"))
    shown, names = with_readable_columns(log, BUNDLED, SILENT)
    assert names == {"shelf": "category"}
    assert shown.items["category"].to_list() == task.items["genre"].to_list()


def test_a_step_notes_new_names_alone_and_the_report_reads_them() -> None:
    assert columns_fact(columns_note({"year": "era"})) == (("Columns", "year is shown as era"),)
    assert columns_note({}) == {}
    assert columns_fact({}) == ()


def test_requests_are_put_in_the_names_that_are_shown() -> None:
    names = {"shelf": "category", "shelf mark": "label"}
    text = in_shown_names("Of Shelf War, shelf mark X, bookshelf", names)
    assert text == "Of category War, label X, bookshelf"
    assert in_shown_names("of shelf War", {}) == "of shelf War"


@pytest.mark.slow
def test_hints_of_ones_own_go_by_the_names_that_are_shown(tmp_path: Path, monkeypatch) -> None:
    simulated = sessions_study.load_sessions

    def load(*asked):
        task = simulated(*asked)
        attributes = ("era", "shelf", "director")
        return replace(task, items=task.items.rename({"genre": "shelf"}), attributes=attributes)

    monkeypatch.setattr(sessions_study, "load_sessions", load)
    (tmp_path / "hints.json").write_text('["Go by shelf."]')
    config = Re2llmConfig(
        data={"simulated_sessions": {"num_train": 4, "num_test": 4, "num_items": 240}},
        explore={"file": tmp_path / "hints.json"},
    )
    with RunFolder.open(tmp_path / "run", config.model_dump(mode="json"), method="re2llm") as folder:
        run_method(METHOD, config, folder, SILENT, "explore", encoder=FakeEncoder())
    assert read_hint_base(tmp_path / "run" / "hints.json").texts == ("", "Go by category.")


@pytest.mark.slow
def test_a_log_with_foreign_names_is_written_about_in_form(simulated) -> None:
    log = renamed(simulated, era="year", genre="tags", director="writer")
    sampling = Sampling(num_completions=5, temperature=1.0, top_p=1.0, max_tokens=64, seed=0)
    lm = TransformersLM(BUNDLED, device="cpu")
    users = np.arange(20)
    rows = log.interactions.filter(pl.col("user") < 20)
    counts = rows.group_by("user").len().sort("user")["len"].to_numpy()
    histories = Histories(np.concatenate([[0], counts.cumsum()]), rows["item"].to_numpy(), rows["rating"].to_numpy())

    def skill_of(dataset):
        return evaluate_summaries(lm, dataset, histories, users, sampling, PromptConfig())

    as_named = skill_of(log)
    shown = skill_of(with_readable_columns(log, BUNDLED, SILENT)[0])
    assert as_named.well_formed < 0.7  # the reason for the other names
    assert shown.well_formed > 0.85
    assert shown.grounded > 0.95


@pytest.mark.slow
def test_a_table_with_foreign_names_runs_to_its_report(tmp_path: Path, capsys) -> None:
    dataset, _ = simulate_log(SimulatedConfig(num_users=80, num_items=140), seed=0)
    joined = dataset.interactions.join(dataset.users, on="user").join(dataset.items, on="item")
    joined.select("user_id", "item_id", "rating", "time").write_csv(tmp_path / "log.csv")
    dataset.items.select(
        "item_id", "title", tags=pl.col("genre").list.join("|"), writer=pl.col("director").list.join("|")
    ).write_csv(tmp_path / "items.csv")
    (tmp_path / "mine.toml").write_text(
        f'[data]\nname = "table"\npath = "{tmp_path}/log.csv"\n[data.table]\nuser = "user_id"\n'
        f'item = "item_id"\nrating = "rating"\ntime = "time"\nitems = "{tmp_path}/items.csv"\n'
        'attributes = ["tags", "writer"]\n'
    )
    settings = "--rounds 0 --variants core --reranker.max-epochs 1 --completions.test 1 --encoder.name claims"
    out = tmp_path / "run"
    assert main(
        ["run", "dpo4rec", "--config", f"{tmp_path}/mine.toml", *settings.split(), "--out", str(out)]
    ) == 0  # fmt: skip
    assert "tags is shown as category, writer is shown as label" in capsys.readouterr().err
    assert "tags is shown as category, writer is shown as label" in (out / "report.html").read_text()
