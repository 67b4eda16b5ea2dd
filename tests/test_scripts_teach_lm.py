"""Lessons for a model that others made: in its chat format, with columns of any name and titles as logs have them."""

import re
from dataclasses import replace

import numpy as np
import pytest

from recloop.llm.bundled import ROLES, bundled_lm_folder
from recloop.prompts import next_item
from recloop.prompts.claims import TITLE, HistoryItem, parse_claims, true_claims, weigh_history
from recloop.prompts.lines import clean_title
from recloop.records import Completion
from scripts.pretrain_lm.corpus import invent_history, invent_lesson
from scripts.pretrain_lm.summaries import draw_summary
from scripts.pretrain_lm.tokenizer import english_words
from scripts.teach_lm.own_texts import (
    OwnTextsConfig,
    invented_prompt,
    invented_session,
    reward_of,
    reward_of_reply,
)
from scripts.teach_lm.replay import Replay
from scripts.teach_lm.settle import divergence
from scripts.teach_lm.teach import CatalogueWords, Stage, TeachConfig, difficulty_at, in_chat_ml, shard


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
    assert 0.17 < sum(bool(re.search(r" \((19|20)\d\d\)$", title)) for title in titles) / 1000 < 0.28
    assert 0.05 < sum(bool(re.search(r", (The|A|An|Les)\b", title)) for title in titles) / 1000 < 0.11
    assert 0.17 < sum(title == title.lower() for title in titles) / 1000 < 0.27
    news_titles = [words.news_title() for _ in range(200)]
    assert all(clean_title(title) == title for title in news_titles)
    assert max(len(title.split()) for title in news_titles) == 8


def test_stages_follow_one_another_and_the_rate_falls_within_them():
    config = TeachConfig(stages=(Stage(lessons=32), Stage(lessons=64, learning_rate=4e-4, last_rate=0)))
    assert config.num_lessons == 96
    assert [config.at(lesson)[0].lessons for lesson in (0, 31, 32, 95, 96)] == [32, 32, 64, 64, 64]
    assert [config.at(lesson)[1] for lesson in (0, 32, 64, 96)] == pytest.approx([8e-4, 4e-4, 2e-4, 0])


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


def test_a_summary_has_four_claims_where_the_history_supports_them_and_stays_true():
    rng = np.random.default_rng(1)
    words = CatalogueWords(english_words(), rng)
    enough: list[int] = []
    for _ in range(200):
        attributes, items = invent_history(words, 20, rng, has_attributes=rng.random() > 0.2)
        evidence = weigh_history(attributes, items)
        summary = draw_summary(attributes or (TITLE,), evidence, rng, 4)
        parsed = parse_claims(summary.text, attributes)
        truths = {claim for claim, _ in true_claims(attributes, items)}
        assert parsed.is_well_formed
        assert set(parsed.claims) <= truths
        if len(truths) >= 4 and len(" ".join(claim.value for claim in truths).split()) < 24:  # room for them
            enough.append(len(parsed.claims))
    assert np.mean([count >= 4 for count in enough]) > 0.8  # long names take the room of others


def test_histories_of_titles_alone_are_asked_about_titles_and_show_all_of_them():
    rng = np.random.default_rng(2)
    words = CatalogueWords(english_words(), rng)
    difficulty = replace(difficulty_at(200, TeachConfig()), bare_share=1.0)
    for _ in range(20):
        lesson = invent_lesson(words, difficulty, rng)
        assert "Counted" not in lesson.trunk
        assert lesson.branches[0].question == "Analyse the preferences by title: likes and dislikes."
        for answer in lesson.branches[0].answers:
            claims = parse_claims(answer, ()).claims
            assert all(f'"{claim.value}"' in lesson.trunk for claim in claims)
            assert claims or answer in ("No clear preference.", "By title: mixed.")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_a_model_is_held_to_what_it_was_by_its_own_texts(tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = bundled_lm_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(folder),
        LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    replay = Replay.of(model, tokenizer, tmp_path / "replay.json")
    assert replay.loss(model, 0, 2).item() == pytest.approx(0, abs=1e-6)  # a new adapter changes nothing
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) / 20)
    moved = replay.loss(model, 0, 2)
    assert moved.item() > 0.01
    moved.backward()
    texts = (tmp_path / "replay.json").read_text()
    again = Replay.of(model, tokenizer, tmp_path / "replay.json")  # read, not sampled again
    assert again.loss(model, 0, 2).item() == pytest.approx(moved.item(), rel=1e-4)
    assert (tmp_path / "replay.json").read_text() == texts


def rated(rating: float, genre: str) -> HistoryItem:
    return HistoryItem("A", ((genre,),), rating)


@pytest.mark.parametrize(
    ("text", "is_finished", "reward"),
    [
        ("By genre: likes War; dislikes Noir.", True, 1.2),  # all that the history supports
        ("By genre: likes War.", True, 1.1),
        ("By genre: likes War, Noir.", True, 0.6),
        ("By genre: likes War. By genre: likes War.", True, 0.0),  # a section that comes twice
        ("By genre: likes War; dislikes Noir.", False, 0.0),
        ("I think this user likes War.", True, 0.0),
    ],
)
def test_a_text_of_the_models_own_is_rewarded_for_form_and_truth(text, is_finished, reward):
    history = (("genre",), [rated(5, "War"), rated(5, "War"), rated(1, "Noir"), rated(1, "Noir")])
    assert reward_of(Completion(0, 0, text, 8, is_finished, -1.0), history) == pytest.approx(reward)


def test_an_invented_prompt_depends_on_number_round_and_seed_alone():
    config = OwnTextsConfig()
    prompt, (attributes, items) = invented_prompt(5, config, 0)
    assert invented_prompt(5, config, 0)[0] == prompt
    assert invented_prompt(5, config, 1)[0] != prompt
    assert all(name in prompt.text for name in attributes)
    assert all(f'"{item.title}"' in prompt.text for item in items)
    asked = [invented_prompt(number, config, 0)[1] for number in range(300)]
    assert 0.28 < sum(not attributes for attributes, _ in asked) / 300 < 0.42
    assert 0.33 < sum(len(items) <= 6 for _, items in asked) / 300 < 0.55


def test_a_reply_is_rewarded_for_naming_a_candidate_and_the_right_one():
    config = OwnTextsConfig(histories=10)
    prompt, task = invented_session(4, config, 0)
    assert (prompt, task) == invented_session(4, config, 0)
    assert prompt.user == 14  # after those about histories
    titles = [item.title for item in task.session.candidates]
    right, wrong = titles[task.answer], titles[(task.answer + 1) % len(titles)]
    for text, is_finished, reward in (
        (f'By genre War:\n1. War | "{right}"', True, 1.0),
        (f'1. "{wrong}"', True, 0.6),
        ('1. "Zyzzyva of Nowhere"', True, 0.0),
        (f'1. "{right}"', False, 0.0),
    ):
        assert reward_of_reply(Completion(0, 0, text, 8, is_finished, -1.0), task) == pytest.approx(reward), text
    hints = [next_item.HINT in invented_session(number, config, 0)[0].text for number in range(200)]
    assert 0.3 < np.mean(hints) < 0.5


def test_a_model_that_settles_is_held_to_its_own_replies():
    import torch
    from transformers import AutoModelForCausalLM

    before, now = (AutoModelForCausalLM.from_pretrained(bundled_lm_folder()).eval() for _ in range(2))
    ids_1T = torch.arange(5, 25)[None]
    assert divergence(before, now, ids_1T, 12).item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        now.lm_head.weight += 0.05 * torch.randn(now.lm_head.weight.shape, generator=torch.Generator().manual_seed(0))
        logp_TV, now_TV = (model(input_ids=ids_1T).logits[0].log_softmax(-1) for model in (before, now))
    by_token_T = (logp_TV.exp() * (logp_TV - now_TV)).sum(-1)
    moved = divergence(before, now, ids_1T, 12)
    assert moved.item() == pytest.approx(by_token_T[11:19].mean().item(), rel=1e-4)  # of tokens 12 to 19
    moved.backward()
