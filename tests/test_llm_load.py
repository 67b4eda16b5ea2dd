"""Language models by name."""

import pytest

from recloop.errors import BudgetError, GenerationError, SettingError
from recloop.llm.bundled import bundled_lm_folder
from recloop.llm.generate import generate
from recloop.llm.load import load_lm
from recloop.records import Prompt
from recloop.testing import FakeLM

HISTORY = '5 stars | "Glass Harbour" | era 1990s | genre Drama, War\n2 stars | "Ox" | era 1980s | genre Comedy'


def prompts_of(users):
    return [Prompt(user, "You summarise.", f"{HISTORY}\nUser {user}.", 2, 0) for user in users]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("bundeld", {}, "bundled or bundled:answers or smollm2 or smollm2:base or transformers:NAME"),
        ("transformers:", {}, "must be bundled or"),
        ("bundled", {"devise": "cpu"}, r"devise: no such setting.*device"),
        ("bundled", {"temperature": 0.5}, "temperature says how to sample.*pass it to generate"),
        ("bundled", {"pace": {"timeout_s": 3}}, "lm.pace is not read for a model in this process"),
        ("bundled", {"hook": lambda prompt: prompt}, "a hook is called before a prompt is sent"),
        ("openai:http://127.0.0.1:1/v1#m", {"device": "cpu"}, "lm.device is not read for a model behind a server"),
        ("openai:https://api.example.org/v1#m", {}, "got api.example.org.*allowed_hosts"),
        (FakeLM(), {"device": "cpu"}, "settings are for a named language model"),
    ],
)
def test_what_names_no_model_or_is_not_read_is_one_clear_error(name, settings, message):
    with pytest.raises(SettingError, match=message):
        load_lm(name, **settings)


def test_an_object_is_returned_as_it_is():
    lm = FakeLM()
    assert load_lm(lm) is lm


@pytest.mark.slow
def test_a_name_stands_for_its_weights():
    lm = load_lm("bundled", device="cpu")
    assert lm.name == load_lm(f"transformers:{bundled_lm_folder()}", device="cpu").name
    assert lm.name.startswith("llama-3.3M-")
    assert lm.name != load_lm("bundled:answers", device="cpu").name


@pytest.mark.slow
def test_a_server_is_not_asked_before_the_first_prompt():
    lm = load_lm("openai:http://127.0.0.1:1/v1#m", pace={"max_outage_s": 0.1}, budget={"max_requests": 1})
    assert lm.name.startswith("openai:http://127.0.0.1:1/v1#m-")
    with pytest.raises((GenerationError, BudgetError)):
        generate(lm, prompts_of([1]))
