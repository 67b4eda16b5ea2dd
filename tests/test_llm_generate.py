"""Completions without a cache at hand, and drawn again until a check accepts them."""

from collections import Counter

import numpy as np
import pytest

from recloop.data.lists import candidate_lists
from recloop.data.load import load_log
from recloop.errors import RunError, SettingError
from recloop.llm.generate import generate
from recloop.prompts.text_truth import assess_texts, check_of, truth_check
from recloop.prompts.user_profile import PromptConfig, population_rates_of, profile_prompts
from recloop.records import Completion, CompletionStatus, Prompt
from recloop.testing import FakeLM

HISTORY = '5 stars | "Glass Harbour" | era 1990s | genre Drama, War\n2 stars | "Ox" | era 1980s | genre Comedy'


def prompts_of(users):
    return [Prompt(user, "You summarise.", f"{HISTORY}\nUser {user}.", 2, 0) for user in users]


def test_users_come_back_in_order_with_their_prompts_and_completions():
    prompts = prompts_of([9, 3])
    texts = generate(FakeLM(), prompts, n=3, seed=4)
    assert texts.user_U.tolist() == [3, 9]
    assert texts.user_U.dtype == np.int64
    assert texts.prompts_U == (prompts[1], prompts[0])
    assert [[d.completion for d in completions_N] for completions_N in texts.completions_UN] == [[0, 1, 2]] * 2
    assert generate(FakeLM(), prompts, n=3, seed=4).completions_UN == texts.completions_UN
    assert generate(FakeLM(), prompts, n=3, seed=5).completions_UN != texts.completions_UN


def test_a_cache_file_keeps_completions_between_calls(tmp_path):
    lm = FakeLM()
    first = generate(lm, prompts_of([1, 2]), n=2, cache=tmp_path / "completions.sqlite")
    again = generate(lm, prompts_of([1, 2, 3]), n=2, cache=str(tmp_path / "completions.sqlite"))
    assert lm.num_asked == 6
    assert again.completions_UN[:2] == first.completions_UN
    with pytest.raises(RunError, match="existing folder"):
        generate(lm, prompts_of([1]), cache=tmp_path / "absent" / "completions.sqlite")


def test_sampling_settings_are_checked():
    with pytest.raises(SettingError, match="num_completions must be at least 1; got 0"):
        generate(FakeLM(), prompts_of([1]), n=0)
    with pytest.raises(SettingError, match="at temperature 0 all completions of a prompt are the same"):
        generate(FakeLM(), prompts_of([1]), n=2, temperature=0)


@pytest.fixture(scope="module")
def log():
    return load_log(users=40)


@pytest.fixture(scope="module")
def lists(log):
    return candidate_lists(log)


def texts_of(completions):
    return [[one.text for one in completions_N] for completions_N in completions.completions_UN]


def test_a_refused_completion_is_drawn_again_and_an_accepted_one_stays(tmp_path):
    prompts, lm = prompts_of([1, 2, 3, 4]), FakeLM()
    once = generate(lm, prompts, n=3)
    refused = {texts_of(once)[0][0]}
    seen = Counter()

    def accept(prompt, completion):
        seen[prompt.user] += 1
        return completion.text not in refused

    cache = tmp_path / "completions.sqlite"
    found = generate(lm, prompts, n=3, accept=accept, tries=20, cache=cache)
    assert [[one.completion for one in row] for row in found.completions_UN] == [[0, 1, 2]] * 4
    assert not any(text in refused for row in texts_of(found) for text in row)
    for before, after in zip(texts_of(once), texts_of(found), strict=True):
        assert all(b == a for b, a in zip(before, after, strict=True) if b not in refused)
    assert set(seen) == {1, 2, 3, 4}
    asked = lm.num_asked
    again = generate(lm, prompts, n=3, accept=accept, tries=20, cache=cache)
    assert again.completions_UN == found.completions_UN
    assert lm.num_asked == asked  # further draws are kept too


def test_no_more_is_drawn_than_tries_allow_and_what_is_refused_is_empty_in_the_end():
    lm, drawn = FakeLM(), []
    found = generate(lm, prompts_of([1]), n=2, accept=lambda prompt, one: drawn.append(one.text), tries=3)
    assert lm.num_asked == 6
    (last,) = found.completions_UN
    assert drawn[:2] == texts_of(generate(FakeLM(), prompts_of([1]), n=2))[0]
    assert [one.raw for one in last] == texts_of(generate(FakeLM(), prompts_of([1]), n=6))[0][4:]
    assert {(one.text, one.status, one.reason) for one in last} == {
        ("", CompletionStatus.UNACCEPTED, "refused by the check, 3 draws")
    }
    (once,) = generate(FakeLM(), prompts_of([1]), n=2, accept=lambda prompt, one: one.completion == 0).completions_UN
    assert [one.status.value for one in once] == ["ok", "unaccepted"]


@pytest.mark.parametrize(
    "settings",
    [
        {"tries": 0},
        {"tries": "2"},
        {"tries": 2},
        {"tries": 2, "accept": "true"},
        {"tries": 2, "temperature": 0, "accept": bool},
    ],
)
def test_more_than_one_try_needs_a_check_and_draws_that_differ(settings):
    with pytest.raises(SettingError, match="tries must be a whole number from 1, and more need a check as accept"):
        generate(FakeLM(), prompts_of([1]), **settings)


def test_a_check_is_made_of_a_log_and_its_own_lists(log, lists):
    for wrong in ((lists, log), (log, lists.histories), (log, lists.test)):
        with pytest.raises(SettingError, match="needs a Log, its CandidateLists"):
            truth_check(*wrong)
    with pytest.raises(SettingError, match="likes_by='sum'"):
        truth_check(log, lists, likes_by="sum")
    with pytest.raises(SettingError, match="must be those of the log"):
        truth_check(load_log(users=41), lists)


def test_a_check_by_share_is_that_of_prompts_by_share(log, lists):
    prompts = profile_prompts(log, lists, likes_by="share")
    rates = population_rates_of(log, lists.histories, np.unique(lists.train.user_B), PromptConfig(likes_by="share"))
    by_share, by_rating = truth_check(log, lists, likes_by="share"), truth_check(log, lists)
    facts = [by_share.facts_of(prompt.user) for prompt in prompts]
    assert facts == [check_of(log, lists.histories, rates).facts_of(prompt.user) for prompt in prompts]
    assert facts != [by_rating.facts_of(prompt.user) for prompt in prompts]


def test_checked_texts_say_nothing_untrue(log, lists):
    prompts = profile_prompts(log, lists, template="attributed")
    lm = FakeLM(log.attributes)
    before = assess_texts(log, lists.histories, generate(lm, prompts, n=3))
    check = truth_check(log, lists)
    after = assess_texts(log, lists.histories, generate(lm, prompts, n=3, accept=check, tries=50))
    assert before.true < 0.9
    assert after.true == 1.0
    assert 0.9 * before.num_texts < after.num_texts <= before.num_texts


def test_the_check_refuses_what_is_cut_off_unusable_or_not_in_form(log, lists):
    prompt, nothing = prompts_of([0])[0], Completion(0, 0, "Likes what nobody knows.", 4, True, -1.0)
    check = truth_check(log, lists)
    assert check(prompt, nothing)
    assert not check(prompt, Completion(0, 0, nothing.text, 4, False, -1.0))
    assert not check(prompt, Completion(0, 0, "", 4, True, -1.0, CompletionStatus.REFUSED))
    assert not truth_check(log, lists, in_form=True)(prompt, nothing)
    genre = log.items["genre"].explode().drop_nulls()[0]
    for text in ("By genre: likes Nonesuch.", f"By era: likes {genre}."):  # no such value; a value of another attribute
        assert not check(prompt, Completion(0, 0, text, 6, True, -1.0))
