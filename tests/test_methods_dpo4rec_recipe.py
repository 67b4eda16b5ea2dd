"""The whole loop on a very small simulated log, with a random-weight language model and the fake encoder."""

import json
import math
import re
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import recloop as rl
from method_cases import do_method
from page_sentences import long_sentences
from recloop.artifacts import read_rows
from recloop.data.load import read_log
from recloop.errors import DataError, RunError, SettingError
from recloop.evaluation.results import Results
from recloop.experiment.run_folder import RunFolder
from recloop.files import sha256_of_folder
from recloop.methods.dpo4rec import data as task
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.cost_estimate import plan
from recloop.methods.dpo4rec.evaluate import FITS_AHEAD, ROWS, doubt_of_first_epoch
from recloop.methods.predict import FinishedRun
from recloop.methods.study import derived_seed
from recloop.progress import SILENT
from recloop.prompts.claims import population_rates
from recloop.prompts.lines import history_items
from recloop.prompts.text_truth import SAYS
from recloop.prompts.user_profile import MAX_COUNTED, count_lines
from recloop.records import CandidateLists, Group, Prompt, UserVectors
from recloop.rerankers.config import RerankerConfig
from recloop.rerankers.fitted import EpochScore, FittedReranker
from recloop.rewards.cross_fit import cross_fit_rewards
from recloop.rewards.reranker_reward import reranker_reward
from recloop.testing import FakeEncoder, FakeLM
from recloop.training.dataset import reply_comparer
from tiny_lm import build_tiny_lm
from trec_by_hand import recompute

pytestmark = pytest.mark.slow

SIMULATED = {
    "data": {"simulated": {"num_users": 60, "num_items": 150, "num_interactions": 24}},
    "split": {"train": 0.4, "reward": 0.3, "valid": 0.1, "test": 0.2},
    "completions": {"reward": 3, "test": 2},
    "reranker": {"max_epochs": 2, "min_epoch_steps": 4},
    "statistics": {"num_flips": 200, "num_resamples": 100},
}
TRAINED_CASE = SIMULATED | {
    "prompt": {"max_prompt_tokens": 300},
    "lm": {"max_tokens": 24},
    "dpo": {"max_pairs": 8},
}
ALL_VARIANTS = {
    "no_text", "id_history", "rating_mean", "history_text", "best_template", "shuffled", "untuned",
    "untuned_matched", "sft_best_of_n", "random_label_dpo", "trained", "best_of_n", "untuned_beside_ids",
    "trained_beside_ids",
    "reward_model_untuned", "reward_model_untuned_matched", "reward_model_sft_best_of_n",
    "reward_model_random_label_dpo", "reward_model_trained",
}  # fmt: skip


def write_lm(folder: Path) -> Path:
    """The tiny LM with its end token made likely, so that most of its completions are finished."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    build_tiny_lm(folder)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        ids = torch.randint(5, len(tokenizer), (8, 64), generator=torch.Generator().manual_seed(0))
        mean = model.model(ids).last_hidden_state.mean((0, 1))
        model.get_input_embeddings().weight[tokenizer.eos_token_id] = 3 * mean / mean.norm() ** 2
    model.save_pretrained(folder)
    return folder


def training_config(lm: Path, **changes: Any) -> Dpo4RecConfig:
    settings = TRAINED_CASE | {"lm": TRAINED_CASE["lm"] | {"name": f"transformers:{lm}"}} | changes
    return Dpo4RecConfig.model_validate(settings)


def do(config: Dpo4RecConfig, path: Path, until: str | None = None, lm: FakeLM | None = None) -> str:
    return do_method("dpo4rec", config, path, until, lm=lm, encoder=FakeEncoder())


@dataclass(frozen=True)
class Done:
    path: Path
    config: Dpo4RecConfig
    said: str

    def results(self) -> list[dict[str, Any]]:
        return json.loads((self.path / "results.json").read_text())["tables"]

    def lists(self) -> CandidateLists:
        return task.read_lists(self.path / "steps" / "prepare" / task.LISTS)

    def user_ids(self) -> list[str]:
        return read_log(self.config.data, self.config.data_seed).users["user_id"].to_list()


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lm(tmp_path_factory.mktemp("lm"))


@pytest.fixture(scope="module")
def whole(lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run with training and every row, done in one go."""
    path, config = tmp_path_factory.mktemp("whole") / "run", training_config(lm)
    return Done(path, config, do(config, path))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run without training, on the fakes, with two backbones."""
    path = tmp_path_factory.mktemp("measured") / "run"
    config = Dpo4RecConfig.model_validate(SIMULATED | {"rounds": 0, "seeds": [3, 4], "backbones": ["dlcm", "prm"]})
    return Done(path, config, do(config, path, lm=FakeLM()))


def test_a_finished_run_writes_and_ranks_for_users_the_log_has_never_seen(whole: Done) -> None:
    run = FinishedRun(RunFolder.look(whole.path), {"encoder": FakeEncoder()})
    items = read_log(whole.config.data, whole.config.data_seed).items
    history, candidates = items["item_id"][:3].to_list(), items["item_id"][10:15].to_list()
    assert run.profile(history, seed=1) == run.profile([(item, float("nan")) for item in history], seed=1)
    ranked, other = (run.rerank(history, candidates, text=f"By genre: likes {one}.") for one in ("Drama", "War"))
    assert ranked["score"].to_list() == sorted(ranked["score"], reverse=True)
    assert dict(ranked.select("item_id", "title").iter_rows()) == dict(
        items[10:15].select("item_id", "title").iter_rows()
    )
    assert dict(ranked.select("item_id", "score").iter_rows()) != dict(other.select("item_id", "score").iter_rows())
    with pytest.raises(DataError, match=r"history: the log has no item 'nope' \(1 of 1\)"):
        run.rerank(["nope"], candidates)
    with pytest.raises(DataError, match="two candidates at least, got 1"):
        run.rerank(history, candidates[:1], text="")


def test_completions_with_little_room_are_their_first_sentences(tmp_path: Path) -> None:
    # The fake names three attributes, one a sentence, and writes on whatever the room.
    fake = FakeLM(num_attributes_named=3)
    texts = {}
    for room in (None, 1):
        settings = SIMULATED | {"rounds": 0, "completions": SIMULATED["completions"] | {"sentences": room}}
        path = tmp_path / f"room-{room}"
        do(Dpo4RecConfig.model_validate(settings), path, until="sample", lm=fake)
        texts[room] = pl.read_parquet(path / "steps" / "sample.untuned.s0" / "test.parquet")
    whole, short = texts[None]["text"].to_list(), texts[1]["text"].to_list()
    assert any(text.count("By ") > 1 for text in whole)
    assert short == [re.split(r"(?<=\.) (?=By )", text)[0] for text in whole]
    assert texts[1]["raw"].to_list() == [w if w != s else "" for w, s in zip(whole, short, strict=True)]


def test_every_row_and_file_is_there(whole: Done) -> None:
    table = whole.results()[0]
    assert {row["name"] for row in table["metrics"][0]["variants"]} == ALL_VARIANTS
    assert "DEMONSTRATION" in whole.said
    assert str(whole.path / "report.html") in whole.said
    files = (
        "config.json manifest.json metrics.jsonl completions.sqlite rewards.parquet pairs.parquet pairs.jsonl "
        "qrels.trec results.json tables.tex report.html"
    )
    assert [name for name in files.split() if not (whole.path / name).is_file()] == []
    assert (whole.path / "lm" / "trained.s0" / "model.safetensors").is_file()
    assert (whole.path / "reranker" / "reward_model.s0" / "reranker.safetensors").is_file()


def test_the_log_has_mean_and_spread_of_a_rounds_rewards_and_who_has_pairs(whole: Done) -> None:
    logged = [json.loads(line) for line in (whole.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    [told] = [row for row in logged if "reward_mean" in row]
    users = [
        part["reward"].to_numpy() for part in pl.read_parquet(whole.path / "rewards.parquet").partition_by("user_id")
    ]
    assert told["run_step"] == "reward.r0.s0"
    assert told["reward_mean"] == pytest.approx(np.concatenate(users).mean())
    assert told["reward_std"] == pytest.approx(np.concatenate(users).std(), rel=1e-5)
    within = [math.sqrt(sum((one - user.mean()) ** 2 for one in user) / len(user)) for user in users]
    assert told["reward_std_within_users"] == pytest.approx(sum(within) / len(within), rel=1e-5)
    [share] = [row["share_users_with_pairs"] for row in logged if "share_users_with_pairs" in row]
    assert share == pl.read_parquet(whole.path / "pairs.parquet")["user_id"].n_unique() / len(users)


def test_the_report_says_what_every_model_wrote_and_how_much_of_it_is_true(whole: Done) -> None:
    page = (whole.path / "report.html").read_text(encoding="utf-8")
    section = page[page.rindex("What the texts say") :]
    head = re.findall(r'<th scope="col">(.*?)</th>', section[: section.index("</thead>")])
    assert head[:3] == ["Counted", "Untuned (KAR)", "Trained"]
    assert set(head[3:]) == {"Random-label DPO", "SFT on best-of-N", "Untuned, matched"}
    truth = json.loads((whole.path / "results.json").read_text())["truth"]
    for name, place in (("untuned", 0), ("trained", 1)):
        cells = re.findall(r"<td>(.*?)</td>", section[section.index("Values named, a text") :])
        assert cells[place] == f"{truth[name]['values']:.1f}"


def test_the_report_and_the_terminal_say_the_verdict(whole: Done) -> None:
    page, verdict = (whole.path / "report.html").read_text(encoding="utf-8"), Results(whole.path).verdict
    assert verdict.startswith("One seed is a demonstration, not evidence")
    assert verdict in " ".join(whole.said.split())
    shown = page[page.index('<div class="found') :]
    shown = re.sub(r"<[^>]*>", " ", shown[shown.index("</span>") : shown.index("</div>")])
    assert "".join(shown.split()) == "".join(verdict.split())
    where = page[page.index("Where it helps") :]
    assert "By what the trained texts say" in where
    assert any(label in where for label in SAYS)
    assert long_sentences(page) == []


@pytest.mark.parametrize("cross_fit", [False, True])
def test_reward_models_pay_together(lm: Path, tmp_path: Path, cross_fit: bool) -> None:
    config = training_config(lm, reward={"num_models": 2, "cross_fit": cross_fit})
    do(config, tmp_path / "run", until="reward")
    folders = [tmp_path / "run" / "reranker" / name for name in ("reward_model.s0", "reward_model.s0.1")]
    one, other = (FittedReranker.load(folder).network.state_dict()["item_ids.weight"] for folder in folders)
    assert not one.equal(other)
    steps = tmp_path / "run" / "steps"
    vectors = load_file(steps / "encode.untuned.s0" / "vectors.safetensors")
    reward = UserVectors(vectors["reward.user_U"], vectors["reward.vectors_UND"])
    lists = task.read_lists(steps / "prepare" / task.LISTS).reward
    reward_models = [FittedReranker.load(folder) for folder in folders]
    expected = reranker_reward(reward_models, lists, reward, metric=config.reward.metric)
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    explained = [row["explained"] for row in logged if "explained" in row]
    if cross_fit:
        found = cross_fit_rewards(expected, reward, derived_seed(0, "shared"))
        expected = found.rewards
        assert explained == [pytest.approx(found.explained)]
    else:
        assert not explained
    paid = pl.read_parquet(steps / "reward.r0.s0" / "rewards.parquet")["reward"]
    np.testing.assert_allclose(np.sort(paid), np.sort(expected.rewards_UN.ravel()), rtol=1e-6)


def test_pairs_are_of_reward_users_and_hold_their_best_and_worst_completion(whole: Done) -> None:
    pairs = pl.read_parquet(whole.path / "pairs.parquet")
    rewards = pl.read_parquet(whole.path / "rewards.parquet")
    reward = {whole.user_ids()[user] for user in whole.lists().reward.user_B}
    assert len(pairs) > 0
    assert set(rewards["user_id"]) <= reward
    assert set(pairs["user_id"]) <= set(rewards["user_id"])
    assert set(rewards["split"]) == {Group.REWARD.value}
    ends = rewards.group_by("round", "user_id").agg(best=pl.max("reward"), worst=pl.min("reward"))
    joined = pairs.join(ends, on=["round", "user_id"])
    assert joined["chosen_reward"].to_list() == joined["best"].to_list()
    assert joined["rejected_reward"].to_list() == joined["worst"].to_list()
    by_completion = {(r["user_id"], r["completion"]): r["reward"] for r in rewards.iter_rows(named=True)}
    for pair in pairs.iter_rows(named=True):
        assert by_completion[pair["user_id"], pair["chosen_completion"]] == pair["chosen_reward"]
        assert by_completion[pair["user_id"], pair["rejected_completion"]] == pair["rejected_reward"]


def test_chosen_and_rejected_differ_after_tokenising(whole: Done, lm: Path) -> None:
    is_same = reply_comparer(lm, whole.config.dpo.max_reply_tokens)
    pairs = pl.read_parquet(whole.path / "pairs.parquet")
    assert not any(is_same(p["chosen"], p["rejected"]) for p in pairs.iter_rows(named=True))
    lines = [json.loads(line) for line in (whole.path / "pairs.jsonl").read_text().splitlines()]
    assert [line["chosen"][0]["content"] for line in lines] == pairs["chosen"].to_list()


@pytest.mark.parametrize("name", ["trained", "untuned", "no_text", "best_template", "reward_model_trained"])
def test_the_table_can_be_recomputed_from_the_trec_files(whole: Done, name: str) -> None:
    ranker = "reward_model" if name.startswith("reward_model_") else "prm"
    files = sorted((whole.path / "runs").glob(f"{ranker}.{name.removeprefix('reward_model_')}.seed0.completion*.trec"))
    numbers = recompute(files, whole.path / "qrels.trec", whole.config.metrics)
    for metric in whole.results()[0]["metrics"]:
        row = next(row for row in metric["variants"] if row["name"] == name)
        assert numbers[metric["metric"]] == pytest.approx(row["estimate"]["value"], abs=1e-6)


def test_a_run_stopped_at_every_stage_and_gone_on_with_is_identical(whole: Done, tmp_path: Path) -> None:
    path = tmp_path / "again"
    for verb in ("prepare", "sample", "encode", "reward", "pairs", "train", "evaluate"):
        assert "recloop resume" in do(whole.config, path, until=verb)
    do(whole.config, path)
    for name in ("results.json", "metrics.jsonl", "pairs.jsonl", "qrels.trec"):
        assert differing_lines(whole.path / name, path / name) == [], name
    for name in ("rewards.parquet", "pairs.parquet"):
        assert pl.read_parquet(path / name).equals(pl.read_parquet(whole.path / name)), name
    for name in ("lm", "reranker", "runs"):
        assert weights_of(path / name) == weights_of(whole.path / name), name


def differing_lines(one: Path, other: Path) -> list[tuple[str, str]]:
    """The first lines in which two text files differ."""
    lines = (path.read_text(encoding="utf-8").splitlines() for path in (one, other))
    return [(a, b) for a, b in zip_longest(*lines, fillvalue="(none)") if a != b][:5]


def weights_of(folder: Path) -> dict[str, bytes]:
    """Weights and rankings below a folder, by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.suffix in (".safetensors", ".trec"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_labels_of_test_users_reach_no_pair_and_no_weight(
    whole: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_lists = task.build_lists

    def with_other_test_labels(*args: Any) -> CandidateLists:
        lists = build_lists(*args)
        return replace(lists, test=replace(lists.test, labels_BL=1 - lists.test.labels_BL))

    monkeypatch.setattr(task, "build_lists", with_other_test_labels)
    do(whole.config, tmp_path / "run", until="train")
    for name in ("pairs.parquet", "rewards.parquet"):
        assert pl.read_parquet(tmp_path / "run" / name).equals(pl.read_parquet(whole.path / name))
    assert weights_of(tmp_path / "run" / "lm" / "trained.s0") == weights_of(whole.path / "lm" / "trained.s0")


def test_the_matched_row_is_as_long_and_as_surprising_as_the_trained_one(whole: Done) -> None:
    steps = whole.path / "steps"
    trained = pl.read_parquet(steps / "sample.trained.s0" / "test.parquet")
    matched = pl.read_parquet(steps / "sample.untuned_matched.s0" / "test.parquet")
    assert matched.select("user", "completion").equals(trained.select("user", "completion"))
    wanted, got = (completions["num_tokens"].to_numpy().astype(float) for completions in (trained, matched))
    other_pairings = [np.abs(np.roll(got, shift) - wanted).mean() for shift in range(1, len(got))]
    assert np.abs(got - wanted).mean() < 0.8 * np.mean(other_pairings)
    note = json.loads((whole.path / "manifest.json").read_text())["steps"]["sample.untuned_matched.s0"]
    assert note["surprisal_got"] == pytest.approx(note["surprisal_wanted"], rel=0.1)


def test_a_run_without_training_has_a_table_per_backbone_and_both_seeds(measured: Done) -> None:
    tables = measured.results()
    assert [table["title"] for table in tables] == ["Evaluators: DLCM", "Evaluators: PRM"]
    names = [{row["name"] for row in table["metrics"][0]["variants"]} for table in tables]
    untuned = ALL_VARIANTS - {"trained", "untuned_matched", "sft_best_of_n", "random_label_dpo", "trained_beside_ids"}
    untuned = {name for name in untuned if not name.startswith("reward_model_")}
    assert names == [untuned, untuned | {"reward_model_untuned"}]
    assert all(len(row["estimate"]["by_seed"]) == 2 for row in tables[0]["metrics"][0]["variants"])
    assert "DEMONSTRATION" not in measured.said
    assert not (measured.path / "lm").exists()


def test_the_best_template_is_the_one_best_on_valid_users(measured: Done) -> None:
    def valid_ndcg(stage: str) -> float:
        about = json.loads((measured.path / "reranker" / stage / "reranker.json").read_text())
        return max(epoch["valid_ndcg"] for epoch in about["curve"])

    templates = ["era", "genre", "director", "all"]
    scores = {name: valid_ndcg(f"template_{name}.prm.s3") for name in templates}
    best = max(templates, key=scores.__getitem__)
    table = measured.results()[1]["metrics"][0]
    row = next(row for row in table["variants"] if row["name"] == "best_template")
    stored = pl.read_parquet(measured.path / "reranker" / f"template_{best}.prm.s3" / ROWS)
    assert row["estimate"]["by_seed"][0] == pytest.approx(stored[table["metric"]].mean())


def test_a_finished_run_is_read_back_without_asking_a_model(measured: Done) -> None:
    lm = FakeLM()
    before = sha256_of_folder(measured.path)
    assert do(measured.config, measured.path, lm=lm) == measured.said
    assert lm.num_asked == 0
    assert sha256_of_folder(measured.path) == before


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    config = Dpo4RecConfig.model_validate(SIMULATED | {"rounds": 0})
    said = do(config, tmp_path / "run", until="prepare", lm=FakeLM())
    assert said == f"prepare is done; go on with: recloop resume {tmp_path / 'run'}"


def test_a_language_model_passed_as_an_object_cannot_be_trained(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="rounds=0"):
        do(Dpo4RecConfig.model_validate(SIMULATED), tmp_path / "run", lm=FakeLM())


def test_groups_are_disjoint_and_every_list_user_has_a_prompt(measured: Done) -> None:
    lists = measured.lists()
    users = [set(lists.of(group).user_B.tolist()) for group in Group]
    assert sum(map(len, users)) == len(set.union(*users))
    prompts = read_rows(measured.path / "steps" / "prepare" / task.PROMPTS, Prompt)
    assert {prompt.user for prompt in prompts} == set.union(*users)
    assert np.all(np.diff([prompt.user for prompt in prompts]) > 0)


def test_likes_by_share_are_held_against_train_users_alone(tmp_path: Path) -> None:
    config = Dpo4RecConfig.model_validate(SIMULATED | {"rounds": 0, "prompt": {"likes_by": "share"}})
    do(config, tmp_path / "run", until="prepare", lm=FakeLM())
    folder = tmp_path / "run" / "steps" / "prepare"
    dataset, lists = read_log(config.data, config.data_seed), task.read_lists(folder / task.LISTS)
    lines_of = history_items(dataset)
    train = np.unique(lists.train.user_B).tolist()
    rates = population_rates(dataset.attributes, [lines_of(*lists.histories.of(user)) for user in train])
    prompts = read_rows(folder / task.PROMPTS, Prompt)
    by_rating = 0
    for prompt in prompts:
        items = lines_of(*lists.histories.of(prompt.user))
        lines = count_lines(dataset.attributes, items, MAX_COUNTED, rates)
        assert "\n".join(lines) in prompt.text
        by_rating += lines == count_lines(dataset.attributes, items, MAX_COUNTED)
    assert len(train) < len(prompts)
    assert by_rating < len(prompts) / 2


class BlindEncoder(FakeEncoder):
    """Reads nothing in any text."""

    name = "blind"

    def encode(self, texts):
        return 0 * super().encode(texts)


def test_an_encoder_that_reads_nothing_in_the_completions_is_refused(tmp_path: Path) -> None:
    """The claims of texts in canonical form, of a model that writes prose: every user would look alike."""
    config = Dpo4RecConfig.model_validate(SIMULATED | {"rounds": 0})
    with pytest.raises(DataError, match=r"encoder blind must read something .* use encoder.name=minilm"):
        do_method("dpo4rec", config, tmp_path / "run", lm=FakeLM(), encoder=BlindEncoder())


SHOWN = {"split": {"train": 0.4, "reward": 0.2, "valid": 0.2, "test": 0.2}, "reranker": {"max_epochs": 1}}


def log_with_lists() -> rl.Log:
    """Plays without attributes, and what users were shown later, with places and scores."""
    rng = np.random.default_rng(0)
    plays = [
        (f"u{user}", f"i{item}", n) for user in range(40) for n, item in enumerate(rng.choice(60, 8, replace=False))
    ]
    shown = [
        (f"u{user}", f"u{user}/{number}", f"i{item}", place + 1, float(-place), float(place == number), 100 + number)
        for user in range(40)
        for number in range(3)
        for place, item in enumerate(rng.choice(60, 5 + number, replace=False))
    ]
    names = ["user_id", "list_id", "item_id", "position", "score", "label", "time"]
    frames = (pl.DataFrame(plays, schema=["user_id", "item_id", "time"], orient="row"),
              pl.DataFrame(shown, schema=names, orient="row"))  # fmt: skip
    frames = [frame.with_columns(pl.col("time") + 1_600_000_000) for frame in frames]
    return rl.Log.from_frames(frames[0], impressions=frames[1], progress=SILENT)


def test_without_a_language_model_what_needs_none_is_compared_on_lists_that_were_shown(tmp_path: Path) -> None:
    results = rl.run(
        "dpo4rec", data=log_with_lists(), out=tmp_path / "run", encoder=FakeEncoder(), variants="without_lm",
        protocol={"kind": "impressions"}, progress=SILENT, **SHOWN,
    )  # fmt: skip
    assert set(results.table()["variant"]) == {
        "as_shown", "first_stage", "popularity", "item_knn", "no_text", "id_history", "rating_mean", "history_text",
    }  # fmt: skip
    by_name = dict(results.table().select("variant", "value").iter_rows())
    assert by_name["as_shown"] == by_name["first_stage"]
    assert set(results.contrasts()["variant"]) == {"id_history"}
    queries = {line.split()[0] for line in (tmp_path / "run" / "qrels.trec").read_text().splitlines()}
    assert all("/" in query for query in queries)
    assert not (tmp_path / "run" / "completions.sqlite").exists()
    report = results.report_path.read_text()
    assert "compared without a language model" in report
    assert "120 lists shown" in report
    with pytest.raises(RunError, match="made without a language model"):
        rl.load(tmp_path / "run", data=log_with_lists(), encoder=FakeEncoder())


def test_what_workers_fitted_for_other_texts_is_not_taken_by_a_step_of_that_name(tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "data": log_with_lists(), "out": tmp_path / "run", "encoder": FakeEncoder(), "variants": "without_lm",
        "protocol": {"kind": "impressions"}, "progress": SILENT,
    } | SHOWN  # fmt: skip
    rl.run("dpo4rec", until="prepare", **asked)
    left = tmp_path / "run" / FITS_AHEAD
    for name in ("fit.no_text.prm.s0", "fit.no_text.prm.s0.0123456789abcdef"):
        (left / name).mkdir(parents=True)  # without weights, so whoever reads it fails
    assert "no_text" in set(rl.run("dpo4rec", **asked).table()["variant"])
    assert not left.exists()


def test_a_reward_model_that_keeps_its_first_epoch_is_doubted() -> None:
    def fitted(*scores: float, patience: int = 3) -> Any:
        curve = tuple(EpochScore(number, 1.0, score) for number, score in enumerate(scores, start=1))
        return SimpleNamespace(config=RerankerConfig(patience=patience), curve=curve)

    doubt = doubt_of_first_epoch(fitted(0.5, 0.4, 0.4), 60)
    assert doubt is not None
    assert doubt.startswith("60 valid users choose the first of 3 epochs")
    for one in (fitted(0.4, 0.5, 0.4), fitted(0.5), fitted(0.5, 0.4, patience=0)):
        assert doubt_of_first_epoch(one, 60) is None


def test_without_a_language_model_there_are_no_rounds() -> None:
    assert Dpo4RecConfig.model_validate({"variants": "without_lm"}).rounds == 0
    with pytest.raises(ValueError, match="train nothing, got rounds=2"):
        Dpo4RecConfig.model_validate({"variants": "without_lm", "rounds": 2})


class Nameless:
    """Encodes, but does not say who it is."""

    width = 4

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.zeros((len(texts), self.width), np.float32)


@pytest.mark.parametrize(
    ("part", "value", "complaint"),
    [
        ("data", pl.DataFrame(), "got DataFrame; recloop.Log.from_frames makes a log"),
        ("lm", 3, "an object with name, generate, count_tokens, got int; see recloop.llm"),
        ("encoder", Nameless(), "got Nameless without name; see recloop.encoders"),
        ("reranker", 3, "a function or class, got int"),
        ("prompt", 3, "a function or class, got int"),
        ("reward", 3, "a function or class, got int"),
    ],
)
def test_what_cannot_stand_for_a_part_of_a_run_is_refused_before_there_is_a_folder(
    tmp_path: Path, part: str, value: object, complaint: str
) -> None:
    with pytest.raises(SettingError, match=complaint):
        rl.run("dpo4rec", out=tmp_path / "run", progress=SILENT, **{part: value})
    assert not (tmp_path / "run").exists()


def test_what_a_run_wrote_is_joined_by_the_users_own_ids(whole: Done) -> None:
    keys = ["user_id", "variant", "seed", "number"]
    completions, vectors = (pl.read_parquet(whole.path / f"{name}.parquet") for name in ("completions", "vectors"))
    joined = completions.filter(pl.col("variant").is_in(["untuned", "trained"])).join(vectors, on=keys)
    assert joined.height == vectors.height > 0
    assert vectors.select(keys).is_unique().all()
    prompts = pl.read_parquet(whole.path / "prompts.parquet")
    assert prompts["user_id"].is_unique().all()
    assert set(prompts["group"]) == {"train", "reward", "valid", "test"}
    assert set(joined["user_id"]) == set(prompts["user_id"])
    # Every positive of the test lists is an interaction of the log under the same ids.
    log = read_log(whole.config.data, whole.config.data_seed)
    ids = log.interactions.join(log.users, on="user").join(log.items, on="item")
    met = set(ids.select("user_id", "item_id").iter_rows())
    rows = [line.split() for line in (whole.path / "qrels.trec").read_text().splitlines()]
    positives = {(query.rpartition(".")[0], item) for query, _, item, label in rows if label != "0"}
    assert positives
    assert positives <= met


def test_the_plan_without_a_language_model_samples_and_trains_nothing() -> None:
    steps = {
        step[0]: step for step in plan(Dpo4RecConfig(variants="without_lm"), {"fit": 9, "reward": 4, "test": 3}, 99, 2)
    }
    assert steps["sample"][1].startswith("up to 0 completions")
    assert steps["train"][1].startswith("0 times")
    assert steps["fit"][1].startswith("7 rerankers")  # four texts by rule, and three that read none
