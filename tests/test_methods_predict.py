"""What a finished run leaves, for use: texts, rankings, explanations, further items, whole files of lists."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import recloop as rl
from recloop.errors import ContractError, DataError, RunError, SettingError
from recloop.methods.dpo4rec.evaluate import SCORES
from recloop.methods.predict import EVERYTHING, NOTHING, FinishedRun, text_parts
from recloop.methods.use_files import export_run, profile_file, read_texts, rows_of_test_lists, score_file
from recloop.progress import SILENT
from recloop.prompts.text_truth import check_of
from recloop.records import Completion, Group, Prompt
from recloop.rerankers.fitted import FittedReranker
from recloop.testing import FakeEncoder, FakeLM

pytestmark = pytest.mark.slow

SMALL = {
    "data": {"simulated": {"num_users": 60, "num_items": 150, "num_interactions": 24}},
    "split": {"train": 0.4, "reward": 0.3, "valid": 0.1, "test": 0.2},
    "completions": {"test": 2},
    "reranker": {"max_epochs": 2, "min_epoch_steps": 4},
    "statistics": {"num_flips": 200, "num_resamples": 100},
}


class CountingLM(FakeLM):
    """Counts the prompts it answers."""

    asked = 0

    def generate(self, prompts, sampling):
        self.asked += len(prompts)
        return super().generate(prompts, sampling)


class CountingEncoder(FakeEncoder):
    """Counts the texts it reads."""

    read = 0

    def encode(self, texts):
        self.read += len(texts)
        return super().encode(texts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    rl.run("dpo4rec", out=out, lm=FakeLM(), encoder=FakeEncoder(), rounds=0, progress=SILENT, **SMALL)
    return out


@pytest.fixture
def lm() -> CountingLM:
    return CountingLM()


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def model(folder: Path, lm: CountingLM, encoder: CountingEncoder) -> FinishedRun:
    return rl.load(folder, lm=lm, encoder=encoder)


def own_scores(model: FinishedRun) -> np.ndarray:
    """What the run's own evaluation gave every test list, under each completion."""
    return load_file(model.run.folder("fit.untuned.prm.s0") / SCORES)["scores_BNL"]


def test_scores_of_the_test_lists_are_those_of_the_runs_own_evaluation(model, lm, encoder, tmp_path) -> None:
    rows, lists = rows_of_test_lists(model), model.lists.of(Group.TEST)
    row_n, place_n = np.nonzero(lists.is_item_BL)
    scored = model.score(rows)
    assert scored.drop("score").equals(rows)
    expected = own_scores(model)
    assert scored["score"].to_numpy() == pytest.approx(expected[row_n, 0, place_n], abs=1e-6)
    second = {user: model.texts(user)[1] for user in rows["user_id"].unique()}
    assert model.score(rows, second)["score"].to_numpy() == pytest.approx(expected[row_n, 1, place_n], abs=1e-6)
    assert encoder.read == 0  # the run has the vectors of its texts
    for number in range(len(lists)):
        own = rows.filter(pl.col("list_id") == number)
        user, candidates = own["user_id"][0], own["item_id"].to_list()
        ranked = model.rerank(user, candidates)
        found = dict(ranked.select("item_id", "score").iter_rows())
        assert [found[item] for item in candidates] == pytest.approx(expected[number, 0, : len(own)], abs=1e-6)
        assert ranked["score"].is_sorted(descending=True)
    assert lm.asked == 0
    rows.write_csv(tmp_path / "lists.csv")
    said = score_file(model, tmp_path / "lists.csv", tmp_path / "scores.parquet", None, SILENT)
    assert said.startswith(f"{len(lists)} lists, {len(rows)} rows")
    from_file = pl.read_parquet(tmp_path / "scores.parquet")["score"].to_numpy()
    assert from_file == pytest.approx(expected[row_n, 0, place_n], abs=1e-6)


def test_a_user_of_the_log_has_the_runs_text_and_a_new_one_gets_one(model, lm) -> None:
    user = model.user_ids[0]
    assert model.profile(user) == model.texts(user)[0] == model.texts(user, "untuned")[0]
    assert lm.asked == 0
    items = model.log.items["item_id"][:4].to_list()
    rated = [(item, 5.0 if number < 2 else 1.0) for number, item in enumerate(items)]
    new, known = model.profiles([rated, user])
    assert known == model.texts(user)[0]
    assert lm.asked == 1
    assert new == model.profile(rated)
    assert new != model.profile([(item, 6 - rating) for item, rating in rated])


def test_a_new_text_is_drawn_again_until_it_says_nothing_untrue(model, lm, tmp_path) -> None:
    items = model.log.items["item_id"].to_list()
    whom = [[(item, 1.0 + n % 5) for n, item in enumerate(items[first : first + 16])] for first in range(0, 132, 12)]
    once, checked = model.profiles(whom), model.profiles(whom, tries=40)
    checks = [check_of(model.log, model.models._histories([who])) for who in whom]
    prompt = model.models.prompt(whom[0])

    def is_true(check, text: str) -> bool:
        return check(replace(prompt, user=0), Completion(0, 0, text, 1, True, -1.0))

    held = [is_true(check, text) for check, text in zip(checks, once, strict=True)]
    assert 0 < sum(held) < len(whom)
    untrue = [text for check, text in zip(checks, checked, strict=True) if not is_true(check, text)]
    assert not untrue
    assert [text for text, is_held in zip(checked, held, strict=True) if is_held] == [
        text for text, is_held in zip(once, held, strict=True) if is_held
    ]
    assert model.profile(whom[0], tries=40) == checked[0]
    rows = [(f"u{n}", item, rating) for n, who in enumerate(whom) for item, rating in who]
    pl.DataFrame(rows, ["user_id", "item_id", "rating"], orient="row").write_csv(tmp_path / "new.csv")
    profile_file(model, tmp_path / "new.csv", tmp_path / "texts.parquet", 0, SILENT, tries=40)
    assert pl.read_parquet(tmp_path / "texts.parquet")["text"].to_list() == checked
    with pytest.raises(SettingError, match="tries must be a whole number from 1, got 0"):
        model.profile(whom[0], tries=0)


def test_of_the_texts_that_the_run_has_only_one_that_is_true_is_used(model, lm) -> None:
    models, check = model.models, check_of(model.log, model.lists.histories)

    def is_true(user: str, text: str) -> bool:
        prompt = Prompt(models.user_number(user), "", "", 0, 0)
        return check(prompt, Completion(0, 0, text, 1, True, -1.0))

    users = model.user_ids
    checked = dict(zip(users, model.profiles(users, tries=60), strict=True))
    firsts = {user: model.texts(user)[0] for user in users}
    assert 0 < sum(is_true(user, text) for user, text in firsts.items()) < len(users)
    assert all(is_true(user, text) for user, text in checked.items() if text)
    assert all(checked[user] == text for user, text in firsts.items() if is_true(user, text))
    second = [u for u in users if not is_true(u, firsts[u]) and any(is_true(u, t) for t in model.texts(u)[1:])]
    assert all(checked[user] in model.texts(user) for user in second)
    assert lm.asked > 0


def test_an_empty_text_says_what_all_users_have_in_common(model) -> None:
    candidates = model.log.items["item_id"][:6].to_list()
    explained = model.explain(model.user_ids[0], candidates)
    everything = explained.filter(pl.col("left_out") == EVERYTHING).select("item_id", "score")
    assert model.rerank(model.user_ids[0], candidates, text="").select("item_id", "score").equals(everything)


def test_users_and_items_that_are_not_there_are_named(model) -> None:
    candidates = model.log.items["item_id"][:3].to_list()
    with pytest.raises(DataError, match="the log has no user 'nobody'"):
        model.rerank("nobody", candidates)
    with pytest.raises(DataError, match="history: the log has no item 'i'"):
        model.rerank(["i"], candidates)
    with pytest.raises(DataError, match="candidates: the log has no item"):
        model.explain(model.user_ids[0], [*candidates, "none"])
    with pytest.raises(DataError, match="two candidates at least, got 1"):
        model.rerank(model.user_ids[0], candidates[:1])
    with pytest.raises(DataError, match="a list of item ids, got the text"):
        model.rerank(model.user_ids[0], candidates[0])
    with pytest.raises(DataError, match=r"candidates must differ, got .* twice"):
        model.rerank(model.user_ids[0], [*candidates, candidates[1]])
    with pytest.raises(DataError, match="history: a rating is a number"):
        model.profile([(candidates[0], "five")])
    with pytest.raises(SettingError, match="a variant is untuned or untuned, got best"):
        model.texts(model.user_ids[0], "best")
    with pytest.raises(DataError, match="history: a rating is a finite number"):
        model.profile([(candidates[0], math.inf)])
    with pytest.raises(DataError, match="history: the log's ratings go from 1 to 5, got 9"):
        model.rerank([(candidates[0], 9)], candidates)
    with pytest.raises(DataError, match="a text about a user is a str, got 5"):
        model.rerank(model.user_ids[0], candidates, text=5)
    with pytest.raises(DataError, match="reads no first-stage scores, got some"):
        model.rerank(model.user_ids[0], candidates, first_stage=[0.5, 0.1, 0.2])
    with pytest.raises(DataError, match=r"candidates of a list must differ, got .* twice"):
        model.score(pl.DataFrame({"user_id": [model.user_ids[0]] * 3, "item_id": [*candidates[:2], candidates[0]]}))
    with pytest.raises(DataError, match="lists: there is no column item_id, got user_id"):
        model.score(pl.DataFrame({"user_id": ["a"]}))
    reward_user = next(one for one in model.log.users["user_id"] if not model.texts(one))
    with pytest.raises(DataError, match="the run has no text about user"):
        model.score(pl.DataFrame({"user_id": [reward_user] * 2, "item_id": candidates[:2]}))


def test_parts_of_a_text_are_sentences_or_sides() -> None:
    assert text_parts("") == []
    assert text_parts("She likes films. He does not!") == [
        ("She likes films.", "He does not!"), ("He does not!", "She likes films."),
    ]  # fmt: skip
    text = "By genre: likes Drama, War; dislikes Sci-Fi. By era: mixed."
    assert text_parts(text) == [
        ("By genre: likes Drama, War", "By genre: dislikes Sci-Fi. By era: mixed."),
        ("By genre: dislikes Sci-Fi", "By genre: likes Drama, War. By era: mixed."),
        ("By era: mixed.", "By genre: likes Drama, War; dislikes Sci-Fi."),
    ]


def test_an_explanation_ranks_without_each_part_as_a_text_without_it_does(model) -> None:
    user, candidates = model.user_ids[0], model.log.items["item_id"][20:26].to_list()
    text = "By genre: likes Drama; dislikes War. By era: likes 1990s."
    found = model.explain(user, candidates, text=text)
    assert found["left_out"].unique(maintain_order=True).to_list() == [
        NOTHING, "By genre: likes Drama", "By genre: dislikes War", "By era: likes 1990s.", EVERYTHING,
    ]  # fmt: skip
    whole = found.filter(pl.col("left_out") == NOTHING)
    ranked = model.rerank(user, candidates, text=text)
    assert whole["item_id"].to_list() == ranked["item_id"].to_list()
    assert whole["score"].to_numpy() == pytest.approx(ranked["score"].to_numpy(), abs=1e-6)
    without = found.filter(pl.col("left_out") == "By genre: dislikes War")
    expected = model.rerank(user, candidates, text="By genre: likes Drama. By era: likes 1990s.")
    assert without["item_id"].to_list() == expected["item_id"].to_list()
    assert without["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), abs=1e-6)
    assert without["rank"].to_list() == [1, 2, 3, 4, 5, 6]
    of_nobody = found.filter(pl.col("left_out") == EVERYTHING)
    other = model.explain(user, candidates, text="By era: mixed.").filter(pl.col("left_out") == EVERYTHING)
    assert of_nobody["score"].to_numpy() == pytest.approx(other["score"].to_numpy(), abs=1e-6)


def test_items_that_came_later_are_ranked_by_their_attributes_and_change_nothing_else(model) -> None:
    user, old = model.user_ids[0], model.log.items["item_id"][20:25].to_list()
    row = model.log.items.row(20, named=True)
    twin = {"item_id": "new-1", "title": row["title"], **{name: [row[name]] for name in model.log.attributes}}
    other = {"item_id": "new-2", "title": "Zzz", **{name: [["never seen"]] for name in model.log.attributes}}
    longer = model.with_items(pl.DataFrame(twin)).with_items(pl.DataFrame(other))
    before, after = model.rerank(user, old), longer.rerank(user, old)
    assert after["item_id"].to_list() == before["item_id"].to_list()
    assert after["score"].to_numpy() == pytest.approx(before["score"].to_numpy(), abs=1e-6)
    apart = np.abs(np.diff(longer.rerank(user, [old[0], "new-1"])["score"]))[0]
    far = np.abs(np.diff(longer.rerank(user, [old[0], "new-2"])["score"]))[0]
    assert apart < far  # what is known of it is what is known of its twin; only the id differs
    assert math.isfinite(far)
    assert "new-1" in longer.log.items["item_id"]
    assert "new-1" not in model.log.items["item_id"]
    assert longer.profile([("new-1", 5.0), (old[0], 5.0), (old[1], 1.0)])
    with pytest.raises(DataError, match="ids of their own, got 'new-1' again"):
        longer.with_items(pl.DataFrame(twin))
    with pytest.raises(DataError, match="new items: there is no column title"):
        model.with_items(pl.DataFrame({"item_id": ["x"]}))
    as_text = {"item_id": ["t"], "title": ["T"], model.log.attributes[0]: ["a | b"]}
    assert model.with_items(as_text).log.items[model.log.attributes[0]].to_list()[-1] == ["a", "b"]


def test_a_file_is_scored_in_parts_as_in_one(model, tmp_path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    items, users = model.log.items["item_id"].to_list(), model.user_ids
    sizes = rng.integers(2, 9, size=40)
    rows = pl.DataFrame(
        {
            "list_id": np.repeat(np.arange(40), sizes),
            "user_id": np.repeat(rng.choice(users, 40), sizes),
            "item_id": np.concatenate([rng.choice(items, size, replace=False) for size in sizes]),
            "note": "kept",
        }
    )
    rows.write_parquet(tmp_path / "lists.parquet")
    monkeypatch.setattr("recloop.methods.use_files.ROWS_AT_ONCE", 7)
    score_file(model, tmp_path / "lists.parquet", tmp_path / "scores.parquet", None, SILENT)
    found, whole = pl.read_parquet(tmp_path / "scores.parquet"), model.score(rows)
    assert found.drop("score").equals(rows)
    assert found["score"].to_numpy() == pytest.approx(whole["score"].to_numpy(), abs=1e-6)
    with pytest.raises(RunError, match="is there already"):
        score_file(model, tmp_path / "lists.parquet", tmp_path / "scores.parquet", None, SILENT)
    with pytest.raises(DataError, match=r"a table is .parquet, .csv, .jsonl, got lists.txt"):
        score_file(model, tmp_path / "lists.txt", tmp_path / "x.parquet", None, SILENT)
    rows.head(0).write_parquet(tmp_path / "empty.parquet")
    score_file(model, tmp_path / "empty.parquet", tmp_path / "none.parquet", None, SILENT)
    assert pl.read_parquet(tmp_path / "none.parquet").columns == [*rows.columns, "score"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_texts_are_written_for_a_file_of_users_and_serve_to_score(model, lm, tmp_path) -> None:
    items = model.log.items["item_id"].to_list()
    histories = pl.DataFrame({"user_id": ["x", "x", "y"], "item_id": items[:3], "rating": [5.0, 1.0, None]})
    histories.write_csv(tmp_path / "new.csv")
    said = profile_file(model, tmp_path / "new.csv", tmp_path / "texts.parquet", 0, SILENT)
    assert said.startswith("2 texts in")
    found = pl.read_parquet(tmp_path / "texts.parquet")
    assert found["user_id"].to_list() == ["x", "y"]
    assert found["text"][0] == model.profile([(items[0], 5.0), (items[1], 1.0)])
    pl.DataFrame({"user_id": model.user_ids[:2]}).write_csv(tmp_path / "known.csv")
    asked = lm.asked
    profile_file(model, tmp_path / "known.csv", tmp_path / "known.parquet", 0, SILENT)
    assert lm.asked == asked
    known = pl.read_parquet(tmp_path / "known.parquet")["text"].to_list()
    assert known == [model.texts(user)[0] for user in model.user_ids[:2]]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".csv", ".parquet", ".parquet"]


def test_a_file_of_texts_has_one_about_each_user(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text('user_id,text\n17,Likes War.\n4,""\n')
    assert read_texts(file) == {"17": "Likes War.", "4": ""}
    for row, message in (("17,Again.", r"two texts about one user \(17\)"), ("5,", r"without an id or a text \(5\)")):
        file.write_text(f"user_id,text\n17,Likes War.\n{row}\n")
        with pytest.raises(DataError, match=message):
            read_texts(file)


def test_an_export_has_what_others_need(model, tmp_path) -> None:
    said = export_run(model, tmp_path / "out", merge=False)
    assert "reranker/" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md", "reranker", "scores.parquet", "vectors.parquet",
    }  # fmt: skip
    reranker = FittedReranker.load(tmp_path / "out" / "reranker")
    assert reranker.shape == model.reranker.shape
    scores = pl.read_parquet(tmp_path / "out" / "scores.parquet")
    assert scores.equals(model.score(rows_of_test_lists(model)))
    assert set(pl.read_parquet(tmp_path / "out" / "vectors.parquet")["variant"]) == {"untuned"}
    assert "| Untuned (KAR) | ndcg@5 |" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(RunError, match="new or empty folder"):
        export_run(model, tmp_path / "out", merge=False)


def test_a_reranker_without_texts_says_so(model) -> None:
    fitted = FittedReranker.load(model.run.folder("fit.no_text.prm.s0"))
    with pytest.raises(ContractError, match="fitted without user vectors"):
        fitted.score(model.lists.of(Group.TEST), rl.UserVectors(np.array([0]), np.zeros((1, 1, 4), np.float32)))
