"""Preflight: completions of no use stop a run before it costs anything, and numbers of a run stay as they are."""

from pathlib import Path

import pytest

from method_cases import do_method
from recloop.cli import main
from recloop.data.load import read_log
from recloop.errors import GenerationError, RecloopError, SettingError
from recloop.evaluation.report_sections import preflight_section
from recloop.experiment.run_folder import RunFolder
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.re2llm.config import Re2llmConfig
from recloop.methods.rerec.config import ReRecConfig
from recloop.prompts.plausibility import check_profiles, check_replies, repeats
from recloop.records import Completion, CompletionStatus, Prompt
from tiny_lm import build_tiny_lm

SIMULATED = {"data": {"simulated": {"num_users": 60, "num_items": 150, "num_interactions": 24}}}
REQUESTS = {"data": {"simulated": {"num_users": 24, "num_items": 120, "num_interactions": 16}}}
SESSIONS = {"data": {"simulated_sessions": {"num_train": 24, "num_test": 10, "num_items": 240}}}
CASES = (("dpo4rec", Dpo4RecConfig, SIMULATED), ("rerec", ReRecConfig, REQUESTS), ("re2llm", Re2llmConfig, SESSIONS))


@pytest.fixture(autouse=True)
def _looked(monkeypatch):
    monkeypatch.setattr("recloop.methods.preflight.NUM_PROMPTS", 20)


def said(text, *, is_finished=True, status=CompletionStatus.OK):
    return Completion(0, 0, text, 9, is_finished, 0.0, status)


def test_shares_of_texts_by_hand():
    prompts = [Prompt(n, "", f"{n} genre Drama | director Ann Vale", 1, 0) for n in range(4)]
    texts = ("likes Drama.", "likes Drama, Drama.", "likesanddrink.", "likes War.")
    found = check_profiles(prompts, [said(f"By genre: {text}") for text in texts], ("genre",), is_canonical=True)
    assert {one.what: one.share for one in found} == {
        "usable and finished": 1.0,
        "in canonical form": 0.5,
        "claims on values of the prompt": 2 / 3,
        "repeating itself": 0.25,
        "different texts of different prompts": 1.0,
    }
    assert [one.what for one in found if not one.is_within] == ["in canonical form"]
    prose = check_profiles(prompts, [said("Likes dramas.", is_finished=False)] * 4, ("genre",), is_canonical=False)
    assert [one.what for one in prose if not one.is_within] == ["usable and finished"]
    refused = [said("", status=CompletionStatus.REFUSED)] * 4
    assert check_profiles(prompts, refused, ("genre",), is_canonical=False)[0].share == 0


def test_loops_repeat_themselves():
    assert repeats("I like it and I like it and " * 6)
    assert not repeats("This person likes old dramas, prefers directors like Ann Vale, and avoids loud war films.")


def test_replies_clearly_below_chance_are_beyond_a_bound_and_bad_luck_is_not():
    """20 misses at a chance of 1/2 happen once in a million times; at 1/20 to every third model that guesses."""
    misses, readable = [False] * 20, [True] * 20
    (*_, half) = check_replies([said("a")] * 20, readable, misses, 0.5, "hits")
    (*_, twentieth) = check_replies([said("a")] * 20, readable, misses, 0.05, "hits")
    assert (half.is_within, twentieth.is_within) == (False, True)
    (_, unreadable, _) = check_replies([said("a")] * 20, [True] * 5 + [False] * 15, misses, 0.05, "hits")
    assert not unreadable.is_within


@pytest.mark.slow
@pytest.mark.parametrize(("method", "config", "settings"), CASES)
def test_a_model_for_something_else_is_stopped_and_may_be_let_through(method, config, settings, tmp_path: Path):
    """Random weights write no text about a user, and the bundled model for such texts does not rank."""
    random = {"name": f"transformers:{build_tiny_lm(tmp_path / 'lm')}", "max_tokens": 12}
    settings = settings | {"lm": random if method == "dpo4rec" else {"name": "bundled"}}
    with pytest.raises(GenerationError, match=r"must be of use, got of 20 completions .* preflight=warn goes on"):
        do_method(method, config.model_validate(settings), tmp_path / "run", "preflight")
    assert list(RunFolder.look(tmp_path / "run").manifest["steps"]) == ["prepare"]
    warned = config.model_validate(settings | {"preflight": "warn"})
    do_method(method, warned, tmp_path / "run", "preflight")  # the same folder goes on
    made = RunFolder.look(tmp_path / "run").manifest["steps"]["preflight"]
    assert any(row[-1] == "beyond" for row in made["findings"])
    assert preflight_section(made).parts[0].rows == tuple(map(tuple, made["findings"]))


@pytest.mark.slow
@pytest.mark.parametrize(("method", "config", "settings"), CASES)
def test_the_bundled_models_pass_on_simulated_data(method, config, settings, tmp_path: Path):
    do_method(method, config.model_validate(settings), tmp_path, "preflight")
    findings = RunFolder.look(tmp_path).manifest["steps"]["preflight"]["findings"]
    assert all(row[-1] == "" for row in findings)


@pytest.mark.slow
def test_texts_of_a_run_are_the_same_with_and_without_it(tmp_path: Path):
    for mode in ("off", "stop"):
        config = Dpo4RecConfig.model_validate(SIMULATED | {"preflight": mode, "rounds": 0})
        do_method("dpo4rec", config, tmp_path / mode, "sample")
    names = [path.relative_to(tmp_path / "off") for path in (tmp_path / "off/steps").rglob("*.parquet")]
    assert len(names) == 3
    for name in names:
        assert (tmp_path / "off" / name).read_bytes() == (tmp_path / "stop" / name).read_bytes()


@pytest.mark.slow
def test_a_dry_run_checks_too_and_writes_nothing(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("[data.simulated]\nnum_users = 60\nnum_items = 150\nnum_interactions = 24\n")
    assert main(["run", "dpo4rec", "--config", "a.toml", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("preflight, 20 completions:\n  usable and finished")
    assert "in all" in out
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]
    lm = build_tiny_lm(tmp_path / "lm")
    assert main(["run", "dpo4rec", "--config", "a.toml", "--dry-run", "--lm", f"transformers:{lm}"]) == 1
    assert "must be of use" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo4rec", "rerec"])
def test_a_dry_run_of_a_large_log_tries_some_of_its_users_and_reads_it_once(
    method: str, tmp_path: Path, capsys, monkeypatch
):
    reads: list[str] = []

    def read(config, *given):
        reads.append(config.name)
        return read_log(config, *given)

    monkeypatch.setattr("recloop.methods.run_log.read_log", read)
    for module in ("dry_run", "run_log"):
        monkeypatch.setattr(f"recloop.methods.{module}.PROMPT_USERS", 40)
    settings = ["--data.simulated.num-users", "90", "--data.simulated.num-items", "150"]
    assert main(["run", method, *settings, "--data.simulated.num-interactions", "24", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "tried with 40 of 90 users, drawn" in out
    assert "90 users" in out.partition("tried")[2]
    assert reads == ["simulated"]


def test_a_run_until_a_step_that_it_does_not_have_is_refused(tmp_path: Path):
    config = Dpo4RecConfig.model_validate(SIMULATED | {"preflight": "off"})
    with pytest.raises(SettingError, match="leave the setting out"):
        do_method("dpo4rec", config, tmp_path, "preflight")


@pytest.mark.slow
def test_an_encoder_that_cannot_be_had_is_told_before_anything_is_written(tmp_path: Path):
    config = Dpo4RecConfig.model_validate(SIMULATED | {"encoder": {"name": f"sentence:{tmp_path / 'absent'}"}})
    with pytest.raises(RecloopError, match="absent"):
        do_method("dpo4rec", config, tmp_path / "run", "sample")
    assert list(RunFolder.look(tmp_path / "run").manifest["steps"]) == ["prepare"]
    assert not (tmp_path / "run" / "completions.sqlite").exists()
