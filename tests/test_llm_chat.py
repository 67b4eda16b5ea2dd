"""Prompts in chat templates other than ours: what one of them asks for, all readers are told alike."""

import shutil

import pytest

from recloop.errors import GenerationError, SettingError
from recloop.llm.chat import CHAT_TOKENS, chat_tokens, load_tokenizer, messages_of, takes_system_role
from recloop.llm.local import TransformersLM
from recloop.records import Pair, Prompt
from recloop.training.dataset import require_short, select_rows
from recloop.training.dpo import DpoConfig
from tiny_lm import CHAT_TEMPLATE, build_tiny_lm

pytestmark = pytest.mark.slow

PROMPT = Prompt(3, "Sum up.", "One line.", 1, 0)
TURN = "<|{{ m.role }}|>{{ m.content }}<|end|>"
TURNS = "{%- for m in messages -%}" + TURN + "{%- endfor -%}"
OPENING = "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
# As Gemma's: no system role.
REFUSAL = "{%- if messages[0].role == 'system' -%}{{ raise_exception('no system role') }}{%- endif -%}"
DROPPING = "{%- for m in messages if m.role != 'system' -%}" + TURN + "{%- endfor -%}"
# As Qwen3's: reasons unless it is told not to; the last reply shows that it did not.
REASONING = (
    "{%- for m in messages -%}<|{{ m.role }}|>"
    "{%- if m.role == 'assistant' and loop.last -%}<think></think>{%- endif -%}"
    "{{ m.content }}<|end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>"
    "{%- if enable_thinking is defined and enable_thinking is false -%}<think></think>{%- endif -%}"
    "{%- endif -%}"
)
# As Llama 3's: a preamble with today's date unless it is given one.
DATE = (
    "{%- if not date_string is defined -%}{%- if strftime_now is defined -%}"
    "{%- set date_string = strftime_now('%d %b %Y') -%}{%- endif -%}{%- endif -%}"
    "<|system|>Cutting Knowledge Date: December 2023. Today Date: {{ date_string }}."
)
TEMPLATES = {
    "refusing": REFUSAL + TURNS + OPENING,
    "dropping": DROPPING + OPENING,
    "reasoning": REASONING,
    "dated": DATE + TURNS + OPENING,
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return build_tiny_lm(tmp_path_factory.mktemp("lm") / "lm")


def with_template(plain, folder, template):
    shutil.copytree(plain, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder


@pytest.mark.parametrize("kind", TEMPLATES)
def test_sampling_and_tuning_read_the_same_prompt(plain, tmp_path, kind):
    lm_folder = with_template(plain, tmp_path / "lm", TEMPLATES[kind])
    lm = TransformersLM(lm_folder, device="cpu")
    tokenizer = load_tokenizer(lm_folder)
    rendered = tokenizer.apply_chat_template(messages_of(PROMPT, tokenizer), tokenize=False, add_generation_prompt=True)
    assert lm.render(PROMPT) == rendered
    assert "Sum up." in rendered
    num_tokens = lm.count_tokens(rendered)
    require_short(lm_folder, [PROMPT], num_tokens)
    with pytest.raises(SettingError, match=f"got {num_tokens} for 3;"):
        require_short(lm_folder, [PROMPT], num_tokens - 1)
    pair = Pair(0, 3, 0, 1, "likes Drama", "likes War", 1.0, 0.0)
    rows = select_rows(lm_folder, {3: PROMPT}, [pair], DpoConfig(), 0).rows
    assert len(rows) == 1


@pytest.mark.parametrize("method", ["dpo", "sft", "grpo"])
def test_a_template_with_all_of_it_can_be_tuned_with(plain, tmp_path, monkeypatch, method):
    """No system role, reasoning and a date at once: what TRL renders itself is what was sampled."""
    from transformers import Trainer

    from recloop.rewards.advantages import AdvantageConfig
    from recloop.training.dpo import run_dpo
    from recloop.training.grpo import run_grpo
    from recloop.training.grpo_config import AnswerReward, GrpoConfig, ScoredAnswer
    from recloop.training.grpo_trainer import TokenGrpoTrainer
    from recloop.training.result import TrainingRun
    from recloop.training.sft import SftConfig, run_sft

    lm_folder = with_template(plain, tmp_path / "lm", REFUSAL + DATE + REASONING)
    pairs = [Pair(0, 3, 0, 1, "likes Drama", "likes War", 1.0, 0.0)]
    budget = {"batch_size": 1, "gradient_accumulation_steps": 1, "epochs": 1}
    prompts, run = {3: PROMPT}, TrainingRun(lm_folder, tmp_path / "out", 0, scratch=tmp_path / "work")
    learn, answer, read = Trainer.training_step, TokenGrpoTrainer._generate_single_turn, []

    def learning(self, model, inputs, *rest):
        if method != "grpo":
            read.extend(inputs["input_ids"])
        return learn(self, model, inputs, *rest)

    def answering(self, prompt_ids, *rest, **named):
        read.extend(prompt_ids)
        return answer(self, prompt_ids, *rest, **named)

    monkeypatch.setattr(Trainer, "training_step", learning)
    monkeypatch.setattr(TokenGrpoTrainer, "_generate_single_turn", answering)
    match method:
        case "dpo":
            config = DpoConfig(**budget)
            found = run_dpo(run, prompts, pairs, config)
        case "sft":
            config = SftConfig(**budget)
            found = run_sft(run, prompts, pairs, config)
        case _:
            config = GrpoConfig(
                batch_size=1, gradient_accumulation_steps=1, num_generations=2, max_reply_tokens=4, max_pairs=1
            )

            def score(number, text, is_finished):
                return ScoredAnswer(float(len(text)), float(len(text)), (), {})

            found = run_grpo(run, [PROMPT], AnswerReward(score, "test", AdvantageConfig()), config).trained
    assert len(found.log) == 1
    rendered = TransformersLM(lm_folder, device="cpu").render(PROMPT)
    texts = load_tokenizer(lm_folder).batch_decode(read)
    assert len(texts) == (1 if method == "sft" else 2)
    assert all(text.startswith(rendered) for text in texts)
    saved = (found.folder / "chat_template.jinja").read_text()
    assert saved == (lm_folder / "chat_template.jinja").read_text()  # settled in memory alone


def test_the_date_is_the_same_on_every_day(plain, tmp_path):
    folder = with_template(plain, tmp_path / "lm", TEMPLATES["dated"])
    assert "Today Date: 26 Jul 2024." in TransformersLM(folder, device="cpu").render(PROMPT)


def test_reasoning_is_off(plain, tmp_path):
    folder = with_template(plain, tmp_path / "lm", REASONING)
    assert TransformersLM(folder, device="cpu").render(PROMPT).endswith("<|assistant|><think></think>")


def test_our_own_template_stays_as_it_is(plain):
    tokenizer = load_tokenizer(plain)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert takes_system_role(tokenizer)


def test_tokens_around_the_turns_are_counted(plain, tmp_path):
    """A budget that guesses them is overrun by templates with a preamble, after everything was sampled."""
    long = with_template(plain, tmp_path / "lm", TEMPLATES["dated"])
    assert chat_tokens(TransformersLM(plain, device="cpu")) == CHAT_TOKENS  # fewer than the guess
    lm = TransformersLM(long, device="cpu")
    around = chat_tokens(lm)
    assert around > CHAT_TOKENS
    assert lm.count_tokens(lm.render(PROMPT)) <= around + lm.count_tokens("Sum up.") + lm.count_tokens("One line.")


def test_an_end_token_of_the_template_closes_a_measured_reply(plain, tmp_path):
    """A tokenizer's end token can be another than the one that ends a turn."""
    import json

    folder = with_template(plain, tmp_path / "lm", CHAT_TEMPLATE)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["eos_token"] = "<|pad|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    lm, population_rates = TransformersLM(folder, device="cpu"), TransformersLM(plain, device="cpu")
    assert list(lm.reply_logps([PROMPT], ["likes Drama"])) == list(
        population_rates.reply_logps([PROMPT], ["likes Drama"])
    )


def test_no_template_is_said(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "lm")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(GenerationError, match="must come with a chat template"):
        TransformersLM(folder, device="cpu")
