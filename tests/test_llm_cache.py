import contextlib
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from recloop.errors import ContractError, GenerationError, RunError
from recloop.llm import sampling as cache_module
from recloop.llm.cache import CompletionCache
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_completions
from recloop.records import Completion, Prompt
from recloop.testing import FakeLM

SAMPLING = Sampling(num_completions=4, temperature=1.0, top_p=1.0, max_tokens=64, seed=0)
LINES = [
    '5 stars | "Glass Harbour" | era 1990s | genre Drama, War | director Ann Vale',
    '2 stars | "Ox" | era 1980s | genre Comedy | director Bo Lee',
    '4 stars | "Sea" | era 1970s | genre War',
]


def make_prompts(users):
    return [Prompt(u, "You summarise.", "\n".join([*LINES[: 1 + u % 3], f"User {u}."]), 1, 0) for u in users]


@pytest.fixture
def cache(tmp_path):
    with CompletionCache(tmp_path / "completions.sqlite") as opened:
        yield opened


class RecordingLM(FakeLM):
    """Notes what it is asked at once, and fails on the call with number `fails_at`."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.calls, self.fails_at = [], fails_at

    def generate(self, prompts, sampling):
        if len(self.calls) == self.fails_at:
            raise KeyboardInterrupt
        self.calls.append([prompt.user for prompt in prompts])
        yield from super().generate(prompts, sampling)


def test_completions_come_back_by_user_as_the_model_wrote_them(cache):
    prompts = make_prompts([7, 2, 5])
    completions = sample_completions(FakeLM(), prompts, SAMPLING, cache)
    assert completions.user_U.tolist() == [2, 5, 7]
    by_user = {completions_N[0].user: completions_N for _, completions_N in FakeLM().generate(prompts, SAMPLING)}
    assert completions.completions_UN == tuple(by_user[user] for user in (2, 5, 7))


def test_a_completion_is_paid_for_once(cache, tmp_path):
    prompts, lm = make_prompts(range(5)), FakeLM()
    first = sample_completions(lm, prompts, SAMPLING, cache)
    assert lm.num_asked == 20
    assert sample_completions(lm, prompts, SAMPLING, cache).completions_UN == first.completions_UN
    with CompletionCache(tmp_path / "completions.sqlite") as again:
        assert sample_completions(lm, prompts, SAMPLING, again).completions_UN == first.completions_UN
    assert lm.num_asked == 20
    sample_completions(lm, make_prompts(range(6)), SAMPLING, cache)
    assert lm.num_asked == 24


def test_more_completions_ask_for_the_new_ones_only(cache, tmp_path):
    prompts, lm = make_prompts(range(3)), FakeLM()
    sample_completions(lm, prompts, SAMPLING, cache)
    more = sample_completions(lm, prompts, replace(SAMPLING, num_completions=10), cache)
    assert lm.num_asked == 30
    with CompletionCache(tmp_path / "fresh.sqlite") as fresh:
        assert (
            sample_completions(FakeLM(), prompts, replace(SAMPLING, num_completions=10), fresh).completions_UN
            == more.completions_UN
        )


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"temperature": 0.5}, {"top_p": 0.9}, {"max_tokens": 9}],
    ids=lambda c: next(iter(c)),
)
def test_other_settings_are_other_completions(cache, change):
    lm = FakeLM()
    sample_completions(lm, make_prompts([1]), SAMPLING, cache)
    sample_completions(lm, make_prompts([1]), replace(SAMPLING, **change), cache)
    assert lm.num_asked == 8


def test_another_model_and_another_prompt_are_other_completions(cache):
    one, two = FakeLM(), FakeLM(num_attributes_named=2)
    for lm in (one, two):
        sample_completions(lm, make_prompts([1]), SAMPLING, cache)
    sample_completions(one, [replace(make_prompts([1])[0], system="Other.")], SAMPLING, cache)
    assert (one.num_asked, two.num_asked) == (8, 4)


def test_users_with_the_same_prompt_share_completions(cache):
    prompt, lm = make_prompts([1])[0], FakeLM()
    completions = sample_completions(lm, [prompt, replace(prompt, user=9)], SAMPLING, cache)
    assert lm.num_asked == 4
    assert [[d.user for d in completions_N] for completions_N in completions.completions_UN] == [[1] * 4, [9] * 4]
    assert [d.text for d in completions.completions_UN[0]] == [d.text for d in completions.completions_UN[1]]


def test_an_interrupted_run_resumes_with_the_batches_it_would_have_had(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "CHUNK_COMPLETIONS", 12)  # three prompts of four completions
    prompts, whole = make_prompts(range(10)), RecordingLM()
    with CompletionCache(tmp_path / "whole.sqlite") as cache:
        expected = sample_completions(whole, prompts, SAMPLING, cache)
    assert [len(users) for users in whole.calls] == [3, 3, 3, 1]
    cut = RecordingLM(fails_at=2)
    with CompletionCache(tmp_path / "cut.sqlite") as cache:
        with pytest.raises(KeyboardInterrupt):
            sample_completions(cut, prompts, SAMPLING, cache)
        assert cache.num_completions == 24
        cut.fails_at = None
        assert sample_completions(cut, prompts[::-1], SAMPLING, cache).completions_UN == expected.completions_UN
    assert cut.calls == whole.calls


def test_an_unknown_log_probability_stays_unknown(cache):
    prompt = make_prompts([1])[0]
    cache.write("lm", SAMPLING, [(prompt, [Completion(1, 0, "text", 2, True, math.nan)])])
    (found,) = cache.read("lm", [prompt], SAMPLING)
    assert math.isnan(found[0].logp_sum)
    assert found[0].is_finished is True


def test_the_first_completion_written_wins(cache):
    prompt = make_prompts([1])[0]
    for text in ("first", "second"):
        cache.write("lm", SAMPLING, [(prompt, [Completion(1, 0, text, 2, True, -1.0)])])
    assert cache.read("lm", [prompt], SAMPLING)[0][0].text == "first"


def test_two_prompts_of_one_user_are_refused(cache):
    with pytest.raises(GenerationError, match="several for user 3"):
        sample_completions(FakeLM(), make_prompts([3, 3]), SAMPLING, cache)


def test_no_prompts_give_no_completions(cache):
    completions = sample_completions(FakeLM(), [], SAMPLING, cache)
    assert (completions.user_U.dtype, completions.user_U.tolist(), completions.completions_UN) == (np.int64, [], ())


class ForgetfulLM(FakeLM):
    def generate(self, prompts, sampling):
        yield from list(super().generate(prompts, sampling))[1:]


class MiscountingLM(FakeLM):
    def generate(self, prompts, sampling):
        for position, completions_N in super().generate(prompts, sampling):
            yield position, completions_N[1:]


@pytest.mark.parametrize(("lm", "message"), [(ForgetfulLM(), "got 2 of 3"), (MiscountingLM(), r"got position 0")])
def test_a_model_that_leaves_something_out_is_named(cache, lm, message):
    with pytest.raises(ContractError, match=message):
        sample_completions(lm, make_prompts(range(3)), SAMPLING, cache)
    assert cache.num_completions == 0


def test_what_is_no_cache_is_an_error(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one. " * 40)
    with pytest.raises(RunError, match=r"must be an SQLite file in an existing folder, got .*text"):
        CompletionCache(tmp_path / "text")
    with pytest.raises(RunError, match="existing folder"):
        CompletionCache(tmp_path / "absent" / "completions.sqlite")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("create table something (x)")
    other.commit()
    other.close()
    with pytest.raises(RunError, match="must have layout 4, got 0"):
        CompletionCache(tmp_path / "other")


def test_a_cache_of_an_older_layout_is_refused(tmp_path):
    path = tmp_path / "completions.sqlite"
    CompletionCache(path).close()
    with contextlib.closing(sqlite3.connect(path)) as former:
        former.execute("pragma user_version = 3")
    with pytest.raises(RunError, match=r"must have layout 4, got 3 in .*use a new file"):
        CompletionCache(path)


@pytest.mark.slow
def test_two_writers_at_once_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "CHUNK_COMPLETIONS", 8)
    prompts, results = make_prompts(range(40)), []

    def work():
        with CompletionCache(tmp_path / "completions.sqlite") as cache:
            results.append(sample_completions(FakeLM(), prompts, SAMPLING, cache).completions_UN)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert results[0] == results[1] == results[2]


WRITER = """
import sys, time
from recloop.llm import sampling as cache
from recloop.testing import FakeLM
from test_llm_cache import SAMPLING, make_prompts
class SlowLM(FakeLM):
    def generate(self, prompts, sampling):
        time.sleep(0.03)
        yield from super().generate(prompts, sampling)
cache.CHUNK_COMPLETIONS = 8
with cache.CompletionCache(sys.argv[1]) as opened:
    cache.sample_completions(SlowLM(), make_prompts(range(400)), SAMPLING, opened)
"""


@pytest.mark.slow
def test_what_was_committed_survives_sigkill(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "CHUNK_COMPLETIONS", 8)
    path = tmp_path / "completions.sqlite"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=environment)
    held = 0
    for _ in range(600):
        time.sleep(0.05)
        if path.exists():
            with CompletionCache(path) as cache:
                held = cache.num_completions
        if held >= 40:
            break
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    lm, prompts = FakeLM(), make_prompts(range(400))
    with CompletionCache(path) as cache:
        held = cache.num_completions
        resumed = sample_completions(lm, prompts, SAMPLING, cache)
    assert 40 <= held < 1600
    assert held % 8 == 0  # whole chunks only
    assert lm.num_asked == 1600 - held
    with CompletionCache(tmp_path / "whole.sqlite") as cache:
        assert sample_completions(FakeLM(), prompts, SAMPLING, cache).completions_UN == resumed.completions_UN


def test_only_its_owner_reads_the_file(tmp_path):
    with CompletionCache(tmp_path / "completions.sqlite") as cache:
        sample_completions(FakeLM(), make_prompts(range(2)), SAMPLING, cache)
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes["completions.sqlite"] == 0o600
    assert set(modes.values()) == {0o600}  # what SQLite writes beside it too


def test_a_changed_bit_of_a_row_is_noticed_when_it_is_read(tmp_path):
    path = tmp_path / "completions.sqlite"
    prompt = Prompt(0, "", "History.", 1, 0)
    sampling = Sampling(2, 1.0, 1.0, 8, 0)
    written = tuple(Completion(0, n, f"likes {n}", 3, True, -1.5 if n else float("nan")) for n in range(2))
    with CompletionCache(path) as cache:
        cache.write("lm", sampling, [(prompt, written)])
        changed = Completion(0, 0, "another", 3, True, -1.0)
        cache.write("lm", sampling, [(prompt, [changed])])  # the first one stays, with its digest
        assert [one.text for one in cache.read("lm", [prompt], sampling)[0].values()] == ["likes 0", "likes 1"]
    with closing(sqlite3.connect(path)) as damaged, damaged:
        damaged.execute("update completions set text = 'likes 3' where completion = 1")
    with CompletionCache(path) as cache, pytest.raises(RunError, match="is damaged: a row is not what was written"):
        cache.read("lm", [prompt], sampling)


def test_a_cache_of_an_earlier_version_is_read_on(tmp_path):
    path = tmp_path / "completions.sqlite"
    prompt, sampling = Prompt(0, "", "History.", 1, 0), Sampling(1, 1.0, 1.0, 8, 0)
    with CompletionCache(path) as cache:
        cache.write("lm", sampling, [(prompt, [Completion(0, 0, "likes War", 3, True, -1.0)])])
    with closing(sqlite3.connect(path)) as older, older:
        older.execute("drop table digests")
    with CompletionCache(path) as cache:
        assert cache.read("lm", [prompt], sampling)[0][0].text == "likes War"
