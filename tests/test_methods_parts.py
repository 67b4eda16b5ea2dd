"""The parts of a method that can be checked by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks.simulated_data.bench import WITH_SIGNAL, WITHOUT_SIGNAL, SimulatedBenchConfig, verdict
from method_cases import do_method
from recloop.artifacts import read_rows
from recloop.encoders.claims import SPLIT
from recloop.encoders.load import EncoderConfig, encoder_inputs
from recloop.errors import RunError
from recloop.evaluation.labels import base_variant
from recloop.evaluation.terminal import show
from recloop.experiment.run_folder import RunFolder
from recloop.llm.config import GpuConfig
from recloop.methods.cost_estimate import gpu_plan
from recloop.methods.dpo4rec.ablations import derangement, exchange_texts, nearest_in_length, surprisal_per_token
from recloop.methods.dpo4rec.compare import contrasts_of
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.cost_estimate import forecast
from recloop.methods.dpo4rec.data import PROMPTS
from recloop.methods.dpo4rec.names import variant_after_rounds
from recloop.methods.dpo4rec.report import at_shares, ranks
from recloop.methods.study import derived_seed
from recloop.records import Completion, Prompt, UserCompletions, UserVectors
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


def completions_of(lengths_UN: list[list[int]], logp_per_token: float = -1.0) -> UserCompletions:
    rows = [
        tuple(Completion(u, n, f"{u}.{n}", num, True, logp_per_token * num) for n, num in enumerate(lengths_N))
        for u, lengths_N in enumerate(lengths_UN)
    ]
    return UserCompletions(np.arange(len(rows)), tuple(rows))


def test_completions_are_matched_by_length_none_twice_and_renumbered() -> None:
    drawn, wanted = completions_of([[10, 20, 30, 40]]), completions_of([[29, 31]])
    taken = nearest_in_length(drawn, wanted).completions_UN[0]
    assert [(d.completion, d.num_tokens, d.text) for d in taken] == [(0, 30, "0.2"), (1, 40, "0.3")]


def test_surprisal_is_per_token_not_per_completion() -> None:
    one, other = completions_of([[10]], -1.0).completions_UN, completions_of([[30]], -2.0).completions_UN
    assert surprisal_per_token(UserCompletions(np.arange(2), one + other)) == pytest.approx((10 + 60) / 40)


def test_rows_of_rounds_carry_their_number_and_the_last_its_own_name() -> None:
    assert [variant_after_rounds("trained", r, 3) for r in (1, 2, 3)] == ["trained_r1", "trained_r2", "trained"]
    assert base_variant("reward_model_trained_r2") == "trained"
    assert base_variant("best_of_n") == "best_of_n"


def test_the_headline_contrasts_come_first_and_only_rows_that_exist_are_tested() -> None:
    names = ["untuned", "reward_model_untuned", "shuffled", "reward_model_trained", "trained", "random_label_dpo"]
    assert contrasts_of(names) == [
        ("trained", "random_label_dpo"),
        ("trained", "untuned"),
        ("trained", "shuffled"),
        ("reward_model_trained", "reward_model_untuned"),
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
    assert derived_seed(0, "reward_model") != derived_seed(0, "evaluator")
    assert derived_seed(0, "reward_model") != derived_seed(1, "reward_model")


def test_what_a_section_leaves_out_keeps_the_runs_own_default() -> None:
    config = Dpo4RecConfig.model_validate({"metrics": {"mean": "list"}, "data": {"simulated": {"signal": 0.5}}})
    assert config.metrics.names == Dpo4RecConfig().metrics.names
    assert config.metrics.mean == "list"
    assert config.data.simulated.signal == 0.5


def test_a_bench_keeps_its_own_run_where_a_setting_says_nothing() -> None:
    config = SimulatedBenchConfig.model_validate({"run": {"data": {"simulated": {"num_users": 80}}}})
    assert (config.run.variants, config.run.completions.fit, config.run.data.simulated.num_users) == ("core", 4, 80)


@pytest.mark.parametrize(
    ("given_settings", "message"),
    [
        ({"primary_metric": "ndcg@4"}, "primary_metric must be one of"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"backbones": ["prm", "prm"]}, "backbones must differ"),
        ({"split": {"train": 0.75, "reward": 0.0}}, "training needs reward users"),
        ({"reranker": {"use_id_history": True}}, "decided by each row"),
        ({"dpo": {"max_prompt_tokens": 100}}, "must hold every prompt"),
        ({"reward": {"metric": "ndcg"}}, "a metric is one of"),
        ({"lm": {"name": "embeded"}}, "a language model must be"),
    ],
)
def test_a_configuration_that_does_not_hold_together_says_why(given_settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Dpo4RecConfig.model_validate(given_settings)


def test_the_plan_counts_users_completions_and_fits() -> None:
    text = forecast(Dpo4RecConfig.model_validate({"data": {"simulated": {"num_users": 40}}, "rounds": 0}))
    # 20 train and 2 valid users with 1 completion, 8 test users with 3: 46 completions; nothing for reward users.
    assert "up to 46 completions" in text
    # untuned, untuned beside ids, shuffled, no text, id history, mean of items, history, 3 attributes and all; and the
    # reward model
    assert "12 rerankers" in text
    assert "0 times" in text


@pytest.mark.parametrize(
    ("changes", "tokens"), [({}, 45), ({"completions": {"sentences": 2}}, 30), ({"lm": {"max_tokens": 20}}, 20)]
)
def test_the_plan_knows_how_long_a_completion_is(changes: dict[str, Any], tokens: int) -> None:
    text = forecast(Dpo4RecConfig.model_validate({"data": {"simulated": {"num_users": 40}}} | changes))
    completions, about = (int(num.replace(",", "")) for num in re.findall(r"([\d,]+) (?:completions|tokens)", text))
    assert about == tokens * completions


def test_the_plan_knows_fast_encoders() -> None:
    def seconds(name: str) -> float:
        settings = {"data": {"simulated": {"num_users": 40}}, "encoder": {"name": name}, "variants": "trained"}
        text = forecast(Dpo4RecConfig.model_validate(settings))
        told = re.search(r"encode .* ([\d.]+) s$", text, re.MULTILINE)
        assert told is not None
        return float(told[1])

    assert seconds("claims") < 1 < seconds("minilm")


@pytest.mark.parametrize(("variants", "fits", "tunings"), [("core", 5, 2), ("trained", 3, 1)])
def test_the_plan_counts_what_the_wanted_variants_need(variants: str, fits: int, tunings: int) -> None:
    text = forecast(Dpo4RecConfig.model_validate({"data": {"simulated": {"num_users": 40}}, "variants": variants}))
    # untuned, trained and the reward model; of core rows shuffled and random labels too
    assert f"{fits} rerankers" in text
    assert f"{tunings} times" in text


def test_the_plan_counts_every_fit_of_the_reward_model_and_every_pair() -> None:
    settings = {"data": {"simulated": {"num_users": 40}}, "variants": "trained", "completions": {"reward": 4}}
    more = settings | {"reward": {"num_models": 5}, "pairs": {"mode": "all_pairs"}, "dpo": {"max_pairs": 50}}
    few, many = (forecast(Dpo4RecConfig.model_validate(given)) for given in (settings, more))
    assert "3 rerankers" in few
    assert "7 rerankers" in many
    epochs = Dpo4RecConfig().dpo.epochs
    assert f"up to {10 * epochs} pairs" in few
    assert f"up to {50 * epochs} pairs" in many  # of 10 users with 6 pairs each


def test_a_plan_of_a_large_log_is_estimated_from_some_of_its_users(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Dpo4RecConfig.model_validate({"data": {"simulated": {"num_users": 400}}, "rounds": 0})
    whole = forecast(config)
    monkeypatch.setattr("recloop.methods.dpo4rec.cost_estimate.PLAN_USERS", 100)
    some = forecast(config)
    assert "estimated" not in whole
    assert "estimated from 100 of 400 users, drawn" in some
    for pattern in (r"([\d,]+) train,", r"([\d,]+) completions", r"about ([\d,]+) read"):
        exact, about = (int(re.findall(pattern, text)[0].replace(",", "")) for text in (whole, some))
        assert about == pytest.approx(exact, rel=0.1)


def test_gpu_hours_by_hand() -> None:
    gpu = GpuConfig(read_per_s=1000.0, written_per_s=100.0, price=2.5, currency="EUR")
    # 3.6M / 1000 = 3600 s, 0.72M / 100 = 7200 s: three hours; nothing is trained, so no rate of training is wanted.
    assert gpu_plan(gpu, 3_600_000, 720_000, 0)[1] == "  GPU hours: about 3.0 of one, 7.50 EUR"
    assert gpu_plan(gpu, 3_600_000, 720_000, 1)[1].endswith("not known; give lm.gpu.trained-per-s")


def unit(gap: float, seed: int) -> dict[str, object]:
    noise = np.random.default_rng(seed).normal(0, 0.05, size=(4, 60))
    levels = {"shuffled": 0.5, "untuned": 0.5, "random_label_dpo": 0.5, "trained": 0.5 + gap}
    return {"variants": {name: (level + noise[i]).tolist() for i, (name, level) in enumerate(levels.items())}}


@pytest.mark.parametrize(
    ("gap", "with_signal", "without"), [(0.05, "holds", "DOES NOT HOLD"), (0.0, "DOES NOT HOLD", "holds")]
)
def test_the_bench_sees_a_gain_where_there_is_one_and_only_there(gap: float, with_signal: str, without: str) -> None:
    units, config = [unit(gap, seed) for seed in range(3)], SimulatedBenchConfig()
    assert verdict(WITH_SIGNAL, units, config).endswith(f"untuned: {with_signal}")
    assert verdict(WITHOUT_SIGNAL, units, config).endswith(f"shuffled: {without}")


def test_one_world_against_the_others_shows_nothing() -> None:
    units = [unit(0.2, 0), unit(0.2, 1), unit(-0.05, 2)]
    assert verdict(WITH_SIGNAL, units, SimulatedBenchConfig()).endswith("DOES NOT HOLD")


@pytest.mark.parametrize(("text", "got"), [("[]", r"got \[\]"), ("{}", r"got \{\}"), ("{", "is not JSON")])
def test_a_damaged_manifest_is_not_shown(tmp_path: Path, text: str, got: str) -> None:
    RunFolder.open(tmp_path, {"seed": 1}).close()
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(RunError, match=rf"manifest\.json .*{got}"):
        show(tmp_path)


@pytest.mark.slow
def test_what_is_known_of_users_is_an_input_where_prompts_show_it(tmp_path: Path) -> None:
    """Otherwise a run would go on with prompts of the users' table as it was."""
    rows = [f"u{user},i{item % 40},{item % 5 + 1},{item}" for user in range(12) for item in range(user, user + 16)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,rating,time", *rows]))
    table = {"rating": "rating", "time": "time", "time_format": "order", "users": str(tmp_path / "users.csv")}
    (tmp_path / "items.csv").write_text(
        "\n".join(["item,title,genre", *(f"i{item},T{item},g{item % 3}" for item in range(40))])
    )
    table |= {"items": str(tmp_path / "items.csv"), "attributes": ["genre"]}
    settings = {
        "data": {"name": "table", "path": str(tmp_path / "log.csv"), "table": table},
        "prompt": {"include_profile": True},
    }

    def prompts(job: str) -> str:
        known = "\n".join(["user,job", *(f"u{user},{job}" for user in range(12))])
        (tmp_path / "users.csv").write_text(known)
        config = Dpo4RecConfig.model_validate(settings)
        do_method("dpo4rec", config, tmp_path / "run", until="prepare")
        file = RunFolder.look(tmp_path / "run").folder("prepare") / PROMPTS
        return " ".join(prompt.text for prompt in read_rows(file, Prompt))

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
