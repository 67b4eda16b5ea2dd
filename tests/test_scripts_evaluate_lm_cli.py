"""`python -m scripts.evaluate_lm` from its settings to its output."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recloop.data.lists import candidate_lists
from recloop.data.load import load_log
from recloop.errors import SettingError
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.prompts.lines import clean_title
from recloop.prompts.user_profile import PromptConfig
from recloop.testing import FakeLM
from scripts.evaluate_lm.__main__ import main
from scripts.evaluate_lm.cli import EvaluateLmConfig, evaluate_lm, evaluation_text, skill_text
from scripts.evaluate_lm.general import CHECKS, general_text, perplexity
from scripts.evaluate_lm.tasks import session_drawer
from scripts.evaluate_lm.text_quality import SummarySkill, evaluate_summaries
from tiny_lm import build_tiny_lm

SKILL = SummarySkill(
    num_users=3,
    num_completions=6,
    well_formed=0.5,
    grounded=1.0,
    true=0.25,
    true_likes=0.2,
    true_dislikes=float("nan"),
    coverage=0.125,
    claims_per_completion=2.5,
    claims_of_four=4.5,
    distinct_attribute_sets=1.5,
    tokens_per_completion=20.04,
    tokens_per_s=1234.56,
)


def test_shares_are_in_percent_and_counts_are_not() -> None:
    lines = skill_text(SKILL).splitlines()
    assert lines[0] == "3 users, 6 completions"
    assert lines[1] == "    50.0 %  completions in the canonical form and finished"
    assert "    12.5 %  of a user's five strongest likes are named by a completion" in lines
    assert "     nan %  dislikes that the history supports" in lines
    assert "     2.5    claims per completion" in lines
    assert lines[-1] == "  1234.6    tokens per second"


@pytest.mark.slow
def test_an_untrained_model_writes_nothing_well_formed(tmp_path: Path) -> None:
    lm = LmConfig(name=f"transformers:{build_tiny_lm(tmp_path)}", max_tokens=8, device="cpu")
    skill = evaluate_lm(EvaluateLmConfig(users=5, completions=2, lm=lm, prompt={"max_prompt_tokens": 440}))
    assert (skill.num_users, skill.num_completions) == (5, 10)
    assert skill.well_formed == 0
    assert skill.coverage == 0
    assert 1 <= skill.tokens_per_completion <= 8


@pytest.mark.slow
def test_texts_are_measured_as_they_come_and_checked_only_where_they_may_be_drawn_again() -> None:
    log = load_log(users=40)
    histories = candidate_lists(log).histories
    asked = FakeLM(log.attributes), log, histories, np.arange(40), Sampling(1, 1.0, 1.0, 64, 0)
    prompt = PromptConfig(template="attributed")
    plain, checked = (evaluate_summaries(*asked, prompt, tries=tries) for tries in (1, 40))
    assert plain.well_formed == 1.0  # nothing was left empty
    assert plain.true < 0.9
    assert checked.true == 1.0
    assert checked.well_formed > 0.7


def test_more_users_than_the_log_has_are_refused() -> None:
    with pytest.raises(SettingError, match="has 400 users, got users=401"):
        evaluate_lm(EvaluateLmConfig(users=401))


def test_an_evaluation_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got users=0 and tasks=0"):
        EvaluateLmConfig(users=0)


@pytest.mark.slow
def test_tasks_alone_leave_summaries_out() -> None:
    lm = LmConfig(name="bundled:answers", max_tokens=8, device="cpu")
    lines = evaluation_text(EvaluateLmConfig(users=0, tasks=2, candidates=3, lm=lm)).splitlines()
    assert lines[0] == "next item, invented sessions: 2 tasks, 3 candidates, chance 33.3 %"
    assert "requests, invented catalogues: 2 tasks, 3 candidates, chance 33.3 %" in lines


def test_it_writes_nothing_and_takes_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", "skill"]) == 2
    assert "writes no files, got --out skill" in capsys.readouterr().err


def test_sessions_of_a_log_have_one_right_candidate_and_real_titles() -> None:
    log = load_log(users=40)
    draw = session_drawer(log)
    rng = np.random.default_rng(0)
    titles = set(map(clean_title, log.items["title"]))
    for _ in range(30):
        task = draw(12, rng)
        column = log.attributes.index(task.hidden)
        shared = set(task.session.shown[-1].values[column])
        right = task.session.candidates[task.answer]
        values = [value for value in right.values[column] if value in shared]
        assert values
        holders = [item for item in task.session.candidates if set(values) <= set(item.values[column])]
        assert right in holders
        assert any([item for item in holders if value in item.values[column]] == [right] for value in values)
        assert len({item.title for item in task.session.candidates}) == 12
        assert {item.title for item in task.session.shown} <= titles


def test_the_general_text_is_fixed_and_the_rules_of_the_checks_can_fail() -> None:
    text = general_text()
    assert 20_000 < len(text) < 60_000
    assert "  " not in text
    assert len(CHECKS) == 10
    assert [text for text, rule in CHECKS if re.search(rule, "By genre: likes Drama.")] == []


@pytest.mark.slow
def test_the_perplexity_of_a_model_is_that_of_its_own_loss(tmp_path: Path) -> None:
    build_tiny_lm(tmp_path / "lm")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")
    ids = torch.tensor([tokenizer("Likes Drama. Dislikes War.", add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert perplexity(model, tokenizer, "Likes Drama. Dislikes War.") == pytest.approx(math.exp(loss), rel=1e-5)
