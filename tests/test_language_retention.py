"""What a tuned language model still can do: its other skills, and the log-probability of given replies."""

import numpy as np
import pytest

from recloop.language.embedded import embedded_lm_folder
from recloop.language.model import Sampling
from recloop.language.retention import RetentionConfig, evaluate_retention, held_out_replies
from recloop.records import Prompt
from tiny_lm import build_tiny_lm

pytestmark = pytest.mark.slow  # torch and transformers


@pytest.fixture(scope="module")
def answers_lm():
    from recloop.language.transformers_lm import TransformersLM

    return TransformersLM(embedded_lm_folder("answers"), device="cpu")


def test_a_reply_weighs_what_sampling_said_it_weighs(answers_lm):
    prompts, _ = held_out_replies(6, 5, np.random.default_rng(3))
    drafts = dict(answers_lm.generate(prompts, Sampling(1, 0.0, 1.0, 160, 0)))
    finished = [number for number in drafts if drafts[number][0].is_finished]
    assert len(finished) >= 4
    found = answers_lm.reply_logps(
        [prompts[number] for number in finished], [drafts[number][0].text for number in finished]
    )
    for number, (logp_sum, num_tokens) in zip(finished, found, strict=True):
        (draft,) = drafts[number]
        assert num_tokens == draft.num_tokens
        assert logp_sum == pytest.approx(draft.logp_sum, abs=1e-3)


def test_the_model_that_was_taught_these_skills_has_them(answers_lm):
    config = RetentionConfig(tasks=12, candidates=4)
    kept = evaluate_retention(answers_lm, config, 64)
    assert kept.is_right_T.shape == (12,)
    assert kept.is_right_T.mean() >= 0.5
    assert 1 < kept.perplexity < 2.5
    again = evaluate_retention(answers_lm, config, 64)
    assert again.perplexity == kept.perplexity
    assert (again.is_right_T == kept.is_right_T).all()


def test_a_model_that_was_taught_nothing_is_as_surprised_as_can_be(tmp_path):
    from recloop.language.transformers_lm import TransformersLM

    lm = TransformersLM(build_tiny_lm(tmp_path), device="cpu")
    logp_sum, num_tokens = next(lm.reply_logps([Prompt(0, "Answer.", "Why?", 0, 0)], ["So it is."]))
    assert np.exp(-logp_sum / num_tokens) > 100
