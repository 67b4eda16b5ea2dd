"""The run folder: locks, foreign folders, steps that are done once, kills anywhere inside them."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from recloop import files
from recloop.errors import RunError
from recloop.experiment import manifest
from recloop.experiment.run_folder import RunFolder

CONFIG = {"seed": 1, "data": {"name": "simulated", "users": None}}


def files_below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def write_stage(run: RunFolder, name: str, text: str, **inputs: object) -> bool:
    """Do a step that leaves one file; whether its body had to write."""
    with run.step(name, inputs) as step:
        if not step.is_done:
            (step.folder / "out.txt").write_text(text)
            step.log({"loss": len(text)})
            step.note(tokens=len(text))
        return not step.is_done


def test_a_new_folder_holds_the_resolved_config_and_a_manifest(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path / "a/run", CONFIG) as run:
        assert json.loads((run.path / "config.json").read_text()) == CONFIG
        manifest = json.loads((run.path / "manifest.json").read_text())
    assert manifest["method"] == "dpo4rec"
    assert manifest["steps"] == {}
    assert manifest["versions"]["numpy"][0].isdigit()


def test_a_stage_is_done_once_and_its_entry_says_from_what_and_at_what_cost(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        assert write_stage(run, "sample.0", "abc", log="h1")
        assert not write_stage(run, "sample.0", "abc", log="h1")
    with RunFolder.reopen(tmp_path) as run:
        assert not write_stage(run, "sample.0", "abc", log="h1")
        entry = run.manifest["steps"]["sample.0"]
        assert (run.folder("sample.0") / "out.txt").read_text() == "abc"
    assert entry["inputs"] == {"log": "h1"}
    assert entry["tokens"] == 3
    assert entry["wall_s"] >= 0
    assert entry["peak_memory_bytes"] > 1_000_000
    # sha256("abc"), from FIPS 180-2, appendix B.1
    assert entry["outputs"]["out.txt"] == {
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "bytes": 3,
    }


def test_a_run_that_goes_on_with_other_versions_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "version", lambda _: "1.0")
    RunFolder.open(tmp_path, CONFIG).close()
    RunFolder.reopen(tmp_path).close()
    monkeypatch.setattr(manifest, "version", lambda package: "1.1" if package == "trl" else "1.0")
    RunFolder.reopen(tmp_path).close()
    RunFolder.reopen(tmp_path).close()
    kept = json.loads((tmp_path / "manifest.json").read_text())
    assert kept["versions"]["trl"] == "1.0"
    assert kept["resumed_with"] == [['trl: "1.0", now "1.1"']]


def test_an_exception_leaves_the_run_as_before_the_stage(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        before = files_below(tmp_path)
        with pytest.raises(KeyboardInterrupt), run.step("fit", {}) as step:
            (step.folder / "half").write_text("x")
            raise KeyboardInterrupt
        assert files_below(tmp_path) == before
        assert not run.is_done("fit")
        with pytest.raises(RunError, match=r"step fit .* is not done \(done: none\)"):
            run.folder("fit")


def test_scratch_survives_an_exception_and_goes_when_the_stage_is_done(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        with pytest.raises(OSError, match="disk"), run.step("train", {}) as step:
            step.scratch.mkdir(parents=True)
            (step.scratch / "checkpoint").write_text("7")
            raise OSError("disk full")
        with run.step("train", {}) as step:
            assert (step.scratch / "checkpoint").read_text() == "7"
            (step.folder / "model").write_text("m")
        assert not step.scratch.exists()


def test_metrics_are_the_rows_of_done_stages_in_order(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        write_stage(run, "b", "xx")
        with pytest.raises(ValueError, match="half"), run.step("lost", {}) as step:
            step.log({"loss": 99})
            raise ValueError("half way")
        write_stage(run, "a", "y")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"run_step": "b", "loss": 2}, {"run_step": "a", "loss": 1}]


def test_a_stage_can_own_a_named_folder(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        with run.step("train.0", {}, folder="lm/round-1") as step:
            (step.folder / "weights").write_text("w")
        assert run.folder("train.0") == tmp_path / "lm/round-1"
        assert files_below(tmp_path / "lm") == ["round-1/weights"]


def test_other_inputs_for_a_done_stage_stop_the_run(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        write_stage(run, "prepare", "x", ratings="old")
        with pytest.raises(RunError, match=r'other inputs \(ratings: "old", now "new"\)'):
            write_stage(run, "prepare", "x", ratings="new")


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_output_of_a_done_stage_stops_the_run(tmp_path: Path, damage: str) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        write_stage(run, "prepare", "whole")
        out = run.folder("prepare") / "out.txt"
        if damage == "missing":
            out.unlink()
        else:
            out.write_text("wh")
    got = {"missing": "no", "cut": "another"}[damage]
    with (
        RunFolder.reopen(tmp_path) as run,
        pytest.raises(RunError, match=rf"must be what step prepare wrote, got {got} file; .* --reuse-from"),
    ):
        write_stage(run, "prepare", "whole")


def test_another_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        write_stage(run, "prepare", "x")
    other = {"seed": 2, "data": {"name": "simulated", "users": 10}}
    with pytest.raises(RunError, match=r"seed: 1, now 2; data.users: null, now 10.*recloop resume"):
        RunFolder.open(tmp_path, other)
    with pytest.raises(RunError, match="a run of dpo4rec, got rerec"):
        RunFolder.open(tmp_path, CONFIG, method="rerec")
    RunFolder.open(tmp_path, CONFIG).close()  # the refusals gave the lock back


def test_a_setting_that_came_after_a_run_has_its_default_there(tmp_path: Path) -> None:
    class Now(BaseModel, extra="forbid"):
        seed: int
        data: dict[str, Any]
        newer: int = 3

    with RunFolder.open(tmp_path, CONFIG) as run:
        write_stage(run, "prepare", "x")
    with pytest.raises(RunError, match=r"newer: 3, now 4"):
        RunFolder.open(tmp_path, CONFIG | {"newer": 4}, form=Now)
    with pytest.raises(RunError, match=r"newer: absent, now 3"):
        RunFolder.open(tmp_path, CONFIG | {"newer": 3})
    with RunFolder.open(tmp_path, CONFIG | {"newer": 3}, form=Now) as run:
        assert run.is_done("prepare")
    with RunFolder.reopen(tmp_path) as run:
        assert run.config == CONFIG | {"newer": 3}
    with pytest.raises(RunError, match=r"seed: 1, now 2"):
        RunFolder.open(tmp_path, CONFIG | {"newer": 3, "seed": 2}, form=Now)


def test_a_run_without_a_finished_stage_gives_way_to_another_configuration(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        run.remember(reuses_from="elsewhere")
        with pytest.raises(OSError, match="disk"), run.step("prepare", {}) as step:
            step.scratch.mkdir(parents=True)
            raise OSError("disk full")
    with RunFolder.reopen(tmp_path) as run:
        assert run.manifest["reuses_from"] == "elsewhere"
        assert step.scratch.is_dir()
    with RunFolder.open(tmp_path, CONFIG | {"seed": 2}, method="rerec") as run:
        assert run.manifest["method"] == "rerec"
        assert "reuses_from" not in run.manifest
        assert not step.scratch.exists()  # what it holds was made with the other configuration
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG | {"seed": 2}


def test_a_folder_with_other_things_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.open(tmp_path, CONFIG)
    assert files_below(tmp_path) == ["thesis.tex"]
    with pytest.raises(RunError, match="no run to continue"):
        RunFolder.reopen(tmp_path)


def test_a_models_folder_is_no_run_and_stays_as_it_is(tmp_path: Path) -> None:
    for name, text in {"config.json": '{"model_type":"llama"}', "metrics.jsonl": '{"loss":1}\n'}.items():
        (tmp_path / name).write_text(text)
    before = {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)}
    with pytest.raises(RunError, match=r"has no manifest\.json, so there is no run to continue"):
        RunFolder.reopen(tmp_path)
    for config in (CONFIG, {"model_type": "llama"}):
        with pytest.raises(RunError, match=r"holds files but no manifest\.json, so it is not a run folder"):
            RunFolder.open(tmp_path, config)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(RunError, match="not a run folder"):
        RunFolder.open(tmp_path, CONFIG)
    assert before == {"metrics.jsonl": b'{"loss":1}\n'} | {
        name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)
    }


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("[]", r"must hold a JSON object, got \[\]"),
        ("{}", r"must be what a run wrote, got \{\} with method absent"),
        ('{"name": "' + 80 * "x" + '"}', r"got \{\"name\": \"x+\.\.\. with .*; restore it"),
        (
            '{"method": "m", "versions": {}, "resumed_with": [], "steps": {"s": []}}',
            "with steps.s absent or odd",
        ),
        ('{"method"', "is not JSON"),
        ("\x80", "is not JSON"),
    ],
)
def test_a_damaged_manifest_is_named_and_nothing_is_written(tmp_path: Path, text: str, got: str) -> None:
    RunFolder.open(tmp_path, CONFIG).close()
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    before = {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)}
    for read in (RunFolder.reopen, RunFolder.look, lambda path: RunFolder.open(path, CONFIG)):
        with pytest.raises(RunError, match=rf"manifest\.json .*{got}"):
            read(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files_below(tmp_path)} == before


@pytest.mark.parametrize("left", ["config.json", ".config.json.part", ".manifest.json.part"])
def test_a_run_killed_before_it_had_a_manifest_begins_again(tmp_path: Path, left: str) -> None:
    RunFolder.open(tmp_path, CONFIG).close()
    for name in ("manifest.json", "metrics.jsonl"):
        (tmp_path / name).unlink()
    (tmp_path / "config.json").rename(tmp_path / left)
    with RunFolder.open(tmp_path, CONFIG) as run:
        assert run.config == CONFIG


def test_a_folder_in_use_is_refused_and_names_the_process(tmp_path: Path) -> None:
    with (
        RunFolder.open(tmp_path, CONFIG),
        pytest.raises(RunError, match=f"in use by process {os.getpid()}"),
    ):
        RunFolder.open(tmp_path, CONFIG)


def test_a_digest_changes_with_a_name_or_a_byte_and_with_nothing_else(tmp_path: Path) -> None:
    digests = []
    for number, (name, text) in enumerate([("a", "1"), ("a", "1"), ("b", "1"), ("a", "2")]):
        with RunFolder.open(tmp_path / str(number), CONFIG) as run:
            with run.step("s", {"at": number}) as step:
                (step.folder / name).write_text(text)
            digests.append(run.digest("s"))
        assert files.sha256_of_folder(run.folder("s")) == digests[-1]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_atomic_writes_replace_and_leave_nothing_beside(tmp_path: Path) -> None:
    files.atomic_write_json(tmp_path / "x.json", {"a": 1})
    files.atomic_write_json(tmp_path / "x.json", {"a": "é"})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"a": "é"}
    assert files_below(tmp_path) == ["x.json"]
    with pytest.raises(ValueError, match="JSON"):
        files.atomic_write_json(tmp_path / "x.json", {"a": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"a": "é"}


def test_a_note_may_not_hide_a_fact_of_the_manifest(tmp_path: Path) -> None:
    with (
        RunFolder.open(tmp_path, CONFIG) as run,
        pytest.raises(RunError, match="may not be called outputs"),
        run.step("s", {}) as step,
    ):
        step.note(outputs=3)


# A run of three steps that kills itself with SIGKILL at the n-th call of one of the functions that make
# a step's end durable: every place where a kill could leave something half done.
KILLED_RUN = textwrap.dedent(
    """
    import os, pathlib, signal, sys
    from recloop.experiment import run_folder as runs
    from recloop import files

    path, kill_at = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    calls = 0

    def counted(function):
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call

    for name in ("atomic_write_bytes", "fsync", "remove_folder"):
        setattr(files, name, counted(getattr(files, name)))
    for name in ("settle", "remove_folder", "sha256_of_file"):
        setattr(runs, name, counted(getattr(runs, name)))
    for name in ("rename", "replace"):
        setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))

    with runs.RunFolder.open(path, {"seed": 1}) as run:
        before = "start"
        for name in ("prepare", "fit", "report"):
            with run.step(name, {"before": before}) as step:
                if not step.is_done:
                    (step.folder / "out.txt").write_text(name)
                    step.log({"value": name})
            before = run.digest(name)
    print(calls)
    """
)


def facts_of(run: Path) -> dict[str, object]:
    """Everything a run left that a kill may not change."""
    manifest = json.loads((run / "manifest.json").read_text())
    return {
        "files": {
            name: (run / name).read_bytes() for name in files_below(run) if name not in (".lock", "manifest.json")
        },
        "steps": {n: (e["inputs"], e["outputs"]) for n, e in manifest["steps"].items()},
    }


@pytest.mark.slow
def test_a_kill_at_any_step_of_any_stage_end_is_repaired_by_running_again(tmp_path: Path) -> None:
    def go(path: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED_RUN, str(path), str(kill_at)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    whole = go(tmp_path / "whole", 0)
    num_calls = int(whole.stdout)
    expected = facts_of(tmp_path / "whole")
    assert num_calls > 40
    for kill_at in range(1, num_calls + 1, 3):
        path = tmp_path / str(kill_at)
        assert go(path, kill_at).returncode == -signal.SIGKILL
        assert go(path, 0).returncode == 0
        assert facts_of(path) == expected, f"killed at call {kill_at}"


def test_a_run_is_looked_at_while_another_goes_on_and_nothing_is_done_in_it(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no manifest\.json, so there is no run to read"):
        RunFolder.look(tmp_path)
    with RunFolder.open(tmp_path, CONFIG) as run:
        write_stage(run, "first", "text")
        seen = RunFolder.look(tmp_path)
        assert (seen.folder("first") / "out.txt").read_text() == "text"
        assert not write_stage(seen, "first", "text")
        with pytest.raises(RunError, match=r"second of .* is not done, and the run is not open"):
            write_stage(seen, "second", "text")
        write_stage(run, "second", "text")
    assert (tmp_path / "steps" / "second").is_dir()


OUTSIDE = ["../victim", "/tmp/victim", "a/../../victim", "./a", "a//b", "a\\b", "a\nb", "", "x" * 5000]


@pytest.mark.parametrize("name", OUTSIDE, ids=range(len(OUTSIDE)))
@pytest.mark.parametrize("part", ["folder", "output", "step"])
def test_a_manifest_that_names_files_outside_its_folder_is_refused_before_anything_is_touched(
    tmp_path: Path, name: str, part: str
) -> None:
    folder, victim = tmp_path / "run", tmp_path / "victim"
    victim.mkdir()
    (victim / "kept.txt").write_text("mine")
    with RunFolder.open(folder, {"seed": 1}) as run, run.step("a", {}) as step:
        (step.folder / "out.txt").write_text("x")
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["steps"].pop("a")
    if part == "folder":
        entry["folder"] = name
    if part == "output":
        entry["outputs"] = {name: entry["outputs"]["out.txt"]}
    manifest["steps"] = {name if part == "step" else "a": entry}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    for attempt in (RunFolder.reopen, RunFolder.look):
        with pytest.raises(RunError, match="may name files inside its folder only"):
            attempt(folder)
    assert set(tmp_path.iterdir()) == {folder, victim}
    assert (victim / "kept.txt").read_text() == "mine"


def test_a_link_in_a_run_folder_or_as_its_lock_is_refused(tmp_path: Path) -> None:
    folder, victim = tmp_path / "run", tmp_path / "victim.txt"
    victim.write_text("mine")
    with RunFolder.open(folder, {"seed": 1}) as run, run.step("a", {}) as step:
        (step.folder / "out.txt").write_text("x")
    (folder / "steps" / "a" / "out.txt").unlink()
    (folder / "steps" / "a" / "out.txt").symlink_to(victim)
    with pytest.raises(RunError, match="no symbolic links"):
        RunFolder.look(folder)
    (folder / "steps" / "a" / "out.txt").unlink()
    (folder / "steps" / "a" / "out.txt").write_text("x")
    (folder / ".lock").unlink()
    (folder / ".lock").symlink_to(victim)
    with pytest.raises(RunError, match="must be a plain file"):
        RunFolder.reopen(folder)
    assert victim.read_text() == "mine"


def test_a_run_of_an_earlier_version_is_named_as_such(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, {"seed": 1}).close()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["stages"] = manifest.pop("steps")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"is a run of recloop 0\.1, .* start a new run folder"):
        RunFolder.reopen(tmp_path)


def test_a_file_of_a_finished_step_that_is_not_what_it_wrote_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        write_stage(run, "first", "text")
        assert (run.folder("first") / "out.txt").read_text() == "text"
    (tmp_path / "steps" / "first" / "out.txt").write_text("tEXt")  # as long as before
    for attempt in (RunFolder.look, RunFolder.reopen):
        run = attempt(tmp_path)
        with pytest.raises(RunError, match=r"out\.txt must be what step first wrote, got another file; restore it, or"):
            run.folder("first")
        run.close()
    (tmp_path / "steps" / "first" / "out.txt").write_text("text")
    assert RunFolder.look(tmp_path).folder("first").is_dir()


def test_a_configuration_that_was_edited_after_steps_were_done_is_not_believed(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path, {"seed": 1, "preflight": "stop", "lm": {"pace": {"n": 1}}}) as run:
        write_stage(run, "first", "text")
    file = tmp_path / "config.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"seed": 2}))
    for attempt in (RunFolder.look, RunFolder.reopen, lambda path: RunFolder.open(path, told | {"seed": 2})):
        with pytest.raises(RunError, match=r"config\.json was changed after steps were done"):
            attempt(tmp_path)
    file.write_text(json.dumps(told | {"preflight": "off", "lm": {"pace": {"n": 9}}}))  # these decide nothing
    RunFolder.reopen(tmp_path).close()
