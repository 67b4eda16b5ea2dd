"""Prompts in the chat template of a model in this process: the same for sampling, training and counting."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from recloop.errors import GenerationError
from recloop.llm.language_model import LanguageModel, chat_messages
from recloop.llm.template_limits import limited_rendering, require_modest
from recloop.llm.weights import base_folder_of, reading
from recloop.records import Prompt

CHAT_TOKENS = 16  # guess: what a chat template adds around the two turns, where it cannot be counted
# Variables of chat templates that no prompt sets, and their values.
SETTLED = {
    "enable_thinking": "{%- set enable_thinking = false -%}",
    "strftime_now": "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro -%}",
}


def own_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model's folder, or of the base where an adapter has none of its own."""
    from transformers import AutoTokenizer

    source = folder if (folder / "tokenizer_config.json").is_file() else base_folder_of(folder)
    with reading(source, "tokenizer"):
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)


def load_tokenizer(folder: Path) -> Any:
    """`own_tokenizer`, with a chat template that asks for no reasoning and says the same date every day.

    Otherwise a run that is resumed tomorrow would have other prompts.
    """
    tokenizer = own_tokenizer(folder)
    template = tokenizer.chat_template
    try:
        for text in template.values() if isinstance(template, dict) else filter(None, [template]):
            require_modest(text)
    except Exception as error:  # one of Jinja's, or a limit is passed
        raise _bad_template(tokenizer, error) from error
    if isinstance(template, str):
        settled = [text for name, text in SETTLED.items() if name in template]
        tokenizer.chat_template = "".join([*settled, template])
    return tokenizer


def token_counter(tokenizer: Any) -> Callable[[str], int]:
    """Counts the tokens of a text without a template, as the tokenizer does; by its backend, in half the time."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or backend.truncation is not None or backend.padding is not None:
        # Not verbose: a text that is too long is no reason to warn, since counting is how that is found out.
        return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    return lambda text: len(backend.encode(text, add_special_tokens=False))


def messages_of(prompt: Prompt, tokenizer: Any) -> list[dict[str, str]]:
    """The conversation before the reply: in one turn where the chat template has no system role."""
    return chat_messages(prompt, has_system_role=takes_system_role(tokenizer))


@lru_cache(maxsize=4)
def takes_system_role(tokenizer: Any) -> bool:
    """Whether the chat template shows the system message; some refuse or omit it. GenerationError: there is none."""
    if not tokenizer.chat_template:
        raise GenerationError(
            f"a language model must come with a chat template, got none in {tokenizer.name_or_path}; "
            f"use an instruction-tuned model, or set tokenizer.chat_template and save it again"
        )
    probe = Prompt(user=0, system="Be brief.", text="A probe.", num_items_shown=0, num_items_cut=0)
    try:
        has_role = "Be brief." in render_chat(tokenizer, chat_messages(probe))
    except GenerationError:
        has_role = False
    if "A probe." not in render_chat(tokenizer, chat_messages(probe, has_system_role=has_role)):
        raise GenerationError(
            f"a chat template must show what it is asked, got one that does not in {tokenizer.name_or_path}; "
            f"use another model"
        )
    return has_role


def render_prompt(prompt: Prompt, tokenizer: Any) -> str:
    """The prompt inside the chat template, up to where the answer begins."""
    return render_chat(tokenizer, messages_of(prompt, tokenizer), add_generation_prompt=True)


def render_chat(tokenizer: Any, messages: list[dict[str, str]], **options: Any) -> str:
    """The conversation in the chat template; GenerationError where that fails or has no end."""
    try:
        with limited_rendering("<template>"):
            return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    except Exception as error:  # whatever a template of others can raise
        raise _bad_template(tokenizer, error) from error


def _bad_template(tokenizer: Any, error: Exception) -> GenerationError:
    return GenerationError(
        f"the chat template of {tokenizer.name_or_path} must write a conversation, got: {error}; use another model, or "
        f"mend tokenizer.chat_template and save it again"
    )


def chat_tokens(lm: LanguageModel) -> int:
    """Tokens that a chat template adds around the two turns; a guess where the model does not show it."""
    render = getattr(lm, "render", None)
    if render is None:
        return CHAT_TOKENS
    probe = Prompt(user=0, system="s", text="t", num_items_shown=0, num_items_cut=0)
    return max(CHAT_TOKENS, lm.count_tokens(render(probe)) - lm.count_tokens("s") - lm.count_tokens("t"))
