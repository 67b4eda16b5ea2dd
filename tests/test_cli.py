"""The command line with a stand-in method: what is parsed, what is called, what is said, which exit code."""

import json
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from recloop import __version__, cli
from recloop.errors import SettingError, TrainingError
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.step import StepKind, Steps
from recloop.methods import registry
from recloop.methods.method import Method

VERBS = ("run", "resume", "show", "ask", "export", "prompts", *cli.STEPS)
PROGRAMS = (
    "benchmarks.speed", "benchmarks.simulated_data", "benchmarks.kar_reproduction", "studies.evidence",
    "scripts.pretrain_lm", "scripts.evaluate_lm",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]


class StandInConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int = Field(0, ge=0, description="Of everything.", json_schema_extra={"shown_first": True})
    depth: int = Field(1, description="Of nothing.")


class StandIn:
    """A method that notes how it was called and does what it is told."""

    KINDS = (StepKind("prepare", reads=("seed",)), StepKind("sample"), StepKind("reward"))

    def __init__(self) -> None:
        self.calls: list[tuple[int, str | None]] = []
        self.fails: BaseException | None = None

    def open(self, config, run, progress, until):
        self.calls.append((config.seed, until))
        return Steps(run, progress, until)

    def recipe(self, steps: Steps) -> None:
        if self.fails is not None:
            raise self.fails
        for kind in self.KINDS:
            with steps.step(kind, "", {}):
                pass

    def ask(self, run, config, question, **options):
        return f"{question} of seed {config.seed}: {options}"


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    stand_in = StandIn()
    records = {
        "own": Method(
            name="own",
            config=StandInConfig,
            open_study=stand_in.open,
            recipe=stand_in.recipe,
            steps=stand_in.KINDS,
            forecast=lambda config: f"plan of seed {config.seed}",
            quick=lambda _: [("seed", "9")],
            ask=stand_in.ask,
        ),
        "silent": Method("silent", StandInConfig, stand_in.recipe, stand_in.KINDS, stand_in.open),
    }
    for name, record in records.items():
        module = types.ModuleType(f"own_methods_{name}")
        module.__dict__["METHOD"] = record
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "METHODS", {name: f"own_methods_{name}" for name in records})
    monkeypatch.chdir(tmp_path)
    return stand_in


@pytest.mark.slow
def test_help_lists_every_command_quickly_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from recloop.cli import main;"
        "heavy = {'torch', 'polars', 'pydantic', 'numpy', 'rich'}; print(sorted(heavy & set(sys.modules)));"
        "code = main(['--help']); print(sorted((heavy - {'rich'}) & set(sys.modules))); sys.exit(code)"
    )
    start_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - start_s
    assert done.stdout.startswith("[]\n")
    assert done.stdout.endswith("[]\n")
    assert all(f" {verb} " in done.stdout for verb in VERBS)
    assert wall_s < 2  # 0.21 s on an idle machine, rich included; a busy one takes longer


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_a_help_with_exit_code_0(verb: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, flag]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: recloop {verb}")
    assert len(said.splitlines()) > 5


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_left_the_package_has_a_help(program: str) -> None:
    done = subprocess.run([sys.executable, "-m", program, "-h"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"Usage: python -m {program}")
    assert f"settings of python -m {program}" in done.stdout


@pytest.mark.parametrize(
    ("words", "now"),
    [
        ("bench worlds", "python -m benchmarks.simulated_data"),
        ("bench speed --parts dpo", "python -m benchmarks.speed"),
        ("bench reproduction", "python -m benchmarks.kar_reproduction"),
        ("bench quality --quick", "python -m studies.evidence"),
        ("bench", "python -m benchmarks.speed"),
        ("pretrain --out x", "python -m scripts.pretrain_lm"),
        ("evaluate-lm --help", "python -m scripts.evaluate_lm"),
        ("tune r", "recloop train"),
    ],
)
def test_a_command_that_moved_names_its_place(words: str, now: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split()) == 2
    assert f"type {now}" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"recloop {__version__}\n"


def test_run_resolves_the_config_calls_the_method_and_shows_the_run(
    method: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.toml").write_text("seed = 3\n")
    assert cli.main(["run", "own", "--config", "a.toml", "--out", "r"]) == 0
    assert cli.main(["run", "--seed=4", "own", "--config=a.toml", "--out=s"]) == 0
    (tmp_path / "b.toml").write_text("seed = 5\n")
    assert cli.main(["run", "own", "--config", "a.toml", "--config", "b.toml", "--out", "t"]) == 0
    assert method.calls == [(3, None), (4, None), (5, None)]
    assert json.loads((tmp_path / "r/config.json").read_text()) == {"seed": 3, "depth": 1}
    assert "1 done" in capsys.readouterr().out


def test_without_out_a_run_gets_a_folder_of_its_own(method: StandIn, tmp_path: Path) -> None:
    assert cli.main(["run", "own"]) == 0
    assert [p.name.rpartition("-")[0].rpartition("-")[0] for p in (tmp_path / "runs").iterdir()] == ["own"]


@pytest.mark.slow
def test_a_step_command_runs_up_to_it_by_method_or_by_folder(
    method: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sample", "own", "--seed", "7", "--out", "r"]) == 0
    assert "sample is done; go on with: recloop resume r" in capsys.readouterr().out
    assert cli.main(["reward", "r"]) == 0
    assert cli.main(["resume", "r"]) == 0
    assert method.calls == [(7, "sample"), (7, "reward"), (7, None)]


def test_a_run_remembers_which_run_it_reuses(method: StandIn, tmp_path: Path) -> None:
    assert cli.main(["run", "own", "--out", "first"]) == 0
    assert cli.main(["run", "own", "--seed", "2", "--reuse-from", "first", "--out", "second"]) == 0
    manifest = json.loads((tmp_path / "second" / "manifest.json").read_text())
    assert manifest["reuses_from"] == str((tmp_path / "first").resolve())


@pytest.mark.parametrize(
    ("seed", "said"),
    [("0", "reused from first where inputs are the same: prepare"), ("2", "since prepare differs: seed: 0, now 2")],
)
def test_a_plan_says_what_would_be_reused(
    method: StandIn, capsys: pytest.CaptureFixture[str], seed: str, said: str
) -> None:
    assert cli.main(["run", "own", "--seed", "0", "--out", "first"]) == 0
    assert cli.main(["run", "own", "--seed", seed, "--reuse-from", "first", "--dry-run"]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["own", "--reuse-from", "nowhere"], "got nowhere; check the path"),
        (["own", "--reuse-from", "first", "--out", "first"], "cannot reuse itself"),
    ],
)
def test_a_run_that_cannot_reuse_says_why_and_makes_no_folder(
    method: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    cli.main(["run", "own", "--out", "first"])
    assert cli.main(["run", *words]) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


def test_a_forecast_and_help_start_nothing(method: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "own", "--dry-run", "--seed", "5"]) == 0
    assert cli.main(["run", "own", "--dry-run", "--quick"]) == 0
    assert cli.main(["run", "own", "--dry-run", "--quick", "--seed", "4"]) == 0
    assert capsys.readouterr().out == "plan of seed 5\nplan of seed 9\nplan of seed 4\n"
    assert cli.main(["run", "own", "--help"]) == 0
    first = capsys.readouterr().out
    assert cli.main(["run", "own", "--help-all"]) == 0
    every = capsys.readouterr().out
    assert "--seed [int = 0]" in first
    assert "Of everything." in first
    assert "--depth" not in first
    assert "--depth  [int = 1]\n      Of nothing." in every
    assert method.calls == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], r'Unknown command "rum"\. Did you mean "run"\?'),
        (["run"], "which method"),
        (["run", "silnet"], r"no method silnet; did you mean silent\?"),
        (["sample", "no-such-folder"], "no method or run folder no-such-folder"),
        (["embed", "own", "--out", "r"], "own has no step embed; use one of its steps, prepare, sample, reward"),
        (["run", "own", "--sede", "1"], r"--sede: no such setting in StandInConfig; did you mean seed\?"),
        (["run", "own", "--seed"], "--seed needs a value"),
        (["run", "own", "--dry-rum", "--seed", "1"], r"--dry-rum: no such option; did you mean dry-run\?"),
        (["run", "own", "--seed", "-1"], "seed: Input should be greater than or equal to 0, got '-1'"),
        (["run", "own", "--out", "a", "--out", "b"], "--out specified multiple times"),
        (["run", "own", "--take-from", "a"], "--take-from: an old name; write reuse-from"),
        (["run", "own", "-x"], "there is no option -x"),
        (["run", "own", "extra"], "one method or run folder is wanted, got own extra"),
        (["resume"], "resume wants one run folder, got 0"),
        (["resume", "r", "--seed", "1"], "resume takes no settings, got --seed"),
        (["show"], "FOLDER requires an argument"),
        (["show", "r", "--seed", "1"], "Unknown option: --seed"),
        (["ask", "r"], "QUESTION requires an argument"),
        (["export", "lm"], "OUT requires an argument"),
        (["run", "silent", "--quick"], "--quick is not for silent"),
        (["profile", "r", "--users", "u", "--out", "t", "--tries", "2.5"], "--tries: want a whole number, got '2.5'"),
        (["serve", "r", "--port", "80.5"], "--port: want a whole number, got '80.5'"),
    ],
)
def test_a_wrong_command_exits_with_2_and_says_what_was_meant(
    method: StandIn, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    with pytest.raises(SettingError, match=message):
        cli.dispatch(words)
    assert captured.err.startswith("recloop: ")
    assert method.calls == []
    assert list(Path.cwd().iterdir()) == []


def test_settings_are_refused_for_a_run_that_has_its_own(method: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "own", "--out", "r"]) == 0
    assert cli.main(["sample", "r", "--seed", "1"]) == 2
    assert "r goes on with its own configuration" in capsys.readouterr().err
    assert cli.main(["run", "own", "--out", "r", "--seed", "1"]) == 1
    assert "seed: 0, now 1" in capsys.readouterr().err


def test_a_first_run_that_failed_does_not_stand_in_the_way_of_its_correction(method: StandIn, tmp_path: Path) -> None:
    method.fails = TrainingError("the log has a bad row; correct it")
    assert cli.main(["run", "own", "--out", "r"]) == 1
    method.fails = None
    assert cli.main(["run", "own", "--out", "r", "--seed", "1"]) == 0
    assert json.loads((tmp_path / "r/config.json").read_text())["seed"] == 1
    assert cli.main(["resume", "r"]) == 0
    assert [seed for seed, _ in method.calls] == [0, 1, 1]


def test_an_expected_failure_is_one_message_and_exit_1(method: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    method.fails = TrainingError("the loss is NaN at step 3; lower --reranker.lr")
    assert cli.main(["run", "own", "--out", "r"]) == 1
    assert capsys.readouterr().err == "recloop: the loss is NaN at step 3; lower --reranker.lr\n"


def test_ctrl_c_names_the_command_that_goes_on_and_frees_the_folder(
    method: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    method.fails = KeyboardInterrupt()
    assert cli.main(["run", "own", "--out", "r"]) == 130
    assert capsys.readouterr().err.endswith("interrupted; go on with: recloop resume r\n")
    method.fails = None
    assert cli.main(["resume", "r"]) == 0


def test_a_defect_keeps_its_traceback(method: StandIn) -> None:
    method.fails = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "own", "--out", "r"])


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"]])
def test_a_reader_that_has_left_is_no_failure(words: list[str]) -> None:
    script = f"import sys; from recloop.cli import main; sys.stdin.read(); sys.exit(main({words!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate()
    assert (process.returncode, said) == (0, b"")


@pytest.mark.slow
def test_a_finished_run_is_asked_by_its_method(method: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "own", "--seed", "2", "--out", "r"]) == 0
    capsys.readouterr()
    assert cli.main(["ask", "r", "A film", "--user", "u3"]) == 0
    assert capsys.readouterr().out == "A film of seed 2: {'user': 'u3'}\n"
    assert cli.main(["run", "silent", "--out", "s"]) == 0
    assert cli.main(["ask", "s", "A film"]) == 2
    said = capsys.readouterr().err
    assert "a run of silent answers no questions" in said
    assert "use one of dpo4rec by recloop serve or recloop score" in said


@pytest.mark.parametrize(
    ("name", "option", "text"), [("re2llm", "--user", "u3"), ("rerec", "--candidates", "Heat; Up")]
)
def test_an_option_that_a_method_is_not_asked_with_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, option: str, text: str
) -> None:
    config = registry.method_named(name).config().model_dump(mode="json")
    with RunFolder.open(tmp_path / "r", config, method=name):
        pass
    assert cli.main(["ask", str(tmp_path / "r"), "Jaws", option, text]) == 2
    said = f"a run of {name} is asked without {option}, got {text!r}; leave it out"
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_quick_makes_re2llm_small_and_what_is_said_besides_wins(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "re2llm", "--quick", "--dry-run", "--data.simulated_sessions.num_test", "30"]) == 0
    assert "120 training and 30 test sessions" in capsys.readouterr().out
    assert cli.main(["run", "re2llm", "--dry-run", "--explore.max-hints", "9"]) == 0
    assert "up to 9" in capsys.readouterr().out


@pytest.mark.slow
def test_quick_makes_rerec_small_and_what_is_said_besides_wins(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "rerec", "--quick", "--dry-run", "--seeds", "[4]"]) == 0
    quick = capsys.readouterr().out
    assert cli.main(["run", "rerec", "--dry-run"]) == 0
    assert "(4,)" in quick
    assert quick != capsys.readouterr().out


@pytest.mark.parametrize("name", ["dpo4rec", "rerec", "re2llm"])
def test_a_methods_help_shows_what_matters_first(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", name, "--help"]) == 0
    said = capsys.readouterr().out
    flags = [line for line in said.partition("settings of")[2].splitlines() if line.startswith("  --")]
    assert 25 <= len(flags) <= 35
    assert all("  " in flag[4:] or len(flag) > 90 for flag in flags)  # what is long has its words below it


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.METHODS)
def test_the_prompts_of_a_run_are_shown_and_nothing_is_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {
        "dpo4rec": ["--data.simulated.num-users", "60", "--prompt.template", "short"],
        "rerec": ["--data.simulated.num-users", "60", "--requests.per-user", "3"],
        "re2llm": ["--data.simulated-sessions.num-train", "30", "--data.simulated-sessions.num-test", "12"],
    }
    asks = {"dpo4rec": "which they dislike.", "rerec": "\\boxed{Title}.", "re2llm": "one title per line."}
    assert cli.main(["prompts", name, *small[name]]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0].partition(" of ")[0].endswith("prompts")
    assert "[system] You " in told
    assert told.rstrip().endswith(asks[name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prompts"], "one method is wanted, got none"),
        (["prompts", "own", "silent"], "got own silent"),
        (["prompts", "silent"], "silent shows no prompts"),
        (["prompts", "own", "--sed", "3"], "did you mean seed?"),
    ],
)
def test_prompts_of_no_method_are_refused(
    method: StandIn, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err
