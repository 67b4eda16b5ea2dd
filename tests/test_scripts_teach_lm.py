"""Lessons for a model that others made: in its chat format, with columns of any name and titles as logs have them."""

import re

import numpy as np
import pytest

from recloop.llm.bundled import ROLES, bundled_lm_folder
from scripts.pretrain_lm.tokenizer import english_words
from scripts.teach_lm.teach import CatalogueWords, TeachConfig, difficulty_at, in_chat_ml, shard


def test_the_marks_of_a_lesson_become_those_of_chatml():
    text = "<|system|>You rank.<|end|><|user|>5 films\nRank them.<|end|><|assistant|>Ox<|end|>"
    assert in_chat_ml(text) == (
        "<|im_start|>system\nYou rank.<|im_end|>\n<|im_start|>user\n5 films\nRank them.<|im_end|>\n"
        "<|im_start|>assistant\nOx<|im_end|>"
    )


def test_columns_have_any_name_and_titles_years_commas_and_numbers():
    words = CatalogueWords(english_words(), np.random.default_rng(0))
    columns = [words.column("kind") for _ in range(400)]
    own = [name for name in columns if name not in ROLES["kind"]]
    assert 0.5 < len(own) / len(columns) < 0.7
    assert len(set(own)) > 0.9 * len(own)
    titles = [words.title() for _ in range(1000)]
    assert 0.3 < sum(bool(re.search(r" \((19|20)\d\d\)$", title)) for title in titles) / 1000 < 0.4
    assert 0.08 < sum(bool(re.search(r", (The|A|An|Les)\b", title)) for title in titles) / 1000 < 0.16


def test_candidates_grow_over_the_lessons():
    config = TeachConfig(candidates_grow_over=100, max_candidates=20)
    assert [difficulty_at(lesson, config).max_candidates for lesson in (0, 50, 100, 500)] == [4, 12, 20, 20]


@pytest.mark.slow
def test_a_shard_depends_on_its_number_and_seed_alone_and_answers_are_learnt():
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(bundled_lm_folder())
    config = TeachConfig(max_items=6)
    lessons, again = (shard(tokenizer, 3, config) for _ in range(2))
    assert [lesson.ids_T.tolist() for lesson in lessons] == [lesson.ids_T.tolist() for lesson in again]
    assert lessons[0].ids_T.tolist() != shard(tokenizer, 4, config)[0].ids_T.tolist()
    for lesson in lessons:
        text = tokenizer.decode(lesson.ids_T)
        assert text.startswith("<|im_start|>system\nYou ")
        learnt = tokenizer.decode(lesson.target_S)
        assert "<|im_start|>" not in learnt  # no question, and nothing of the history
        assert learnt.count("<|im_end|>") >= text.count("<|im_start|>assistant")  # an answer of each question, or more
