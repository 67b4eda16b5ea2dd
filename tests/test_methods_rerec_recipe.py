"""ReRec from data to report on a simulated log of two dozen users, with the bundled language model."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import polars as pl
import pytest

from method_cases import do_method
from page_sentences import long_sentences
from recloop.data.simulated import SimulatedConfig
from recloop.data.splits import split_users
from recloop.errors import RunError, SettingError
from recloop.evaluation.results import Results
from recloop.evaluation.terminal import describe_table
from recloop.experiment.run_folder import RunFolder
from recloop.methods.rerec import recipe as rerec
from recloop.methods.rerec import train as rerec_training
from recloop.methods.rerec.config import NextItemConfig, ReRecConfig, VariantName, variant_of
from recloop.methods.rerec.cost_estimate import forecast
from recloop.methods.rerec.data import open_study, prepare
from recloop.methods.rerec.next_item_eval import cut_histories, fitting_text
from recloop.methods.rerec.predict import ask_run, last_model
from recloop.methods.rerec.report import answers_section
from recloop.methods.rerec.train import canonical_answers, plan_requests, scorer
from recloop.methods.study import LmRef
from recloop.progress import SILENT
from recloop.prompts.request_answer import AnswerStatus, read_answer
from recloop.records import Group, RequestKind
from recloop.rewards.advantages import Penalty
from recloop.settings import validate

SMALL = {
    "data": {"simulated": {"num_users": 24, "num_items": 120, "num_interactions": 16}},
    "requests": {"per_user": 3, "num_candidates": 5, "near_misses": 2},
    "lm": {"max_tokens": 12},
    "sft": {"max_pairs": 8, "epochs": 1},
    "grpo": {
        "max_pairs": 4,
        "batch_size": 1,
        "gradient_accumulation_steps": 2,
        "num_generations": 2,
        "max_reply_tokens": 12,
        "save_steps": 1,
        "epochs": 2,
    },
    "retention": {"tasks": 4},
    "next_item": {"users": 3},
    "statistics": {"num_flips": 100, "num_resamples": 100},
}


def config_of(**changes):
    return validate(ReRecConfig, SMALL | changes)


def do(folder, config, until=None):
    return do_method("rerec", config, folder, until)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    config = config_of(requests={"per_user": 7})
    with RunFolder.open(folder, config.model_dump(mode="json"), method="rerec") as run:
        study = open_study(config, run, SILENT, None)
        yield study, prepare(study)


@pytest.mark.slow
def test_every_canonical_answer_is_right_by_the_written_rule(prepared):
    _, task = prepared
    kinds = set()
    for group in Group:
        requests = task.requests[group]
        for request, pair in zip(requests, canonical_answers(task, requests), strict=True):
            answer = read_answer(pair.chosen, task.tests.candidate_titles(request), is_finished=True)
            assert answer.status is AnswerStatus.OK, pair.chosen
            assert request.candidates[answer.first] == request.answer
            assert answer.is_well_formed
            kinds.add(request.kind)
    assert kinds == set(RequestKind) - {RequestKind.DEMOGRAPHIC}  # a simulated log has no profiles


@pytest.mark.slow
def test_requests_survive_being_written_and_read(prepared):
    study, task = prepared
    again = prepare(study)  # found done
    assert again.requests == task.requests
    assert again.tests.prompts == task.tests.prompts


def test_the_scorer_pays_the_right_and_marks_the_wrong(prepared):
    study, task = prepared
    request = task.requests[Group.REWARD][0]
    vectors_ID = np.ones((task.graph.num_items, 8), dtype=np.float32)
    score = scorer(task, {request.number: request}, vectors_ID, variant_of(study.config, "rerec"))
    right = canonical_answers(task, [request])[0].chosen
    paid = score(request.number, right, True)
    assert paid.reward == pytest.approx(1 + 0.01 + 0.01 + 0.05)
    assert paid.bare_reward == pytest.approx(1.05)
    assert paid.wrong_spans == ()
    wrong = next(item for item in request.candidates if item != request.answer)
    title = task.tests.titles[wrong]
    text = f"Something else.\n\nSo {title} it is: \\boxed{{{title}}}"
    found = score(request.number, text, True)
    assert [text[start:end] for start, end in found.wrong_spans] == [f"So {title} it is: "]  # not the box
    assert found.terms["ndcg"] == 0
    cut = score(request.number, f"Is it {title}?\n\n{title}", False)
    assert cut.terms["endless"] == 1
    assert len(cut.wrong_spans) == 2  # both name a wrong item, and none is chosen
    as_published = scorer(task, {request.number: request}, vectors_ID, variant_of(study.config, "published_penalty"))
    assert as_published(request.number, f"Is it {title}?", False).wrong_spans == ()


@pytest.mark.parametrize(
    ("same_budget", "sizes", "shares"),
    [
        (True, [4, 2, 2], [(0.0, 0.5), (0.5, 0.75), (0.75, 1.0)]),
        (False, [4, 2], [(0.0, 0.5), (0.5, 1.0)]),
    ],
)
def test_what_the_curriculum_leaves_out_is_asked_of_others(prepared, monkeypatch, same_budget, sizes, shares):
    """Half of the requests are easy: of twice four, four are asked at first and then twice the hard two."""
    study, task = prepared
    seen = []

    def one_epoch(_shared, lm, plan, _epoch, passed):
        seen.append((len(plan.numbers), passed))
        return lm, {number: [1.05] if place % 2 else [0.4] for place, number in enumerate(plan.numbers)}

    monkeypatch.setattr(rerec_training, "one_epoch", one_epoch)
    variant = variant_of(study.config, "rerec")
    variant = variant.model_copy(
        update={"curriculum": variant.curriculum.model_copy(update={"same_budget": same_budget})}
    )
    first = LmRef("base_model", study.first_lm.folder, "")
    assert rerec_training.reinforce(study, task, first, np.zeros((1, 1)), variant, 0).label == "rerec"
    assert seen == list(zip(sizes, shares, strict=True))


def test_the_first_epoch_asks_everything_and_later_ones_what_is_hard(prepared):
    study, _ = prepared
    known = {1: 0.9, 2: 0.0, 3: 0.4, 4: 0.02}
    variant = variant_of(study.config, "rerec")
    first = plan_requests(study, known, variant, 0, 0)
    assert sorted(first.numbers) == [1, 2, 3, 4]
    assert plan_requests(study, known, variant, 0, 1).numbers == (3, 1)
    others = {1, 3}
    found = {2: 0.5, 4: 0.5} | dict.fromkeys(others, 1.0)  # nothing earned: never asked
    assert plan_requests(study, found, variant, 0, 1, others).numbers == (2, 4, 1, 3)
    plain = plan_requests(study, known, variant_of(study.config, "grpo_ndcg"), 0, 1)
    assert sorted(plain.numbers) == [1, 2, 3, 4]


def test_an_ablation_changes_one_thing():
    config = ReRecConfig()
    full = variant_of(config, "rerec")
    parts = ("reward", "advantage", "curriculum")
    changed = {
        name: [part for part in parts if getattr(variant_of(config, name), part) != getattr(full, part)]
        for name in get_args(VariantName)
        if name not in ("grpo_ndcg", "rerec")
    }
    assert changed == {
        "no_penalty": ["advantage"],
        "published_penalty": ["advantage"],
        "no_qas": ["reward"],
        "no_pas": ["reward"],
        "no_curriculum": ["curriculum"],
        "published_curriculum": ["curriculum"],
    }
    plain = variant_of(config, "grpo_ndcg")
    assert (plain.reward.qas_weight, plain.reward.pas_weight) == (0, 0)
    assert plain.advantage.penalty is Penalty.NONE
    assert not plain.curriculum.is_on


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1]}, "seeds must differ, got 1, 1"),
        ({"lm": {"name": "openai:http://x#m"}}, "ReRec trains weights on this machine"),
        ({"answering": {"completions": 3}}, "at temperature 0 all answers are the same"),
        ({"prompt": {"max_prompt_tokens": 1000}}, "sft.max_prompt_tokens must hold every prompt"),
        ({"variants": ["ppo"]}, "variants"),
        ({"transfer": [{"name": "a", "data": {}}] * 2}, "transfer names must differ, got a, a"),
        ({"transfer": [{"name": "A B", "data": {}}]}, "transfer"),
        ({"supervised": False, "reinforced": "supervised"}, "there is no supervised model to reinforce"),
    ],
)
def test_settings_that_do_not_hold_together_are_refused(changes, message):
    with pytest.raises(SettingError, match=message):
        config_of(**changes)


def test_another_log_needs_no_word_about_the_world():
    movies = validate(ReRecConfig, {"data": {"name": "ml-1m", "path": "x"}})
    assert (movies.data.name, movies.data.simulated) == ("ml-1m", SimulatedConfig())
    assert validate(ReRecConfig, movies.model_dump(mode="json")) == movies
    assert validate(ReRecConfig, {"data": {"simulated": {"num_items": 500}}}).data.simulated.num_users == 300
    with pytest.raises(SettingError, match=r"data\.simulated is read for simulated only"):
        validate(ReRecConfig, {"data": {"name": "ml-1m", "path": "x", "simulated": {"num_users": 24}}})


@pytest.mark.slow
def test_the_plan_counts_requests():
    assert "variants grpo_ndcg, rerec" in forecast(ReRecConfig())
    here = forecast(config_of())
    other = {"name": "other", "data": {}, "max_requests": 50}
    assert "60 answers to test requests, 28 of other skills, 4 models" in here
    assert "260 answers to test requests" in forecast(config_of(transfer=[other]))


@pytest.mark.slow
def test_a_run_that_was_stopped_inside_reinforcement_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    simulated = {"num_users": 12, "num_items": 60, "num_interactions": 16}
    other = {"name": "other", "data": {"simulated": simulated}, "max_requests": 5}
    config = config_of(variants=["rerec"], transfer=[other])
    assert "DEMONSTRATION" in do(whole, config)
    results = json.loads((whole / "results.json").read_text())
    rows = {row["name"] for row in results["tables"][0]["metrics"][0]["variants"]}
    assert rows == {"chance", "base_model", "supervised", "rerec"}
    kept, next_item = results["tables"][-2:]
    assert kept["title"].startswith("Retention:")
    assert kept["metrics"][0]["num_users"] == 4
    assert [table["unit"] for table in (results["tables"][0], kept, next_item)] == [
        "request",
        "session",
        "user",
    ]
    assert "mean over 4 test sessions" in describe_table(kept, results["labels"])
    assert next_item["title"].startswith("Next item:")
    assert [metric["metric"] for metric in next_item["metrics"]] == ["hr@1", "ndcg@10"]
    assert next_item["metrics"][0]["num_users"] == 3
    ranked = {row["name"] for row in next_item["metrics"][0]["variants"]}
    assert ranked == {"chance", "popularity", "item_knn", "sasrec", "base_model", "supervised", "rerec"}
    elsewhere = next(table for table in results["tables"] if table["title"] == "Elsewhere: other")
    assert elsewhere["metrics"][0]["num_users"] == 5  # requests
    assert {row["name"] for row in elsewhere["metrics"][0]["variants"]} == rows
    logged = metrics(whole)
    assert {row["retention"] for row in logged if "perplexity" in row} == {"base_model", "supervised", "rerec"}
    epochs = [row for row in logged if "mean_ndcg" in row]
    assert [row["epoch"] for row in epochs] == [0, 1]
    wanted = {"mean_qas", "mean_pas", "mean_format", "mean_endless", "mean_reward"}
    assert all(wanted <= set(row) for row in epochs)
    assert any("recall" in row and "knn_recall" in row for row in logged)
    page = (whole / "report.html").read_text()
    assert "By kind of request" in page
    assert long_sentences(page) == []
    written = Results(whole).completions()
    assert set(written["variant"]) == {"base_model", "supervised", "rerec"}
    assert set(written["tests"]) == {"", "other"}
    assert set(written.filter(pl.col("tests") == "")["user_id"]) <= {f"u{n}" for n in range(24)}
    per_user = Results(whole).per_user("hr@1").filter(pl.col("table") == "All kinds of requests")
    assert per_user["user_id"].null_count() == 0
    means = dict(per_user.group_by("variant").agg(pl.col("value").mean()).iter_rows())
    shown = Results(whole).table("hr@1").filter(pl.col("table") == "All kinds of requests")
    assert means == pytest.approx(dict(shown.select("variant", "value").iter_rows()))

    real, calls = rerec_training.read_answer, 0

    def stopping(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == 15:  # 8 answers an epoch: inside the last step of the second
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(rerec_training, "read_answer", stopping)
    with pytest.raises(KeyboardInterrupt):
        do(cut, config)
    monkeypatch.undo()
    do(cut, config)
    assert metrics(cut) == logged
    assert json.loads((cut / "results.json").read_text()) == results

    with RunFolder.reopen(whole) as run:
        genre = "a film of genre Drama please"
        told = ask_run(run, config, genre, None)
        assert "pick" in told
        assert "share of 8 answers (train.rerec.s0.e1)" in told
        assert "pick" in ask_run(run, config, "anything good", "u3")
        with pytest.raises(SettingError, match="must name an attribute"):
            ask_run(run, config, "anything good", None)
        with pytest.raises(SettingError, match="has no user nobody"):
            ask_run(run, config, genre, "nobody")
        with pytest.raises(SettingError, match="must say what is wanted"):
            ask_run(run, config, " ", "u3")


def test_the_model_that_is_asked_ended_its_variants_way():
    """A curriculum that drops requests spends its budget in more epochs than `grpo.epochs`."""
    config = config_of(variants=["grpo_ndcg", "rerec"])
    steps = {
        "train.supervised.s0": {"inputs": {}},
        "train.grpo_ndcg.s0.e0": {"inputs": {"passed": [0, 0.5]}},
        "train.grpo_ndcg.s0.e1": {"inputs": {"passed": [0.5, 1.0]}},
    }
    steps |= {f"train.rerec.s0.e{epoch}": {"inputs": {"passed": [epoch / 4, (epoch + 1) / 4]}} for epoch in range(4)}

    def asked(*without):
        there = {name: entry for name, entry in steps.items() if name not in without}
        run = SimpleNamespace(manifest={"steps": there}, is_done=there.__contains__, path="run")
        return last_model(run, config)

    assert asked() == "train.rerec.s0.e3"
    assert asked("train.rerec.s0.e3") == "train.grpo_ndcg.s0.e1"  # still on its way
    assert asked("train.rerec.s0.e3", "train.grpo_ndcg.s0.e1") == "train.supervised.s0"
    with pytest.raises(RunError, match="has no trained model yet"):
        asked("train.rerec.s0.e3", "train.grpo_ndcg.s0.e1", "train.supervised.s0")


def test_next_items_are_the_last_of_test_users_and_baselines_never_saw_them(prepared):
    study, task = prepared
    config = study.config
    found = cut_histories(study, task)
    groups = split_users(task.dataset.num_users, config.split, config.data_seed)
    tested = {session.user for session in found.test}
    assert len(tested) == 3
    assert tested <= set(groups[Group.TEST].tolist())
    fitted = {session.user for session in found.train}
    assert fitted <= set(np.concatenate([groups[Group.TRAIN], groups[Group.REWARD]]).tolist())
    log = task.dataset.interactions
    for session in found.test:
        own = log.filter(log["user"] == session.user)["item"].unique(maintain_order=True).to_list()
        assert session.answer == own[-1]
        assert session.items == tuple(own[-11:-1])
        assert len(session.candidates) == config.requests.num_candidates
    none = replace(study, config=config.model_copy(update={"next_item": NextItemConfig(users=0)}))
    assert cut_histories(none, task) is None


@pytest.mark.parametrize(
    ("changes", "start", "answering"),
    [
        ({}, "base_model", ["base_model", "supervised", "rerec"]),
        ({"reinforced": "supervised"}, "supervised", ["base_model", "supervised", "rerec"]),
        ({"supervised": False}, "base_model", ["base_model", "rerec"]),
    ],
)
def test_the_model_that_was_named_is_reinforced(prepared, monkeypatch, changes, start, answering):
    study, task = prepared
    starts, rows = [], []

    def named(label):
        return LmRef(label, study.first_lm.folder, label)

    def note(into, label, result):
        into.append(label)
        return result

    monkeypatch.setattr(rerec, "prepare", lambda _: task)
    monkeypatch.setattr(rerec, "embed_items", lambda *_: np.ones((task.graph.num_items, 2)))
    monkeypatch.setattr(rerec, "supervise", lambda *_: named("supervised"))
    monkeypatch.setattr(
        rerec, "reinforce", lambda _s, _t, lm, _v, variant, _seed: note(starts, lm.label, named(variant.name))
    )
    monkeypatch.setattr(rerec, "answer_tests", lambda _s, _t, _n, lm, _seed: note(rows, lm.label, None))
    monkeypatch.setattr(rerec, "compare_answers", lambda *_: None)
    monkeypatch.setattr(rerec, "report_study", lambda *_: None)
    rerec.rerec(replace(study, config=config_of(variants=["rerec"], **changes)))
    assert (starts, rows) == ([start], answering)


def test_a_long_history_is_cut_until_its_prompt_fits(prepared):
    study, task = prepared
    sessions = cut_histories(study, task)
    tight = study.config.grpo.model_copy(update={"max_prompt_tokens": 1})
    config = study.config.model_copy(update={"grpo": tight})
    text = fitting_text(replace(study, config=config), sessions, sessions.test[0])
    assert len(text.shown) == 1
    assert len(text.candidates) == len(sessions.test[0].candidates)


def test_nobody_answers_before_a_model_is_tuned(prepared):
    study, _ = prepared
    with pytest.raises(RunError, match="no trained model yet"):
        ask_run(study.run, study.config, "a film of genre Drama", None)


def test_statuses_of_all_seeds_stand_together_by_model_and_test_set():
    entry = {"statuses": {"ok": 3, "no_box": 0, "endless": 1}}
    steps = {"sample.rerec.s0": entry, "sample.rerec.s1": {"statuses": {"ok": 2, "no_box": 2, "endless": 0}}}
    steps |= {"sample.retention.rerec.s0": {"perplexity": 1.3}, "sample.rerec.s0.books": entry}
    table = answers_section(steps).parts[0]
    assert table.columns == ("Model", "Answers", "ok", "no candidate", "no box", "two boxes", "endless")
    assert table.rows == (
        ("ReRec", "8", "62.5%", "0.0%", "25.0%", "0.0%", "12.5%"),
        ("ReRec, books", "4", "75.0%", "0.0%", "0.0%", "0.0%", "25.0%"),
    )
