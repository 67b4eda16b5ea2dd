"""The parts of a method that can be checked by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks.simulated_data import WITH_SIGNAL, WITHOUT_SIGNAL, WorldsBenchConfig, verdict
from recloop.encoders.config import EncoderConfig
from recloop.encoders.polarity import SPLIT
from recloop.errors import RunError
from recloop.evaluation.terminal import show
from recloop.experiment.run_folder import RunFolder
from recloop.methods.context import derived_seed, encoder_inputs
from recloop.methods.dpo4rec.ablations import nearest_in_length, surprisal_per_token
from recloop.methods.dpo4rec.baselines import derangement, exchange_texts
from recloop.methods.dpo4rec.compare import base_of, contrasts_of, words_of
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.cost_estimate import forecast
from recloop.methods.dpo4rec.data import PROMPTS, read_prompts
from recloop.methods.dpo4rec.evaluate import row_after
from recloop.methods.dpo4rec.recipe import recipe as dpo4rec
from recloop.methods.dpo4rec.report import at_shares, ranks
from recloop.records import Draft, UserDrafts, UserVectors
from recloop.testing import FakeEncoder


@given(st.integers(2, 60), st.integers(0, 2**32))
def test_a_derangement_is_a_permutation_that_leaves_nothing_in_place(num: int, seed: int) -> None:
    places = derangement(num, np.random.default_rng(seed))
    assert sorted(places) == list(range(num))
    assert not (places == np.arange(num)).any()


@settings(deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 2**32))
def test_texts_are_exchanged_within_their_group_only(first: int, second: int, seed: int) -> None:
    user_U = np.arange(first + second) * 3
    vectors = UserVectors(user_U, user_U[:, None, None].astype(np.float32))
    rng = np.random.default_rng(seed)
    groups = np.split(rng.permutation(user_U), [first])
    mixed = exchange_texts(vectors, [np.sort(group) for group in groups], rng)
    assert (mixed.vectors_UND[:, 0, 0] != user_U).all()
    for group in groups:
        is_member_U = np.isin(user_U, group)
        assert set(mixed.vectors_UND[is_member_U, 0, 0]) == set(group.astype(np.float32))


def drafts_of(lengths_UN: list[list[int]], logp_per_token: float = -1.0) -> UserDrafts:
    rows = [
        tuple(Draft(u, n, f"{u}.{n}", num, True, logp_per_token * num) for n, num in enumerate(lengths_N))
        for u, lengths_N in enumerate(lengths_UN)
    ]
    return UserDrafts(np.arange(len(rows)), tuple(rows))


def test_drafts_are_matched_by_length_none_twice_and_renumbered() -> None:
    drawn, wanted = drafts_of([[10, 20, 30, 40]]), drafts_of([[29, 31]])
    taken = nearest_in_length(drawn, wanted).drafts_UN[0]
    assert [(d.draft, d.num_tokens, d.text) for d in taken] == [(0, 30, "0.2"), (1, 40, "0.3")]


def test_surprisal_is_per_token_not_per_draft() -> None:
    one, other = drafts_of([[10]], -1.0).drafts_UN, drafts_of([[30]], -2.0).drafts_UN
    assert surprisal_per_token(UserDrafts(np.arange(2), one + other)) == pytest.approx((10 + 60) / 40)


def test_rows_of_rounds_carry_their_number_and_the_last_its_own_name() -> None:
    assert [row_after("tuned", r, 3) for r in (1, 2, 3)] == ["tuned_r1", "tuned_r2", "tuned"]
    assert base_of("judge_tuned_r2") == "tuned"
    assert base_of("best_of_n") == "best_of_n"
    assert words_of("tuned_r2").title == "Tuned, round 2"
    assert words_of("judge_untuned").title == "Judge: Untuned (KAR)"


def test_the_headline_contrasts_come_first_and_only_rows_that_exist_are_tested() -> None:
    names = ["untuned", "judge_untuned", "shuffled", "judge_tuned", "tuned", "random_label_dpo"]
    assert contrasts_of(names) == [
        ("tuned", "random_label_dpo"),
        ("tuned", "untuned"),
        ("tuned", "shuffled"),
        ("judge_tuned", "judge_untuned"),
    ]
    assert contrasts_of(["untuned", "shuffled"]) == [("untuned", "shuffled")]


def test_ranks_put_padding_last_and_keep_the_order_of_ties() -> None:
    scores_L = np.array([0.5, 0.9, -np.inf, 0.5])
    assert ranks(scores_L, np.array([True, True, False, True])).tolist() == [2, 1, 4, 3]


def test_what_is_shown_stands_at_the_quartiles() -> None:
    assert at_shares(list(range(101))) == [25, 50, 75]
    assert at_shares([7]) == [7]
    assert at_shares([]) == []


def test_seeds_of_different_purposes_differ() -> None:
    assert derived_seed(0, "judge") != derived_seed(0, "evaluator")
    assert derived_seed(0, "judge") != derived_seed(1, "judge")


def test_what_a_section_leaves_out_keeps_the_runs_own_default() -> None:
    config = Dpo4RecConfig.model_validate({"measure": {"mean": "list"}, "data": {"world": {"signal": 0.5}}})
    assert config.measure.metrics == Dpo4RecConfig().measure.metrics
    assert config.measure.mean == "list"
    assert config.data.world.signal == 0.5


def test_a_bench_keeps_its_own_run_where_a_setting_says_nothing() -> None:
    config = WorldsBenchConfig.model_validate({"run": {"data": {"world": {"num_users": 80}}}})
    assert (config.run.rows, config.run.drafts.fit, config.run.data.world.num_users) == ("core", 4, 80)


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"headline": "ndcg@4"}, "headline must be one of"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"backbones": ["prm", "prm"]}, "backbones must differ"),
        ({"split": {"train": 0.75, "feedback": 0.0}}, "tuning needs feedback users"),
        ({"reranker": {"use_id_history": True}}, "decided by each row"),
        ({"dpo": {"max_prompt_tokens": 100}}, "must hold every prompt"),
        ({"reward": {"metric": "ndcg"}}, "a metric is one of"),
        ({"lm": {"name": "embeded"}}, "String should match"),
    ],
)
def test_a_configuration_that_does_not_hold_together_says_why(given_settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Dpo4RecConfig.model_validate(given_settings)


def test_the_plan_counts_users_drafts_and_fits() -> None:
    text = forecast(Dpo4RecConfig.model_validate({"data": {"world": {"num_users": 40}}, "rounds": 0}))
    # 20 train and 2 valid users with 1 draft, 8 test users with 3: 46 drafts; nothing for feedback users.
    assert "up to 46 drafts" in text
    # untuned, shuffled, no knowledge, id history, star mean, history, 3 facets and all; and the judge
    assert "11 rerankers" in text
    assert "0 times" in text


@pytest.mark.parametrize(
    ("changes", "tokens"), [({}, 45), ({"drafts": {"sentences": 2}}, 30), ({"lm": {"max_tokens": 20}}, 20)]
)
def test_the_plan_knows_how_long_a_draft_is(changes: dict[str, Any], tokens: int) -> None:
    text = forecast(Dpo4RecConfig.model_validate({"data": {"world": {"num_users": 40}}} | changes))
    drafts, about = (int(num.replace(",", "")) for num in re.findall(r"([\d,]+) (?:drafts|tokens)", text))
    assert about == tokens * drafts


def test_the_plan_knows_fast_encoders() -> None:
    def seconds(name: str) -> float:
        settings = {"data": {"world": {"num_users": 40}}, "encoder": {"name": name}, "rows": "tuned"}
        text = forecast(Dpo4RecConfig.model_validate(settings))
        told = re.search(r"encode .* ([\d.]+) s$", text, re.MULTILINE)
        assert told is not None
        return float(told[1])

    assert seconds("claims") < 1 < seconds("minilm")


@pytest.mark.parametrize(("rows", "fits", "tunings"), [("core", 5, 2), ("tuned", 3, 1)])
def test_the_plan_counts_what_the_wanted_rows_need(rows: str, fits: int, tunings: int) -> None:
    text = forecast(Dpo4RecConfig.model_validate({"data": {"world": {"num_users": 40}}, "rows": rows}))
    # untuned, tuned and the judge; of core rows shuffled and random labels too
    assert f"{fits} rerankers" in text
    assert f"{tunings} times" in text


def test_the_plan_counts_every_fit_of_the_judge_and_every_pair() -> None:
    settings = {"data": {"world": {"num_users": 40}}, "rows": "tuned", "drafts": {"feedback": 4}}
    more = settings | {"reward": {"judges": 5}, "pairs": {"mode": "all_pairs"}, "dpo": {"max_pairs": 50}}
    few, many = (forecast(Dpo4RecConfig.model_validate(given)) for given in (settings, more))
    assert "3 rerankers" in few
    assert "7 rerankers" in many
    epochs = Dpo4RecConfig().dpo.epochs
    assert f"up to {10 * epochs} pairs" in few
    assert f"up to {50 * epochs} pairs" in many  # of 10 users with 6 pairs each


def unit(gap: float, seed: int) -> dict[str, object]:
    noise = np.random.default_rng(seed).normal(0, 0.05, size=(4, 60))
    levels = {"shuffled": 0.5, "untuned": 0.5, "random_label_dpo": 0.5, "tuned": 0.5 + gap}
    return {"rows": {name: (level + noise[i]).tolist() for i, (name, level) in enumerate(levels.items())}}


@pytest.mark.parametrize(
    ("gap", "with_signal", "without"), [(0.05, "holds", "DOES NOT HOLD"), (0.0, "DOES NOT HOLD", "holds")]
)
def test_the_bench_sees_a_gain_where_there_is_one_and_only_there(gap: float, with_signal: str, without: str) -> None:
    units, config = [unit(gap, seed) for seed in range(3)], WorldsBenchConfig()
    assert verdict(WITH_SIGNAL, units, config).endswith(f"untuned: {with_signal}")
    assert verdict(WITHOUT_SIGNAL, units, config).endswith(f"shuffled: {without}")


def test_one_world_against_the_others_shows_nothing() -> None:
    units = [unit(0.2, 0), unit(0.2, 1), unit(-0.05, 2)]
    assert verdict(WITH_SIGNAL, units, WorldsBenchConfig()).endswith("DOES NOT HOLD")


@pytest.mark.parametrize(("text", "got"), [("[]", r"got \[\]"), ("{}", r"got \{\}"), ("{", "is not JSON")])
def test_a_damaged_manifest_is_not_shown(tmp_path: Path, text: str, got: str) -> None:
    RunFolder.open(tmp_path, {"seed": 1}).close()
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=rf"manifest\.json .*{got}"):
        show(tmp_path)


def test_what_is_known_of_users_is_an_input_where_prompts_show_it(tmp_path: Path) -> None:
    """Otherwise a run would go on with prompts of the users' table as it was."""
    rows = [f"u{user},i{item % 40},{item % 5 + 1},{item}" for user in range(12) for item in range(user, user + 16)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,stars,time", *rows]))
    table = {"stars": "stars", "time": "time", "users": str(tmp_path / "users.csv")}
    settings = {
        "data": {"name": "table", "path": str(tmp_path / "log.csv"), "table": table},
        "prompt": {"include_profile": True},
    }

    def prompts(job: str) -> str:
        known = "\n".join(["user,job", *(f"u{user},{job}" for user in range(12))])
        (tmp_path / "users.csv").write_text(known)
        config = Dpo4RecConfig.model_validate(settings)
        with RunFolder.open(tmp_path / "run", config.model_dump(mode="json")) as run:
            dpo4rec.run(config, run, until="prepare")
            return " ".join(prompt.text for prompt in read_prompts(run.folder("prepare") / PROMPTS))

    assert "job smith" in prompts("smith")
    assert "job smith" in prompts("smith")
    with pytest.raises(RunError, match=r"prepare of .* was made from other inputs \(profiles"):
        prompts("baker")


def test_weights_of_an_encoder_are_an_input_unless_they_are_recloops_own(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    named = EncoderConfig(name=f"sentence:{folder}")
    before = encoder_inputs(named, None)
    (folder / "modules.json").write_text("[]")
    assert set(before) == {"encoder"}
    assert encoder_inputs(named, None) != before
    assert encoder_inputs(EncoderConfig(name="claims"), None) == {}
    assert encoder_inputs(EncoderConfig(name="minilm", by_polarity=True), None) == {"split": SPLIT}
    assert encoder_inputs(EncoderConfig(name="claims"), FakeEncoder()) == {"encoder": FakeEncoder().name}
