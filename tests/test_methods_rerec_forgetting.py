"""What a trained language model still can do: its other skills, and the log-probability of given replies."""

import numpy as np
import pytest

from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.language_model import Sampling
from recloop.methods.rerec.forgetting import RetentionConfig, evaluate_retention
from recloop.records import Prompt
from scripts.evaluate_lm.retention_tasks import draw_replies
from tiny_lm import build_tiny_lm

pytestmark = pytest.mark.slow  # torch and transformers


@pytest.fixture(scope="module")
def answers_lm():
    from recloop.llm.local import TransformersLM

    return TransformersLM(bundled_lm_folder("answers"), device="cpu")


def test_a_reply_weighs_what_sampling_said_it_weighs(answers_lm):
    tasks = draw_replies(6, 5, np.random.default_rng(3))
    prompts = [Prompt(number, task["system"], task["text"], 0, 0) for number, task in enumerate(tasks)]
    completions = dict(answers_lm.generate(prompts, Sampling(1, 0.0, 1.0, 160, 0)))
    finished = [number for number in completions if completions[number][0].is_finished]
    assert len(finished) >= 4
    found = answers_lm.reply_logps(
        [prompts[number] for number in finished], [completions[number][0].text for number in finished]
    )
    for number, (logp_sum, num_tokens) in zip(finished, found, strict=True):
        (completion,) = completions[number]
        assert num_tokens == completion.num_tokens
        assert logp_sum == pytest.approx(completion.logp_sum, abs=1e-3)


def test_the_model_that_was_taught_these_skills_has_them(answers_lm):
    config = RetentionConfig(tasks=12)
    kept = evaluate_retention(answers_lm, config)
    assert kept.is_right_T.shape == (12,)
    assert kept.is_right_T.mean() >= 0.5
    assert 1 < kept.perplexity < 2.5
    again = evaluate_retention(answers_lm, config)
    assert again.perplexity == kept.perplexity
    assert (again.is_right_T == kept.is_right_T).all()


def test_a_model_that_was_taught_nothing_is_as_surprised_as_can_be(tmp_path):
    from recloop.llm.local import TransformersLM

    lm = TransformersLM(build_tiny_lm(tmp_path), device="cpu")
    logp_sum, num_tokens = next(lm.reply_logps([Prompt(0, "Answer.", "Why?", 0, 0)], ["So it is."]))
    assert np.exp(-logp_sum / num_tokens) > 100
