"""Re2LLM whole, with a language model that follows hints: does choosing pay, and only where it can?"""

import json
import os
import signal
import subprocess
import sys
import time
import zlib
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fake_hint_follower import FakeHintFollower
from fake_server import FakeServer
from page_sentences import long_sentences
from recloop.errors import DataError, RunError, SettingError
from recloop.evaluation.results import Results
from recloop.evaluation.terminal import show
from recloop.experiment.run_folder import RunFolder
from recloop.llm.language_model import Sampling
from recloop.methods.method import run_method
from recloop.methods.re2llm import METHOD
from recloop.methods.re2llm.config import Re2llmConfig
from recloop.methods.re2llm.cost_estimate import count_calls, forecast
from recloop.methods.re2llm.hint_base import HintBase, read_hint_base
from recloop.methods.re2llm.predict import recommend
from recloop.methods.re2llm.reflection import HINTS
from recloop.methods.re2llm.repeats import score_on_halves
from recloop.progress import SILENT
from recloop.records import Prompt
from recloop.testing import FakeEncoder

SMALL: dict[str, Any] = {
    "data": {"simulated_sessions": {"num_train": 120, "num_test": 150, "num_items": 240}},
    "policy": {"steps": 1536, "lr": 1e-3},
    "explore": {"max_mistakes": 48},
    "statistics": {"num_flips": 5000, "num_resamples": 200},
}
TINY = SMALL | {
    "seeds": [0],
    "data": {"simulated_sessions": {"num_train": 24, "num_test": 12, "num_items": 240}},
    "policy": {"steps": 32, "rollout": 32},
}


def config_of(settings: dict[str, Any], **changes: Any) -> Re2llmConfig:
    return Re2llmConfig.model_validate(settings | changes)


def do(config: Re2llmConfig, path: Path, lm: FakeHintFollower | None = None, until: str | None = None) -> str:
    objects = {"lm": lm or FakeHintFollower(), "encoder": FakeEncoder()}
    with RunFolder.open(path, config.model_dump(mode="json"), method="re2llm") as folder:
        return run_method(METHOD, config, folder, SILENT, until, **objects) or show(path)


def results_of(path: Path) -> dict[str, Any]:
    return json.loads((path / "results.json").read_text(encoding="utf-8"))["tables"][0]["metrics"][0]


@dataclass(frozen=True)
class Done:
    path: Path
    values: dict[str, float]
    by_seed: dict[str, list[float]]
    p_holm: dict[tuple[str, str], float]
    verdicts: dict[tuple[str, str], str]
    num_asked: int = 0
    config: Re2llmConfig = field(default_factory=Re2llmConfig)


def done_in(path: Path, signal: float, seeds: list[int]) -> Done:
    simulated = SMALL["data"]["simulated_sessions"] | {"signal": signal}
    config = config_of(SMALL, seeds=seeds, data={"simulated_sessions": simulated})
    lm = FakeHintFollower()
    do(config, path, lm)
    main = results_of(path)
    pairs = {(c["name"], c["against"]): c for c in main["contrasts"]}
    return Done(
        path,
        {row["name"]: row["estimate"]["value"] for row in main["variants"]},
        {row["name"]: row["estimate"]["by_seed"] for row in main["variants"]},
        {pair: c["p_holm"] for pair, c in pairs.items()},
        {pair: c["verdict"] for pair, c in pairs.items()},
        lm.num_asked,
        config,
    )


@pytest.fixture(scope="module")
def with_signal(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return done_in(tmp_path_factory.mktemp("signal") / "run", 1.0, [0, 1, 2, 3, 4])


@pytest.mark.slow
def test_where_the_right_hint_depends_on_the_session_choosing_pays(with_signal: Done) -> None:
    values, p_holm = with_signal.values, with_signal.p_holm
    bound = values["known_hint"] - values["no_hint"]
    assert bound > 0.5
    assert values["ppo"] - values["no_hint"] >= 0.8 * bound
    assert values["ppo"] > values["best_single"] > values["random_hint"] > values["no_hint"]
    for pair in (
        ("ppo", "no_hint"),
        ("ppo", "best_single"),
        ("ppo", "random_hint"),
        ("best_single", "random_hint"),
    ):
        assert p_holm[pair] < 0.01, pair
        assert with_signal.verdicts[pair] == "better", pair
    assert values["best_hint"] >= values["known_hint"]


@pytest.mark.slow
def test_exploration_found_the_three_attributes_and_says_from_which_mistake(with_signal: Done) -> None:
    base = read_hint_base(with_signal.path / HINTS)
    words = " ".join(base.texts)
    assert all(f"Go by {attribute}:" in words for attribute in ("era", "genre", "director"))
    for hint in base.hints:
        assert hint.origin is not None
        assert hint.origin.gain_before < hint.origin.gain_after
        assert 0 <= hint.origin.session < 120
    assert base.counts["redundant"] > 0


@pytest.mark.slow
def test_every_prompt_is_asked_once_and_no_more_than_forecast(with_signal: Done) -> None:
    import sqlite3

    with closing(sqlite3.connect(with_signal.path / "completions.sqlite")) as cache:
        (held,) = cache.execute("select count(*) from prompts").fetchone()
    num_hints = len(read_hint_base(with_signal.path / HINTS).hints)
    calls = count_calls(with_signal.config, 120, 150, num_hints)
    most = count_calls(with_signal.config, 120, 150)
    assert with_signal.num_asked == held
    assert held <= calls.answers + most.exploration
    assert calls.answers == 270 * (num_hints + 1)
    assert most.exploration == 48 * (3 + 2)


@pytest.mark.slow
def test_a_finished_run_is_read_back_without_asking_and_its_report_says_it_all(with_signal: Done) -> None:
    lm = FakeHintFollower()
    told = do(with_signal.config, with_signal.path, lm)
    assert lm.num_asked == 0
    assert "Re2LLM (PPO)" in told
    page = (with_signal.path / "report.html").read_text(encoding="utf-8")
    for text in (
        "Choosing per session beats the best single",
        "Go by director",
        "By what decides the session",
    ):
        assert text in page
    assert long_sentences(page) == []
    assert "a hint chosen for each session beats no hint by" in " ".join(told.split())


@pytest.mark.slow
def test_a_run_answers_for_a_session_of_titles(with_signal: Done) -> None:
    with RunFolder.reopen(with_signal.path) as folder:
        config = with_signal.config
        from recloop.data.simulated_sessions import simulate_sessions

        task = simulate_sessions(config.data.simulated_sessions, config.data_seed)
        titles = task.items["title"].to_list()
        right = 0
        for session in task.test[:20]:
            told, offered = ("; ".join(titles[i] for i in of) for of in (session.items, session.candidates))
            lines = recommend(folder, config, told, offered, lm=FakeHintFollower(), encoder=FakeEncoder()).splitlines()
            right += lines[1] == f"1. {titles[session.answer]}"
            assert f"Go by {session.attribute}" in lines[0] or lines[1] != f"1. {titles[session.answer]}"
        assert right >= 16  # four in five, as the policy's own share
        likely = recommend(folder, config, titles[0], lm=FakeHintFollower(), encoder=FakeEncoder()).splitlines()
        assert len(likely) == 11
        assert titles[0] not in {line.partition(". ")[2] for line in likely}
        with pytest.raises(DataError, match="is unknown among 240 titles"):
            recommend(folder, config, "No Such Film", lm=FakeHintFollower(), encoder=FakeEncoder())
        with pytest.raises(SettingError, match="parted by semicolons"):
            recommend(folder, config, " ; ", lm=FakeHintFollower(), encoder=FakeEncoder())
        with pytest.raises(DataError, match="two candidates at least, got 1"):
            recommend(folder, config, titles[0], titles[1], lm=FakeHintFollower(), encoder=FakeEncoder())


@pytest.mark.slow
def test_where_hints_mean_nothing_choosing_gains_nothing(tmp_path: Path) -> None:
    done = done_in(tmp_path / "run", 0.0, [0, 1, 2])
    for pair, verdict in done.verdicts.items():
        if pair[0] == "ppo" and pair[1] in ("no_hint", "random_hint", "best_single"):
            assert verdict != "better", pair
    # A hint moves one candidate to the top: in the mean it neither helps nor harms by more than this.
    assert abs(done.values["ppo"] - done.values["no_hint"]) < 0.08


def explored(tmp_path: Path, **changes: Any) -> HintBase:
    config = config_of(TINY | {"data": SMALL["data"]}, explore={"max_mistakes": 48} | changes)
    do(config, tmp_path, until="explore")
    return read_hint_base(tmp_path / HINTS)


class Useless(FakeHintFollower):
    """Proposes, beside what it learnt, a hint that no answer follows, and says everything twice."""

    @property
    def name(self) -> str:
        return "fake-useless"

    def _answer(self, text: str) -> str:
        answer = super()._answer(text)
        is_asked_for_hints = text.splitlines()[-1].startswith("Write at most")
        return f"Take a deep breath before you rank.\n{answer}" if is_asked_for_hints else answer


@pytest.mark.slow
def test_the_effectiveness_filter_drops_what_does_not_help(tmp_path: Path) -> None:
    bases: dict[bool, HintBase] = {}
    for effective in (True, False):
        config = config_of(TINY | {"data": SMALL["data"]}, explore={"max_mistakes": 48, "effective": effective})
        do(config, tmp_path / str(effective), Useless(), until="explore")
        bases[effective] = read_hint_base(tmp_path / str(effective) / HINTS)
    assert "Take a deep breath before you rank." in bases[False].texts
    assert "Take a deep breath before you rank." not in bases[True].texts
    assert bases[True].counts["not effective"] > 0


class Wordy(FakeHintFollower):
    """Words its hints in eight ways, and mostly adds one of many that no answer follows."""

    BEGINNINGS = ("", "Please ", "Now ", "Always ", "Simply ", "Then ", "Here ", "First ")

    @property
    def name(self) -> str:
        return "fake-wordy"

    def _answer(self, text: str) -> str:
        answer = super()._answer(text)
        if not text.splitlines()[-1].startswith("Write at most"):
            return answer
        draw = zlib.crc32(text.encode())
        useless = [f"Weigh what was seen, number {draw % 997}."] if draw % 3 else []
        beginning = self.BEGINNINGS[draw % 8]
        return "\n".join([*useless, *(f"{beginning}{line}" for line in answer.splitlines())])


@pytest.mark.slow
def test_each_filter_matters_where_the_base_is_small(tmp_path: Path) -> None:
    """Six hints at most: what helps nobody, or says the same again, takes the place of what helps."""
    earned: dict[str, float] = {}
    variants = {"both": {}, "no effectiveness": {"effective": False}, "no redundancy": {"redundant": "off"}}
    for name, changes in variants.items():
        explore = SMALL["explore"] | {"max_hints": 6} | changes
        do(config_of(SMALL, seeds=[0, 1], explore=explore), tmp_path / name, Wordy())
        rows = {row["name"]: row["estimate"]["value"] for row in results_of(tmp_path / name)["variants"]}
        earned[name] = rows["ppo"] - rows["no_hint"]
    assert earned["no effectiveness"] < 0.9 * earned["both"]
    assert earned["no redundancy"] < 0.9 * earned["both"]


@pytest.mark.slow
@pytest.mark.parametrize("redundant", ["embedding", "lm"])
def test_the_redundancy_filter_keeps_one_of_a_kind(tmp_path: Path, redundant: str) -> None:
    base = explored(tmp_path / "run", redundant=redundant, max_hints=20)
    assert len(base.hints) == len({hint.text.split(":")[0] for hint in base.hints}) <= 4
    low = explored(tmp_path / "low", redundant=redundant, max_hints=20, max_alike=0.3)
    assert len(low.hints) == (1 if redundant == "embedding" else len(base.hints))


class Measuring(FakeHintFollower):
    """Keeps how long the prompts of reflection were."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []

    def _answer(self, text: str) -> str:
        if "The list was: " in text:
            self.lengths.append(self.count_tokens(text))
        return super()._answer(text)


@pytest.mark.slow
def test_turns_of_reflection_are_cut_to_their_budget_and_those_that_cannot_be_are_counted(
    tmp_path: Path,
) -> None:
    longest: dict[int, int] = {}
    bases: dict[int, HintBase] = {}
    for budget in (1800, 500, 100):
        lm = Measuring()
        explore = {"max_mistakes": 16, "max_prompt_tokens": budget}
        do(config_of(TINY, explore=explore), tmp_path / str(budget), lm, until="explore")
        bases[budget] = read_hint_base(tmp_path / str(budget) / HINTS)
        longest[budget] = max(lm.lengths, default=0)
    assert longest[1800] > 500 > longest[500] > 0 == longest[100]
    assert bases[500].hints
    assert bases[100].counts["too long to look at"] == bases[100].counts["mistakes looked at"] > 0


def test_an_absent_file_of_hints_is_said_before_anything_is_done(tmp_path: Path) -> None:
    config = config_of(TINY, explore={"file": str(tmp_path / "hints.json")})
    with pytest.raises(DataError, match=r"hints\.json must be a JSON file of hints, got .* check the path"):
        do(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["steps"] == {}


@pytest.mark.slow
def test_a_base_takes_as_many_hints_as_it_may_and_a_file_replaces_it(tmp_path: Path) -> None:
    assert len(explored(tmp_path / "two", max_hints=2).hints) == 2
    file = tmp_path / "mine.json"
    file.write_text('["Go by era: the era of the latest items."]', encoding="utf-8")
    base = explored(tmp_path / "file", file=str(file))
    assert [hint.text for hint in base.hints] == ["Go by era: the era of the latest items."]


class Dying(FakeHintFollower):
    """Stops the run after some prompts, as a kill would; what it answered in whole chunks is kept."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after

    def generate(self, prompts: Any, sampling: Sampling) -> Any:
        for number, answer in enumerate(super().generate(prompts, sampling)):
            if self.num_asked > self._after:
                raise KeyboardInterrupt
            yield answer
            assert number < len(prompts)


def without_times(path: Path) -> list[str]:
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [json.dumps(row, sort_keys=True) for row in rows]


@pytest.mark.slow
def test_stopped_anywhere_and_resumed_a_run_ends_the_same(tmp_path: Path) -> None:
    config = config_of(TINY)
    do(config, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    for after in (10, 40, 90):
        with pytest.raises(KeyboardInterrupt):
            do(config, stopped, Dying(after))
    for verb in ("prepare", "explore", "sample", "encode", "train", "evaluate"):
        assert f"{verb}" in do(config, stopped, until=verb)
    do(config, stopped)
    assert results_of(stopped) == results_of(tmp_path / "whole")
    assert without_times(stopped) == without_times(tmp_path / "whole")
    for name in ("sample/answers.parquet", "evaluate/variant_scores.parquet"):
        one, other = (pl.read_parquet(tmp_path / folder / "steps" / name) for folder in ("stopped", "whole"))
        assert one.equals(other)


@pytest.mark.slow
def test_a_language_model_that_leaves_no_hint_ends_in_a_table_without_gain(tmp_path: Path) -> None:
    class Mute(FakeHintFollower):
        @property
        def name(self) -> str:
            return "fake-mute"

        def _answer(self, text: str) -> str:
            return "" if text.splitlines()[-1].startswith("Write at most") else super()._answer(text)

    do(config_of(TINY), tmp_path / "run", Mute())
    rows = {row["name"]: row["estimate"]["value"] for row in results_of(tmp_path / "run")["variants"]}
    assert rows["ppo"] == rows["no_hint"] == rows["best_hint"]


@pytest.mark.slow
def test_through_an_endpoint_the_table_is_the_same_and_every_call_is_counted_there(tmp_path: Path) -> None:
    do(config_of(TINY), tmp_path / "local")
    follower = FakeHintFollower()
    with FakeServer(write=lambda prompt, seed, place: follower._answer(prompt)) as server:
        config = config_of(TINY, lm={"name": f"openai:{server.base_url}#follower"})
        for _ in range(2):  # the second time from the cache
            with RunFolder.open(tmp_path / "server", config.model_dump(mode="json"), method="re2llm") as folder:
                run_method(METHOD, config, folder, SILENT, encoder=FakeEncoder())
    by_server, local = (results_of(tmp_path / name)["variants"] for name in ("server", "local"))
    assert by_server == local
    texts = [seen.prompt for seen in server.seen]
    assert len(texts) == len(set(texts))
    calls = count_calls(config, 24, 12)
    num_hints = len(read_hint_base(tmp_path / "server" / HINTS).texts)
    assert 36 * num_hints <= len(texts) <= 36 * num_hints + calls.exploration


def test_halves_do_not_flatter_where_hints_mean_nothing_and_find_the_best_where_they_do() -> None:
    rng = np.random.default_rng(0)
    noise_SHR = rng.random((4000, 6, 4))  # mean 0.5, whatever the hint
    halves_S, hindsight_S = score_on_halves(noise_SHR)
    assert abs(halves_S.mean() - 0.5) < 0.01
    assert hindsight_S.mean() > 0.65
    noise_SHR[np.arange(4000), rng.integers(6, size=4000)] += 2.0  # each session has a hint of its own
    assert score_on_halves(noise_SHR)[0].mean() == pytest.approx(2.5, abs=0.02)


@pytest.mark.slow
def test_repeated_answers_tell_what_the_best_hint_is_worth(tmp_path: Path) -> None:
    lm = FakeHintFollower()
    plain = config_of(TINY)
    do(plain, tmp_path / "plain", lm)
    assert not (tmp_path / "plain" / "repeats.json").exists()
    config = config_of(TINY, repeats={"answers": 2, "max_sessions": 8})
    do(config, tmp_path / "run", lm)
    rows = {row["name"]: row for row in json.loads((tmp_path / "run" / "repeats.json").read_text())}
    assert set(rows) == {"no_hint", "best_single", "ppo", "known_hint", "oracle_on_halves", "hindsight"}
    assert rows["no_hint"]["gain"] == 0
    assert rows["known_hint"]["value"] <= rows["oracle_on_halves"]["value"] <= rows["hindsight"]["value"]
    assert "What the best hint is worth" in (tmp_path / "run" / "report.html").read_text()
    results = Results(tmp_path / "run")
    written = results.completions()
    assert set(written["variant"]) == {"no_hint", "hint"}
    assert written.filter(pl.col("variant") == "no_hint")["reward"].to_list() == [0.0] * 36
    per_user = results.per_user().group_by("variant").agg(pl.col("value").dot("num_lists") / pl.col("num_lists").sum())
    values = dict(results.table().select("variant", "value").iter_rows())
    assert dict(per_user.iter_rows()) == pytest.approx(values)
    asked = lm.num_asked
    do(config, tmp_path / "run", lm)
    assert lm.num_asked == asked


def test_a_policy_that_was_not_learnt_cannot_be_asked(tmp_path: Path) -> None:
    config = config_of(TINY)
    do(config, tmp_path / "run", until="prepare")
    with RunFolder.reopen(tmp_path / "run") as folder, pytest.raises(RunError, match="has no policy yet"):
        recommend(folder, config, "A; B", lm=FakeHintFollower(), encoder=FakeEncoder())


def test_the_forecast_counts_before_anything_is_asked() -> None:
    told = forecast(config_of(TINY, explore={"max_hints": 4, "max_mistakes": 10, "redundant": "lm"}))
    # 36 sessions x 5; ten mistakes, each three turns, two tries and two comparisons; 32 episodes asked twice.
    assert "180 prompts" in told
    assert "70 prompts" in told
    assert "250 prompts" in told
    assert "would send 64" in told
    assert "repeats" not in told
    often = forecast(config_of(TINY, explore={"max_hints": 4}, repeats={"answers": 2, "max_sessions": 7}))
    assert "35 prompts, 2 answers each" in often


IMPLICIT, TABLE = ({"name": name, "path": "x"} for name in ("implicit", "table"))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"repeats": {"answers": 3}}, "multiple of 2"),
        ({"primary_metric": "map@5"}, "primary_metric must be one of"),
        ({"reward": "loglik"}, "one answer"),
        ({"seeds": [1, 1]}, "seeds must differ"),
        ({"explore": {"hints": "released"}}, "come with released data"),
        ({"data": {"name": "released"}}, "give --data.path"),
        (
            {"data": {"name": "ml-1m", "path": "x", "simulated_sessions": {"num_train": 7}}},
            "read for simulated-sessions",
        ),
        ({"sessions": {"cut": "gap"}}, "sessions are settings of a log that is cut"),
        ({"data": IMPLICIT}, r"cut day reads times, got a log of implicit .*; set sessions.cut to user \[type"),
        ({"data": IMPLICIT, "sessions": {"cut": "gap"}}, "cut gap reads times"),
        (
            {"data": IMPLICIT, "sessions": {"cut": "user"}},
            "split time .* an order within each user only; set sessions.split to session",
        ),
        ({"data": TABLE}, "cut day .*; set sessions.cut to user, or name the column of times in data.table.time"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Re2llmConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("log", "sessions"),
    [
        (IMPLICIT, {"cut": "user", "split": "session"}),
        (TABLE, {"cut": "user"}),
        (TABLE | {"table": {"time": "when"}}, {"cut": "day"}),
        ({"name": "ml-1m", "path": "x"}, {"cut": "gap"}),
    ],
)
def test_a_log_may_be_cut_by_what_it_knows(log: dict[str, Any], sessions: dict[str, Any]) -> None:
    assert Re2llmConfig.model_validate({"data": log, "sessions": sessions}).sessions.cut == sessions["cut"]


def test_the_fake_keeps_the_promises_of_a_language_model_and_follows_a_hint() -> None:
    lines = [
        "1 films, oldest first:",
        'genre Horror | era 1970s | "Jaws"',
        "3 candidates:",
        'genre Comedy | era 1970s | "Up"',
        'genre Comedy | "Brazil"',
        'genre Horror | "Alien"',
        "{}Rank the 3 candidates most likely to be the next.",
    ]
    text = "\n".join(lines)
    prompts = [Prompt(n, "s", text.format(h), 0, 0) for n, h in enumerate(("", "Hint: Go by genre.\n"))]
    sampling = Sampling(1, 0.0, 1.0, 64, 0)
    answers = {
        position: completions[0].text for position, completions in FakeHintFollower().generate(prompts, sampling)
    }
    assert answers[0].splitlines() == ["1. Up", "2. Brazil", "3. Alien"]
    assert answers[1].splitlines() == ["1. Alien", "2. Up", "3. Brazil"]


SCRIPT = """
import sys, json
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from recloop.methods.re2llm.config import Re2llmConfig
from recloop.experiment.run_folder import RunFolder
from recloop.progress import SILENT
from fake_hint_follower import FakeHintFollower
from recloop.methods.method import run_method
from recloop.methods.re2llm import METHOD
from recloop.testing import FakeEncoder
config = Re2llmConfig.model_validate(json.loads(sys.argv[1]))
with RunFolder.open(Path(sys.argv[2]), config.model_dump(mode="json"), method="re2llm") as folder:
    run_method(METHOD, config, folder, SILENT, lm=FakeHintFollower(), encoder=FakeEncoder())
"""


@pytest.mark.soak
def test_killed_with_sigkill_in_its_stages_a_run_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    settings, tests = json.dumps(TINY), str(Path(__file__).parent)
    whole, victim = tmp_path / "whole", tmp_path / "victim"
    subprocess.run([sys.executable, "-c", SCRIPT, settings, str(whole), tests], check=True, timeout=900)
    num_kills = 0
    for step in ("explore", "sample", "train.s0", "report"):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, settings, str(victim), tests])
        part = victim / "steps" / f".{step}.part"
        while process.poll() is None and not part.exists():
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        num_kills += process.wait() == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", SCRIPT, settings, str(victim), tests], check=True, timeout=900)
    assert num_kills >= 3
    assert results_of(victim) == results_of(whole)
    assert without_times(victim) == without_times(whole)
    policies = [(f / "steps" / "train.s0" / "policy.safetensors").read_bytes() for f in (victim, whole)]
    assert policies[0] == policies[1]


@pytest.mark.slow
def test_edited_hints_stay_as_they_are_and_deleted_ones_are_shown_again(tmp_path: Path) -> None:
    config, shown = config_of(TINY), tmp_path / "run" / HINTS
    do(config, tmp_path / "run")
    whole = shown.read_bytes()
    shown.write_text("mine")
    do(config, tmp_path / "run")
    assert shown.read_text() == "mine"
    shown.unlink()
    do(config, tmp_path / "run")
    assert shown.read_bytes() == whole
