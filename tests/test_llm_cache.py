import contextlib
import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from recloop.errors import ContractError, GenerationError, RunError
from recloop.llm import cache as journal_module
from recloop.llm.cache import DraftJournal
from recloop.llm.language_model import Sampling
from recloop.llm.sampling import sample_drafts
from recloop.records import Draft, Prompt
from recloop.testing import FakeLM

SAMPLING = Sampling(num_drafts=4, temperature=1.0, top_p=1.0, max_tokens=64, seed=0)
LINES = [
    '5 stars | "Glass Harbour" | era 1990s | genre Drama, War | director Ann Vale',
    '2 stars | "Ox" | era 1980s | genre Comedy | director Bo Lee',
    '4 stars | "Sea" | era 1970s | genre War',
]


def make_prompts(users):
    return [Prompt(u, "You summarise.", "\n".join([*LINES[: 1 + u % 3], f"User {u}."]), 1, 0) for u in users]


@pytest.fixture
def journal(tmp_path):
    with DraftJournal(tmp_path / "drafts.sqlite") as opened:
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


def test_drafts_come_back_by_user_as_the_model_wrote_them(journal):
    prompts = make_prompts([7, 2, 5])
    drafts = sample_drafts(FakeLM(), prompts, SAMPLING, journal)
    assert drafts.user_U.tolist() == [2, 5, 7]
    by_user = {drafts_N[0].user: drafts_N for _, drafts_N in FakeLM().generate(prompts, SAMPLING)}
    assert drafts.drafts_UN == tuple(by_user[user] for user in (2, 5, 7))


def test_a_draft_is_paid_for_once(journal, tmp_path):
    prompts, lm = make_prompts(range(5)), FakeLM()
    first = sample_drafts(lm, prompts, SAMPLING, journal)
    assert lm.num_asked == 20
    assert sample_drafts(lm, prompts, SAMPLING, journal).drafts_UN == first.drafts_UN
    with DraftJournal(tmp_path / "drafts.sqlite") as again:
        assert sample_drafts(lm, prompts, SAMPLING, again).drafts_UN == first.drafts_UN
    assert lm.num_asked == 20
    sample_drafts(lm, make_prompts(range(6)), SAMPLING, journal)
    assert lm.num_asked == 24


def test_more_drafts_ask_for_the_new_ones_only(journal, tmp_path):
    prompts, lm = make_prompts(range(3)), FakeLM()
    sample_drafts(lm, prompts, SAMPLING, journal)
    more = sample_drafts(lm, prompts, replace(SAMPLING, num_drafts=10), journal)
    assert lm.num_asked == 30
    with DraftJournal(tmp_path / "fresh.sqlite") as fresh:
        assert sample_drafts(FakeLM(), prompts, replace(SAMPLING, num_drafts=10), fresh).drafts_UN == more.drafts_UN


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"temperature": 0.5}, {"top_p": 0.9}, {"max_tokens": 9}],
    ids=lambda c: next(iter(c)),
)
def test_other_settings_are_other_drafts(journal, change):
    lm = FakeLM()
    sample_drafts(lm, make_prompts([1]), SAMPLING, journal)
    sample_drafts(lm, make_prompts([1]), replace(SAMPLING, **change), journal)
    assert lm.num_asked == 8


def test_another_model_and_another_prompt_are_other_drafts(journal):
    one, two = FakeLM(), FakeLM(num_facets_named=2)
    for lm in (one, two):
        sample_drafts(lm, make_prompts([1]), SAMPLING, journal)
    sample_drafts(one, [replace(make_prompts([1])[0], system="Other.")], SAMPLING, journal)
    assert (one.num_asked, two.num_asked) == (8, 4)


def test_users_with_the_same_prompt_share_drafts(journal):
    prompt, lm = make_prompts([1])[0], FakeLM()
    drafts = sample_drafts(lm, [prompt, replace(prompt, user=9)], SAMPLING, journal)
    assert lm.num_asked == 4
    assert [[d.user for d in drafts_N] for drafts_N in drafts.drafts_UN] == [[1] * 4, [9] * 4]
    assert [d.text for d in drafts.drafts_UN[0]] == [d.text for d in drafts.drafts_UN[1]]


def test_an_interrupted_run_resumes_with_the_batches_it_would_have_had(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "CHUNK_DRAFTS", 12)  # three prompts of four drafts
    prompts, whole = make_prompts(range(10)), RecordingLM()
    with DraftJournal(tmp_path / "whole.sqlite") as journal:
        expected = sample_drafts(whole, prompts, SAMPLING, journal)
    assert [len(users) for users in whole.calls] == [3, 3, 3, 1]
    cut = RecordingLM(fails_at=2)
    with DraftJournal(tmp_path / "cut.sqlite") as journal:
        with pytest.raises(KeyboardInterrupt):
            sample_drafts(cut, prompts, SAMPLING, journal)
        assert journal.totals().num_drafts == 24
        cut.fails_at = None
        assert sample_drafts(cut, prompts[::-1], SAMPLING, journal).drafts_UN == expected.drafts_UN
    assert cut.calls == whole.calls


def test_totals_count_what_is_held(journal):
    drafts = sample_drafts(FakeLM(), make_prompts(range(3)), SAMPLING, journal)
    num_tokens = sum(d.num_tokens for drafts_N in drafts.drafts_UN for d in drafts_N)
    assert (journal.totals().num_drafts, journal.totals().num_tokens) == (12, num_tokens)


def test_an_unknown_log_probability_stays_unknown(journal):
    prompt = make_prompts([1])[0]
    journal.write("lm", SAMPLING, [(prompt, [Draft(1, 0, "text", 2, True, math.nan)])])
    (found,) = journal.read("lm", [prompt], SAMPLING)
    assert math.isnan(found[0].logp_sum)
    assert found[0].is_finished is True


def test_the_first_draft_written_wins(journal):
    prompt = make_prompts([1])[0]
    for text in ("first", "second"):
        journal.write("lm", SAMPLING, [(prompt, [Draft(1, 0, text, 2, True, -1.0)])])
    assert journal.read("lm", [prompt], SAMPLING)[0][0].text == "first"


def test_two_prompts_of_one_user_are_refused(journal):
    with pytest.raises(GenerationError, match="several for user 3"):
        sample_drafts(FakeLM(), make_prompts([3, 3]), SAMPLING, journal)


def test_no_prompts_give_no_drafts(journal):
    drafts = sample_drafts(FakeLM(), [], SAMPLING, journal)
    assert (drafts.user_U.dtype, drafts.user_U.tolist(), drafts.drafts_UN) == (np.int64, [], ())


class ForgetfulLM(FakeLM):
    def generate(self, prompts, sampling):
        yield from list(super().generate(prompts, sampling))[1:]


class MiscountingLM(FakeLM):
    def generate(self, prompts, sampling):
        for position, drafts_N in super().generate(prompts, sampling):
            yield position, drafts_N[1:]


@pytest.mark.parametrize(("lm", "message"), [(ForgetfulLM(), "got 2 of 3"), (MiscountingLM(), r"got position 0")])
def test_a_model_that_leaves_something_out_is_named(journal, lm, message):
    with pytest.raises(ContractError, match=message):
        sample_drafts(lm, make_prompts(range(3)), SAMPLING, journal)
    assert journal.totals().num_drafts == 0


def test_what_is_no_journal_is_an_error(tmp_path):
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one. " * 40)
    with pytest.raises(RunError, match=r"must be an SQLite file in an existing folder, got .*text"):
        DraftJournal(tmp_path / "text")
    with pytest.raises(RunError, match="existing folder"):
        DraftJournal(tmp_path / "absent" / "drafts.sqlite")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("create table something (x)")
    other.commit()
    other.close()
    with pytest.raises(RunError, match="must have layout 3, got 0"):
        DraftJournal(tmp_path / "other")


def test_a_journal_of_the_layout_before_is_read_on(tmp_path):
    path, prompts = tmp_path / "drafts.sqlite", make_prompts(range(3))
    with DraftJournal(path) as journal:
        drafts = sample_drafts(FakeLM(), prompts, SAMPLING, journal)
    with contextlib.closing(sqlite3.connect(path)) as former:
        former.execute("alter table requests drop column sentences")
        former.execute("pragma user_version = 2")
    with DraftJournal(path) as journal:
        assert sample_drafts(RecordingLM(fails_at=0), prompts, SAMPLING, journal).drafts_UN == drafts.drafts_UN
        sample_drafts(FakeLM(), prompts, replace(SAMPLING, sentences=1), journal)
        assert journal.totals().num_drafts == 2 * 3 * SAMPLING.num_drafts
    with contextlib.closing(sqlite3.connect(path)) as later:
        rooms = later.execute("select sentences, count(*) from requests group by sentences order by sentences")
        assert rooms.fetchall() == [(None, 3), (1, 3)]


def test_two_writers_at_once_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "CHUNK_DRAFTS", 8)
    prompts, results = make_prompts(range(40)), []

    def work():
        with DraftJournal(tmp_path / "drafts.sqlite") as journal:
            results.append(sample_drafts(FakeLM(), prompts, SAMPLING, journal).drafts_UN)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert results[0] == results[1] == results[2]


WRITER = """
import sys, time
from recloop.llm import cache as journal
from recloop.testing import FakeLM
from test_language_journal import SAMPLING, make_prompts
class SlowLM(FakeLM):
    def generate(self, prompts, sampling):
        time.sleep(0.03)
        yield from super().generate(prompts, sampling)
journal.CHUNK_DRAFTS = 8
with journal.DraftJournal(sys.argv[1]) as opened:
    journal.sample_drafts(SlowLM(), make_prompts(range(400)), SAMPLING, opened)
"""


@pytest.mark.slow
def test_what_was_committed_survives_sigkill(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "CHUNK_DRAFTS", 8)
    path = tmp_path / "drafts.sqlite"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=environment)
    held = 0
    for _ in range(600):
        time.sleep(0.05)
        if path.exists():
            with DraftJournal(path) as journal:
                held = journal.totals().num_drafts
        if held >= 40:
            break
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    lm, prompts = FakeLM(), make_prompts(range(400))
    with DraftJournal(path) as journal:
        held = journal.totals().num_drafts
        resumed = sample_drafts(lm, prompts, SAMPLING, journal)
    assert 40 <= held < 1600
    assert held % 8 == 0  # whole chunks only
    assert lm.num_asked == 1600 - held
    with DraftJournal(tmp_path / "whole.sqlite") as journal:
        assert sample_drafts(FakeLM(), prompts, SAMPLING, journal).drafts_UN == resumed.drafts_UN
