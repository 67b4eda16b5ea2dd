"""The bundled LM's recipe: lessons are true, packing changes nothing, a stopped run ends the same."""

import re
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from recloop.errors import SettingError
from recloop.prompts.claims import HistoryItem, Polarity, parse_claims, true_claims, weigh_history
from scripts.pretrain_lm.corpus import Difficulty, Words, invent_history, invent_lesson
from scripts.pretrain_lm.lesson_loss import collate, lesson_loss
from scripts.pretrain_lm.pretrain import (
    PretrainConfig,
    export,
    learning_rate_at,
    make_model,
    make_tokenizer,
    pretrain,
)
from scripts.pretrain_lm.shards import (
    TokenLesson,
    allowed_tokens,
    batches_of,
    lessons_of_shard,
    token_lesson,
)
from scripts.pretrain_lm.summaries import Choice, Summary, draw_summary
from scripts.pretrain_lm.tokenizer import english_words

SMALL = PretrainConfig(
    vocab_size=600, width=32, num_layers=2, num_heads=2, mlp_width=32, budget_tokens=6000, repeat_tokens=3000,
    reading_tokens=3000, lessons_per_shard=4, batch_tokens=1024, warmup_steps=2, checkpoint_every_s=0.001,
)  # fmt: skip

pytestmark = pytest.mark.slow  # a tokenizer is trained first


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer(SMALL)


def test_every_summary_of_the_corpus_is_true():
    rng = np.random.default_rng(0)
    words = Words(english_words(), rng)
    num_claims = 0
    for _ in range(300):
        attributes, items = invent_history(words, 20, rng)
        parsed = parse_claims(draw_summary(attributes, weigh_history(attributes, items), rng).text, attributes)
        assert parsed.is_well_formed
        assert set(parsed.claims) <= {claim for claim, _ in true_claims(attributes, items)}
        num_claims += len(parsed.claims)
    assert num_claims / 300 > 3


def test_summaries_of_one_history_differ():
    rng = np.random.default_rng(1)
    words = Words(english_words(), rng)
    attributes, items = invent_history(words, 30, rng)
    while len(true_claims(attributes, items)) < 8:
        attributes, items = invent_history(words, 30, rng)
    evidence = weigh_history(attributes, items)
    assert len({draw_summary(attributes, evidence, rng).text for _ in range(10)}) >= 8


def test_without_ratings_every_set_of_sides_is_equally_likely_and_little_is_left_out():
    # Two columns, each with one value twice and three values once: four sides, 15 sets of them.
    values = [(("a",), ("p",)), (("a",), ("p",)), *(((f"b{n}",), (f"q{n}",)) for n in range(3))]
    items = [HistoryItem(f"title {n}", one, None) for n, one in enumerate(values)]
    attributes, rng = ["kind", "maker"], np.random.default_rng(0)
    evidence = weigh_history(attributes, items)
    completions = [parse_claims(draw_summary(attributes, evidence, rng).text, attributes).claims for _ in range(3000)]
    counts = Counter(frozenset((c.attribute, c.polarity) for c in claims) for claims in completions)
    assert len(counts) == 15
    assert max(counts.values()) < 1.5 * min(counts.values())  # 200 each, give or take 14
    for claims in completions:
        sides = {(c.attribute, c.polarity) for c in claims}
        held = sum(1 if polarity is Polarity.LIKES else 3 for _, polarity in sides)
        assert min(4, held) <= len(claims) <= 7


def test_at_every_place_of_a_summary_any_option_can_continue_to_a_true_summary():
    """Cut a summary at a place, take another option there, end as soon as possible: still true."""
    rng = np.random.default_rng(5)
    words = Words(english_words(), rng)
    num_ends, num_others = 0, 0
    for _ in range(200):
        attributes, items = invent_history(words, 25, rng)
        evidence = weigh_history(attributes, items)
        truths = {claim for claim, _ in true_claims(attributes, items)}
        summary = draw_summary(attributes, evidence, rng)
        text_before = ""
        for choice in summary.choices:
            assert choice.taken in choice.options
            assert len(set(choice.options)) == len(choice.options)
            for option in choice.options:
                text = text_before + option
                if option == "" or option.endswith("."):
                    pass
                elif option.startswith(" ") and text_before.endswith((" likes", " dislikes", " also", ",")):
                    text += "."
                else:
                    continue  # a section, a side or a comma says nothing yet
                parsed = parse_claims(text, attributes)
                assert parsed.is_well_formed, text
                assert set(parsed.claims) <= truths, text
                num_ends += 1
                num_others += option != choice.taken
            text_before += choice.taken
    assert num_ends > 1500
    assert num_others > 1000


def test_allowed_tokens_are_those_of_all_options_that_begin_as_the_taken_one(tokenizer):
    def encode(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, add_special_tokens=False)["input_ids"]

    values = (" Drama", " Dragon Tales", " War")
    summary = Summary(
        (
            Choice(("By genre:", "By era:"), "By genre:"),
            Choice((" likes",), " likes"),
            Choice(values, values[1]),
            Choice((",", "."), "."),
            Choice(("",), ""),
        )
    )
    allowed = allowed_tokens(summary, encode)
    written = encode([summary.text + "<|end|>"])[0]
    assert allowed is not None
    assert [len(tokens) > 0 for tokens in allowed] == [True] * len(written)
    assert all(token in tokens for token, tokens in zip(written, allowed, strict=True))
    start = len(encode(["By genre: likes"])[0])
    assert set(allowed[start]) == {encode([value])[0][0] for value in values}
    assert allowed[-1] == encode(["<|end|>"])[0]
    odd = Summary((Choice((" Inc.",), " Inc."), Choice((",", "."), "."), Choice(("",), "")))
    ids: dict[str, int] = {}

    def merge_marks(texts: list[str]) -> list[list[int]]:
        return [[ids.setdefault(p, len(ids)) for p in re.findall(r"<.*>|\w+|[.,;]+", x)] for x in texts]

    taken, other = (merge_marks([f"Inc.{mark}"])[0][1] for mark in (".", ","))
    assert allowed_tokens(odd, merge_marks)[1] == sorted({taken, other})  # "Inc.." ends in one token, not in two
    assert allowed_tokens(summary, merge_marks) is not None

    def merge_spaces(texts: list[str]) -> list[list[int]]:
        return [[ids.setdefault(p, len(ids)) for p in re.findall(r"<.*>|\w+:? ?|[.,;]+", x)] for x in texts]

    assert allowed_tokens(summary, merge_spaces) is None  # "genre: " is one token, but a piece begins with the space


def test_a_choice_costs_minus_the_log_of_all_its_tokens_together(tokenizer):
    torch.manual_seed(0)
    model = make_model(SMALL, tokenizer).eval()
    pieces = [[7, 8, 9, 10], [11, 12], [20, 21, 22]]
    lesson = token_lesson(pieces, [1], False, {2: [[20, 30, 31], [], [22]]})
    with torch.no_grad():
        logp = model(torch.tensor([[*pieces[0], *pieces[1], *pieces[2]]])).logits[0, 5:8].log_softmax(-1)
        drawn = [logp[place, token] for place, token in enumerate(pieces[2])]
        together = logp[0, [20, 30, 31]].logsumexp(0)
        expected = -(together + 0.3 * drawn[0] + drawn[1] + 1.3 * drawn[2]) / 3
        batch = collate([lesson, token_lesson([[5, 6], [7], [8]], [1], False)])
        alone = collate([lesson])
        everyone = torch.arange(len(tokenizer))
        assert lesson_loss(model, alone, None, 0.3).item() == pytest.approx(float(expected), rel=1e-5)
        assert lesson_loss(model, alone, everyone, 0.3).item() == pytest.approx(float(expected), rel=1e-5)
        other = lesson_loss(model, collate([token_lesson([[5, 6], [7], [8]], [1], False)]), None)
        both = (3 * expected + other) / 4
        assert lesson_loss(model, batch, None, 0.3).item() == pytest.approx(float(both), rel=1e-5)


def test_packed_branches_cost_what_they_cost_alone(tokenizer):
    """Trunk t, question q, answers a and b packed = the mean over the sequences t q a and t q b."""
    torch.manual_seed(0)
    model = make_model(SMALL, tokenizer).eval()
    rng = np.random.default_rng(2)
    pieces = [rng.integers(5, 600, size=n).tolist() for n in (11, 4, 5, 3, 6, 7)]
    trunk, q1, a, b, q2, c = pieces
    packed = token_lesson(pieces, [2, 1], supervise_trunk=False)
    with torch.no_grad():
        together = lesson_loss(model, collate([packed]), negatives=None) * len(packed.target_S)
        alone = 0.0
        for question, answer in ((q1, a), (q1, b), (q2, c)):
            ids = torch.tensor([trunk + question + answer])
            logits = model(ids).logits[0, len(trunk) + len(question) - 1 : -1]
            alone += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum")
    assert together.item() == pytest.approx(float(alone), rel=1e-5)


def test_padding_changes_no_loss(tokenizer):
    model = make_model(SMALL, tokenizer).eval()
    rng = np.random.default_rng(3)
    lessons = [
        token_lesson([rng.integers(5, 600, size=n).tolist() for n in sizes], [1], False)
        for sizes in ((40, 4, 9), (5, 3, 2))
    ]
    with torch.no_grad():
        one_by_one = sum(lesson_loss(model, collate([x]), None) * len(x.target_S) for x in lessons)
        together = lesson_loss(model, collate(lessons), None) * sum(len(x.target_S) for x in lessons)
    assert together.item() == pytest.approx(float(one_by_one), rel=1e-5)


def test_negatives_represent_the_whole_vocabulary(tokenizer):
    """Negatives, each weighted by how many tokens it represents, give the right sum, so the right loss."""
    torch.manual_seed(0)
    model = make_model(SMALL, tokenizer)
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    lessons = lessons_of_shard(
        lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"], len(tokenizer), 2,
        Difficulty(4, 0.0, 2, 2, 1), (5, 0),
    )  # fmt: skip
    batch = collate(lessons)
    with torch.no_grad():
        whole = lesson_loss(model, batch, negatives=None).item()
        draws = [lesson_loss(model, batch, torch.randint(len(tokenizer), (300,))).item() for _ in range(20)]
        few = [lesson_loss(model, batch, torch.randint(len(tokenizer), (30,))).item() for _ in range(100)]
    assert np.mean(draws) == pytest.approx(whole, rel=0.01)
    assert np.mean(few) == pytest.approx(whole, rel=0.05)


def test_counted_lessons_tell_the_truth_of_all_items_and_show_some():
    rng = np.random.default_rng(2)
    words = Words(english_words(), rng)
    longest = 0
    for _ in range(200):
        lesson = invent_lesson(words, Difficulty(12, 0.0, 3, 2, 1, counted_share=1.0), rng)
        lines = lesson.trunk.split("<|user|>")[1].splitlines()
        counted = next(n for n, line in enumerate(lines) if line.startswith("Counted"))
        num_items = int(lines[0].split()[0])
        assert counted - 1 <= min(num_items, 16)
        longest = max(longest, num_items)
        sections = {line.removeprefix("By ").split(":")[0]: line for line in lines[counted + 1 :]}
        for answer in lesson.branches[0].answers:
            parsed = parse_claims(answer, tuple(sections))
            assert parsed.is_well_formed
            for claim in parsed.claims:  # a claim beyond the eight strongest of its side is true, yet not shown
                if sections[claim.attribute].count(",") < 7:
                    assert f"{claim.value}" in sections[claim.attribute]
    assert longest > 100


def test_shards_depend_only_on_their_seed(tokenizer):
    def make():
        return lessons_of_shard(
            lambda texts: tokenizer(texts, add_special_tokens=False)["input_ids"],
            600, 6, Difficulty(6, 0.3, 2, 3, 1), (7, 1),
        )  # fmt: skip

    first, again = make(), make()
    for lesson, other in zip(first, again, strict=True):
        for field in fields(TokenLesson):
            assert np.array_equal(getattr(lesson, field.name), getattr(other, field.name))
    batches = batches_of(first, 600, np.random.default_rng(0))
    assert sum(map(len, batches)) == len(first)


def test_trunk_tokens_are_those_of_a_rendered_prompt(tokenizer):
    """What the model is trained on, piece by piece, is what the chat template renders at run time."""
    rng = np.random.default_rng(4)
    lesson = invent_lesson(Words(english_words(), rng), Difficulty(8, 0.0, 1, 2, 1), rng)
    system, user = lesson.trunk.removeprefix("<|system|>").split("<|end|><|user|>")
    question = lesson.branches[0].question
    rendered = tokenizer.apply_chat_template(
        [{"role": "system", "content": system}, {"role": "user", "content": f"{user}\n{question}"}],
        tokenize=False, add_generation_prompt=True,
    )  # fmt: skip
    pieces = [lesson.trunk, f"\n{question}<|end|><|assistant|>"]
    joined = [token for ids in tokenizer(pieces, add_special_tokens=False)["input_ids"] for token in ids]
    assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == joined


def test_sharpness_multiplies_the_logits_of_the_exported_model_alone(tokenizer, tmp_path: Path):
    from transformers import LlamaForCausalLM

    model = make_model(SMALL, tokenizer).eval()
    ids = torch.randint(5, SMALL.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model(ids).logits
        export(model, tokenizer, tmp_path / "sharp", sharpness=1.5)
        after = LlamaForCausalLM.from_pretrained(tmp_path / "sharp", dtype=torch.float32).eval()(ids).logits
        assert torch.equal(model(ids).logits, before)
    torch.testing.assert_close(after, 1.5 * before, rtol=0.02, atol=0.02)


def test_an_exported_model_may_be_the_mean_of_two(tokenizer, tmp_path: Path):
    from transformers import LlamaForCausalLM

    model, start = (make_model(SMALL.model_copy(update={"seed": seed}), tokenizer) for seed in (1, 2))
    export(model, tokenizer, tmp_path / "mean", 1.0, start, 0.25)
    found = LlamaForCausalLM.from_pretrained(tmp_path / "mean", dtype=torch.float32).state_dict()
    for name, mine in model.state_dict().items():
        wanted = 0.75 * mine + 0.25 * start.state_dict()[name]
        torch.testing.assert_close(found[name], wanted, rtol=2e-3, atol=1e-5)
    with pytest.raises(ValueError, match="without start; give start"):
        PretrainConfig(start_share=0.5)


def test_any_text_comes_back(tokenizer):
    text = 'Amélie 漢字 "x" 5 stars | 1990s \x07 🎬\n'
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_learning_rate_warms_up_and_falls_to_zero():
    config = PretrainConfig(budget_tokens=100_000, fall_share=0.5, learning_rate=1.0, warmup_steps=10)
    assert learning_rate_at(0, 0, config) == pytest.approx(0.1)
    assert learning_rate_at(50, 40_000, config) == pytest.approx(1.0)
    assert learning_rate_at(90, 75_000, config) == pytest.approx(0.5)
    assert learning_rate_at(99, 100_000, config) == 0.0


def test_a_stopped_run_ends_where_an_unstopped_one_does(tokenizer, tmp_path: Path, monkeypatch):
    import json

    import safetensors.torch

    monkeypatch.setattr("scripts.pretrain_lm.pretrain.make_tokenizer", lambda config: tokenizer)
    whole = pretrain(SMALL, tmp_path / "whole")
    # half the budget first: the rate falls only over the last part, which neither half run reaches here
    flat = SMALL.model_copy(update={"fall_share": 1e-9, "full_softmax_from": 1.0})
    straight = pretrain(flat, tmp_path / "straight")
    pretrain(flat.model_copy(update={"budget_tokens": 3000}), tmp_path / "stopped")
    resumed = pretrain(flat, tmp_path / "stopped")
    one, two = (safetensors.torch.load_file(f / "model.safetensors") for f in (straight, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = safetensors.torch.load_file(whole / "model.safetensors")
    assert not all(torch.equal(one[name], other[name]) for name in one)
    lines = [json.loads(line) for line in (tmp_path / "straight" / "curve.jsonl").read_text().splitlines()]
    assert lines[-1]["tokens"] >= SMALL.budget_tokens
    with pytest.raises(SettingError, match="width"):
        pretrain(SMALL.model_copy(update={"width": 48}), tmp_path / "stopped")
