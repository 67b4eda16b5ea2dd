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
from recloop.progress import Progress


class StandInConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    seed: int = Field(0, ge=0, description="Of everything.")


class StandIn:
    """A method that notes how it was called and does what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str | None]] = []
        self.fails: BaseException | None = None

    def run(self, config: StandInConfig, run: RunFolder, progress: Progress, until: str | None) -> str:
        self.calls.append((config.seed, until))
        if self.fails is not None:
            raise self.fails
        with run.stage("prepare", {}):
            pass
        return f"table of seed {config.seed}"


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    stand_in = StandIn()
    for name, content in {
        "dpo4rec_config": {"Dpo4RecConfig": StandInConfig},
        "dpo4rec": {"run": stand_in.run},
        "plan": {"forecast": lambda config: f"plan of seed {config.seed}"},
        "show": {"show": lambda folder: f"state of {folder}"},
    }.items():
        module = types.ModuleType(f"recloop.methods.{name}")
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, f"recloop.methods.{name}", module)
    monkeypatch.chdir(tmp_path)
    return stand_in


def test_help_lists_every_verb_quickly_and_imports_nothing_heavy() -> None:
    script = (
        "import sys; from recloop.cli import main; code = main(['--help']);"
        "heavy = {'torch', 'polars', 'pydantic', 'numpy', 'rich'}; print(sorted(heavy & set(sys.modules)));"
        "sys.exit(code)"
    )
    start_s = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - start_s
    assert done.stdout.endswith("[]\n")
    assert all(verb in done.stdout for verb in cli.VERBS)
    assert wall_s < 1.5  # 0.08 s on an idle machine; the goal of 0.3 s leaves no room for a busy one


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"recloop {__version__}\n"


def test_run_resolves_the_config_calls_the_method_and_prints_its_outcome(
    method: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.toml").write_text("seed = 3\n")
    assert cli.main(["run", "dpo4rec", "--config", "a.toml", "--out", "r"]) == 0
    assert cli.main(["run", "dpo4rec", "--config=a.toml", "--seed=4", "--out=s"]) == 0
    assert method.calls == [(3, None), (4, None)]
    assert json.loads((tmp_path / "r/config.json").read_text()) == {"seed": 3}
    assert capsys.readouterr().out == "table of seed 3\ntable of seed 4\n"


def test_without_out_a_run_gets_a_folder_of_its_own(method: StandIn, tmp_path: Path) -> None:
    assert cli.main(["run", "dpo4rec"]) == 0
    assert [p.name.rpartition("-")[0].rpartition("-")[0] for p in (tmp_path / "runs").iterdir()] == ["dpo4rec"]


def test_a_stage_verb_runs_up_to_it_by_settings_or_by_folder(method: StandIn) -> None:
    assert cli.main(["sample", "--seed", "7", "--out", "r"]) == 0
    assert cli.main(["reward", "r"]) == 0
    assert cli.main(["resume", "r"]) == 0
    assert method.calls == [(7, "sample"), (7, "reward"), (7, None)]


def test_a_run_remembers_which_run_it_takes_from(method: StandIn, tmp_path: Path) -> None:
    assert cli.main(["run", "dpo4rec", "--out", "first"]) == 0
    assert cli.main(["run", "dpo4rec", "--seed", "2", "--reuse-from", "first", "--out", "second"]) == 0
    manifest = json.loads((tmp_path / "second" / "manifest.json").read_text())
    assert manifest["reuses_from"] == str((tmp_path / "first").resolve())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dpo4rec", "--reuse-from", "nowhere"], "run folder is wanted to take from, got nowhere"),
        (["dpo4rec", "--reuse-from", "first", "--out", "first"], "cannot take from itself"),
    ],
)
def test_a_run_that_cannot_take_says_why_and_makes_no_folder(
    method: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    cli.main(["run", "dpo4rec", "--out", "first"])
    assert cli.main(["run", *words]) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["first"]


@pytest.mark.parametrize("verb", ["show", "resume", "ask", "export"])
def test_a_command_without_settings_shows_the_help_of_all(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([verb, "--help"]) == 0
    assert capsys.readouterr().out == cli.HELP


def test_dry_run_and_help_start_nothing(method: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "dpo4rec", "--dry-run", "--seed", "5"]) == 0
    assert cli.main(["run", "dpo4rec", "--help"]) == 0
    assert cli.main(["show", "somewhere"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("plan of seed 5\n")
    assert "--seed  [int = 0, at least 0]" in out
    assert out.endswith("state of somewhere\n")
    assert method.calls == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], r"no command rum \(did you mean run or resume\?\)"),
        (["run"], "which method"),
        (["run", "dpo4rce"], r"no method dpo4rce \(did you mean dpo4rec\?\)"),
        (["sample", "no-such-folder"], "no method or run folder no-such-folder"),
        (["embed", "--out", "r"], "dpo4rec has no stage embed; use one of its stages, prepare, sample"),
        (["run", "dpo4rec", "--sede", "1"], r"no setting --sede in StandInConfig; did you mean --seed\?"),
        (["run", "dpo4rec", "--seed"], "--seed needs a value"),
        (
            ["run", "dpo4rec", "--dry-rum", "--seed", "1"],
            r"--dry-rum needs a value, got none \(did you mean dry-run\?\)",
        ),
        (["run", "dpo4rec", "--seed", "-1"], "seed: Input should be greater than or equal to 0, got '-1'"),
        (["run", "dpo4rec", "--out", "a", "--out", "b"], r"--out is given twice \(a, b\)"),
        (["run", "dpo4rec", "extra"], "one method or run folder is wanted, got dpo4rec extra"),
        (["resume"], "resume wants one run folder, got 0"),
        (["resume", "r", "--seed", "1"], "resume takes no settings, got --seed"),
        (["bench", "simulated"], r"got simulated log \(did you mean simulated logs\?\)"),
        (["pretrain", "now"], "pretrain takes settings only, got now"),
        (["ask", "r"], "ask wants a run folder and a request or a session, got r"),
        (["run", "dpo4rec", "--quick"], "--quick is for rerec and re2llm"),
        (
            ["run", "rerec", "--quick=false"],
            "--quick takes no value, got false; write --quick, or leave it out",
        ),
        (["run", "rerec", "--quick="], "--quick takes no value, got an empty one"),
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
    assert cli.main(["run", "dpo4rec", "--out", "r"]) == 0
    assert cli.main(["sample", "r", "--seed", "1"]) == 2
    assert "r goes on with its own configuration, got --seed" in capsys.readouterr().err
    assert cli.main(["run", "dpo4rec", "--out", "r", "--seed", "1"]) == 1
    assert "seed: 0, now 1" in capsys.readouterr().err


def test_a_first_run_that_failed_does_not_stand_in_the_way_of_its_correction(method: StandIn, tmp_path: Path) -> None:
    method.fails = TrainingError("the log has a bad row; correct it")
    assert cli.main(["run", "dpo4rec", "--out", "r"]) == 1
    method.fails = None
    assert cli.main(["run", "dpo4rec", "--out", "r", "--seed", "1"]) == 0
    assert json.loads((tmp_path / "r/config.json").read_text()) == {"seed": 1}
    assert cli.main(["resume", "r"]) == 0
    assert [seed for seed, _ in method.calls] == [0, 1, 1]


def test_an_expected_failure_is_one_message_and_exit_1(method: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    method.fails = TrainingError("the loss is NaN at step 3; lower --reranker.lr")
    assert cli.main(["run", "dpo4rec", "--out", "r"]) == 1
    assert capsys.readouterr().err == "recloop: the loss is NaN at step 3; lower --reranker.lr\n"


def test_ctrl_c_names_the_command_that_goes_on_and_frees_the_folder(
    method: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    method.fails = KeyboardInterrupt()
    assert cli.main(["run", "dpo4rec", "--out", "r"]) == 130
    assert capsys.readouterr().err.endswith("interrupted; go on with: recloop resume r\n")
    method.fails = None
    assert cli.main(["resume", "r"]) == 0


def test_a_defect_keeps_its_traceback(method: StandIn) -> None:
    method.fails = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "dpo4rec", "--out", "r"])


def test_quick_makes_re2llm_small_and_what_is_said_besides_wins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", "re2llm", "--quick", "--dry-run", "--data.simulated.num-test", "30"]) == 0
    assert "120 training and 30 test sessions" in capsys.readouterr().out
    assert cli.main(["run", "re2llm", "--dry-run", "--explore.max-hints", "9"]) == 0
    assert "up to 9" in capsys.readouterr().out


def test_quick_makes_rerec_small_and_what_is_said_besides_wins(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "rerec", "--quick", "--dry-run", "--seeds", "[4]"]) == 0
    quick = capsys.readouterr().out
    assert cli.main(["run", "rerec", "--dry-run"]) == 0
    assert "(4,)" in quick
    assert quick != capsys.readouterr().out


def test_ask_wants_a_run_of_the_right_method(method: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ask", "--session", "A; B"]) == 2
    assert "ask wants a run folder and a request or a session, got --session" in capsys.readouterr().err
    assert cli.main(["run", "dpo4rec", "--out", "r"]) == 0
    for question in (["A film"], ["--session", "A; B"]):
        assert cli.main(["ask", "r", *question]) == 2
        assert "got a run of dpo4rec" in capsys.readouterr().err
