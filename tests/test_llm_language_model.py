import numpy as np
import pytest

from recloop.errors import SettingError
from recloop.llm.language_model import Sampling, chat_messages, completion_uniforms, prompt_digest
from recloop.records import Prompt


def prompt(system="S", text="T", user=0):
    return Prompt(user, system, text, 1, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_completions", 0), ("temperature", -0.1), ("top_p", 0), ("top_p", 1.1), ("max_tokens", 0), ("seed", -1)],
)
def test_a_setting_out_of_bounds_is_named(field, value):
    settings = {"num_completions": 2, "temperature": 1.0, "top_p": 1.0, "max_tokens": 8, "seed": 0} | {field: value}
    with pytest.raises(SettingError, match=rf"{field} must be .*got {value}"):
        Sampling(**settings)


def test_several_completions_at_temperature_0_are_refused():
    with pytest.raises(SettingError, match="are the same, got num_completions=2"):
        Sampling(2, 0.0, 1.0, 8, 0)
    assert Sampling(1, 0.0, 1.0, 8, 0).completion_numbers == range(1)


def test_part_of_the_completions_keeps_their_numbers():
    sampling = Sampling(10, 1.0, 0.9, 8, 3)
    assert sampling.only(range(4, 10)) == Sampling(6, 1.0, 0.9, 8, 3, first_completion=4)
    assert sampling.only(range(4, 10)).completion_numbers == range(4, 10)


def test_the_digest_is_of_content_and_knows_where_the_system_part_ends():
    assert prompt_digest(prompt(user=1)) == prompt_digest(prompt(user=2))
    assert prompt_digest(prompt("ab", "c")) != prompt_digest(prompt("a", "bc"))


def test_each_completion_has_random_numbers_of_its_own():
    one = prompt_digest(prompt())
    keys = [(one, 0, 0), (one, 0, 1), (one, 1, 0), (prompt_digest(prompt(text="U")), 0, 0)]
    rows = np.array([completion_uniforms(*key, 1000) for key in keys])
    assert np.array_equal(rows[0], completion_uniforms(*keys[0], 1000))
    assert np.array_equal(rows[0, :10], completion_uniforms(*keys[0], 10))  # a longer completion begins the same
    assert ((rows >= 0) & (rows < 1)).all()
    assert np.abs(np.corrcoef(rows) - np.eye(4)).max() < 0.1  # 3 standard errors are .095
    assert np.abs(rows.mean(axis=1) - 0.5).max() < 0.03


def test_a_template_without_system_role_gets_one_message():
    assert [m["role"] for m in chat_messages(prompt())] == ["system", "user"]
    assert chat_messages(prompt(), has_system_role=False) == [{"role": "user", "content": "S\n\nT"}]
    assert chat_messages(prompt(system="")) == [{"role": "user", "content": "T"}]
