import numpy as np
import pytest

from recloop.errors import SettingError
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.completion_text import first_sentences
from recloop.llm.language_model import Sampling
from recloop.llm.local import TransformersLM, sentence_stop
from recloop.records import Prompt

HISTORY = """List what the user likes and dislikes.
"Glass Harbour" | Drama, War | J. Moreau | 5 stars
"The Ox" | Comedy | Ann Reed | 2 stars
"A Sea of Salt" | War, Drama | J. Moreau | 4 stars
"Two Left Shoes" | Comedy | Ann Reed | 1 stars
"North" | Drama | J. Moreau | 5 stars"""


@pytest.fixture(scope="module")
def lm():
    return TransformersLM(bundled_lm_folder(), device="cpu")


def completions_of(lm, **settings):
    prompts = [Prompt(user, "", HISTORY + f'\n"Coda {user}" | War | Ann Reed | 4 stars', 6, 0) for user in (0, 1)]
    sampling = Sampling(6, 1.0, 1.0, 64, 3, **settings)
    found = dict(lm.generate(prompts, sampling))
    return [completion for position in range(len(prompts)) for completion in found[position]]


@pytest.mark.slow
@pytest.mark.parametrize("num_sentences", [1, 2])
def test_a_stopped_completion_is_the_beginning_of_the_whole_one(lm, num_sentences):
    whole, stopped = completions_of(lm), completions_of(lm, sentences=num_sentences)
    assert [d.text for d in stopped] == [first_sentences(d.text, num_sentences) for d in whole]
    shorter = [(a, b) for a, b in zip(stopped, whole, strict=True) if a.text != b.text]
    assert shorter
    for a, b in shorter:
        assert a.is_finished
        # The token that begins the next sentence is the last one sampled.
        assert len(lm._tokenizer(a.text).input_ids) <= a.num_tokens < b.num_tokens
        assert a.logp_sum >= b.logp_sum
    same = [(a, b) for a, b in zip(stopped, whole, strict=True) if a.text == b.text]
    assert all(a.num_tokens == b.num_tokens for a, b in same)


def test_a_sentence_is_over_when_the_next_begins(lm):
    is_over = sentence_stop(lm._tokenizer, 0, 1)
    # An initial and a mark at the end of what is written decide nothing yet.
    texts = {
        "By genre: likes War. By": True,
        "By genre: likes War.": False,
        "By maker: likes J. Moreau": False,
    }
    for text, wanted in texts.items():
        assert is_over(np.array([lm._tokenizer(text).input_ids])).tolist() == [wanted], text
    assert sentence_stop(lm._tokenizer, 0, 2)(np.array([lm._tokenizer("War. By").input_ids])).tolist() == [False]


def test_room_for_no_sentence_is_an_error():
    with pytest.raises(SettingError, match="sentences must be at least 1, or None for all; got 0"):
        Sampling(1, 1.0, 1.0, 8, 0, sentences=0)
