"""What of a run folder was damaged, edited or made up is refused in one error, or made again."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recloop.errors import GenerationError, RunError
from recloop.evaluation.results import Results
from recloop.evaluation.terminal import show
from recloop.experiment import disk, run_folder
from recloop.experiment.reuse import reuse_from, settings_read
from recloop.experiment.run_folder import RunFolder
from recloop.experiment.step import StepKind, Steps
from recloop.llm.server.cost import PriceConfig, Usage
from recloop.progress import SILENT

CONFIG = {"seed": 1, "lm": {"name": "fake"}}
PREPARE, SAMPLE, EVALUATE = StepKind("prepare", ("seed",)), StepKind("sample", ()), StepKind("evaluate", is_cheap=True)


def do_run(run: RunFolder) -> list[str]:
    """Two steps and what is put together from them; the names of those that were done."""
    steps, done = Steps(run, SILENT, None), list[str]()
    for kind in (PREPARE, SAMPLE):
        inputs = {} if kind is PREPARE else {"prepare": run.digest("prepare")}
        with steps.step(kind, "", inputs) as step:
            if not step.is_done:
                done.append(step.name)
                (step.folder / "out.txt").write_text(kind.verb)
                step.log({"value": 1})
                step.note(tokens=3)
    with steps.step(EVALUATE, "", {"sample": run.digest("sample")}) as step:
        if not step.is_done:
            done.append(step.name)
            seen = json.dumps({"steps": list(run.manifest["steps"])})
            (step.folder / "rank.trec").write_text("1 2 3")
            (run.path / "table.txt").write_text(seen)
            step.publish("table.txt")
            step.log({"value": 2})
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with RunFolder.open(tmp_path / "run", CONFIG, method="mine") as run:
        assert do_run(run) == ["prepare", "sample", "evaluate"]
    return tmp_path / "run"


def edited(folder: Path, change: Callable[[dict[str, Any]], Any], *, with_digest: bool = False) -> None:
    """Change the manifest as somebody would who knows of its digest, or as chance would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    if not with_digest:
        del manifest["manifest_sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("how", ["deleted", "changed", "cut"])
@pytest.mark.parametrize("name", ["table.txt", "steps/evaluate/rank.trec", "steps/evaluate/metrics.jsonl"])
def test_what_a_run_published_is_made_again_and_nothing_else_is_done(folder: Path, name: str, how: str) -> None:
    before = contents(folder)
    file = folder / name
    if how == "deleted":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + (b"x" if how == "changed" else b""))
    with RunFolder.reopen(folder) as run:
        assert do_run(run) == ["evaluate"]
    assert contents(folder) == before
    with RunFolder.reopen(folder) as run:
        assert do_run(run) == []


def test_what_is_only_put_together_follows_what_it_is_made_from(folder: Path) -> None:
    edited(folder, lambda told: told["steps"]["evaluate"]["inputs"].update(sample="older"))
    with RunFolder.reopen(folder) as run:
        assert do_run(run) == ["evaluate"]
        assert run.manifest["steps"]["evaluate"]["inputs"] == {"sample": run.digest("sample")}
    edited(folder, lambda told: told["steps"]["sample"]["inputs"].update(prepare="older"))
    with RunFolder.reopen(folder) as run, pytest.raises(RunError, match=r"step sample .* was made from other inputs"):
        do_run(run)


def test_a_log_of_the_run_is_put_together_again(folder: Path) -> None:
    before = contents(folder)
    (folder / "metrics.jsonl").write_bytes(b"\xff")
    RunFolder.reopen(folder).close()
    assert contents(folder) == before


@pytest.mark.parametrize("step", ["prepare", "sample"])
def test_another_run_reuses_the_steps_that_are_whole(folder: Path, step: str, tmp_path: Path) -> None:
    (folder / "steps" / step / "out.txt").write_text("damaged")
    with (
        RunFolder.reopen(folder) as run,
        pytest.raises(RunError, match=rf"step {step} .*another --out and --reuse-from"),
    ):
        do_run(run)
    with RunFolder.open(tmp_path / "new", CONFIG, method="mine") as run:
        reuse_from(run, folder)
        assert do_run(run) == [step, "evaluate"]
    assert (tmp_path / "new" / "steps" / step / "out.txt").read_text() == step


def test_what_a_killed_step_kept_for_itself_goes_once_the_step_is_done(folder: Path) -> None:
    kept = folder / ".scratch" / "sample"
    kept.mkdir(parents=True)
    (kept / "checkpoint").write_text("large")
    with RunFolder.reopen(folder) as run:
        do_run(run)
    assert not kept.exists()


@pytest.mark.parametrize("change", ["tokens", "inputs", "wall_s"])
def test_a_manifest_that_was_damaged_is_not_believed(folder: Path, change: str) -> None:
    values = {"tokens": 4, "inputs": {}, "wall_s": 9.0}
    edited(folder, lambda told: told["steps"]["sample"].update({change: values[change]}), with_digest=True)
    for read in (RunFolder.reopen, RunFolder.look, show, Results):
        with pytest.raises(RunError, match=r"manifest\.json was changed after the run wrote it; restore it"):
            read(folder)


ODD: list[tuple[str, Any]] = [
    ("folder", 3),
    ("inputs", []),
    ("outputs", {"a": 1}),
    ("outputs", {"a": {"sha256": "", "bytes": 1}}),
    ("outputs", {"a": {"sha256": 64 * "g", "bytes": 1}}),
    ("outputs", {"a": {"sha256": 64 * "0", "bytes": -1}}),
    ("outputs", {"a": {"sha256": 64 * "0", "bytes": True}}),
    ("published", {"a": {"sha256": 64 * "0"}}),
    ("fingerprint", None),
    ("wall_s", -1),
    ("wall_s", "1"),
    ("peak_memory_bytes", 0.5),
    ("tokens", "3"),
    ("reused_from", 3),
    ("server", {"requests": 1}),
    ("server", []),
    ("unusable", {"failed": "1"}),
    ("unusable", ["failed"]),
    ("findings", [["a", "b", "c"]]),
    ("findings", 3),
    ("statuses", {"ok": None}),
    ("reading", "text"),
    ("columns", []),
]


@pytest.mark.parametrize(("name", "value"), ODD)
def test_a_step_that_somebody_made_up_is_one_error(folder: Path, name: str, value: Any) -> None:
    edited(folder, lambda told: told["steps"]["sample"].update({name: value}))
    for read in (RunFolder.reopen, RunFolder.look, show, Results):
        with pytest.raises(RunError, match=rf"with steps\.sample\.{name}.* absent or odd .*; restore it"):
            read(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", 3),
        ("versions", {"python": 3}),
        ("resumed_with", [3]),
        ("reuses_from", []),
        ("objects", [1]),
        ("config_sha256", "x"),
    ],
)
def test_a_manifest_that_somebody_made_up_is_one_error(folder: Path, name: str, value: Any) -> None:
    edited(folder, lambda told: told.update({name: value}))
    with pytest.raises(RunError, match=rf"with {name}.* absent or odd"):
        RunFolder.look(folder)


@pytest.mark.parametrize("name", ["../table.txt", "/etc/passwd", "a//b"])
def test_a_published_name_stays_inside(folder: Path, name: str) -> None:
    edited(folder, lambda told: told["steps"]["evaluate"]["published"].update({name: {"sha256": 64 * "0", "bytes": 1}}))
    with pytest.raises(RunError, match="may name files inside its folder only"):
        RunFolder.look(folder)


DEEP = 100_000
TEXTS = {
    "deep lists": ('{"a": ' + DEEP * "[" + DEEP * "]" + "}", "and more levels"),
    "deep objects": (DEEP * '{"a":' + "1" + DEEP * "}", "and more levels"),
    "33 levels": (33 * '{"a":' + "1" + 33 * "}", "and more levels"),
    "no number": ('{"a": NaN}', "is not JSON"),
    "long number": ('{"a": ' + 5_000 * "1" + "}", "is not JSON"),
    "half a character": ('{"a": "\\ud800"}', "is not JSON"),
    "a mark": ("\ufeff{}", "is not JSON"),
}


@pytest.mark.parametrize("what", TEXTS)
@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_file_beyond_reason_is_one_error(folder: Path, name: str, what: str) -> None:
    text, got = TEXTS[what]
    (folder / name).write_text(text, encoding="utf-8")
    for read in (RunFolder.reopen, RunFolder.look, lambda path: RunFolder.open(path, CONFIG, method="mine")):
        with pytest.raises(RunError, match=rf"{name}.*{got}"):
            read(folder)


def test_a_file_of_a_gigabyte_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(RunError, match=r"may have 67,108,864 bytes and 32 levels, got 1,073,741,824 bytes"):
        RunFolder.look(folder)


def test_a_fact_that_is_missing_is_an_error_of_the_file(folder: Path) -> None:
    steps = RunFolder.look(folder).manifest["steps"]
    with pytest.raises(RunError, match="must hold 'recall', got only folder, inputs"):
        steps["sample"]["recall"]


@pytest.mark.parametrize("config", [{"data": 3}, {"data": []}, {"data": {}}, {}])
def test_a_source_run_without_a_setting_is_one_error(config: dict[str, Any]) -> None:
    with pytest.raises(RunError, match=r"config\.json must hold data\.name, got none"):
        settings_read(config, ["data.name"])


def test_what_a_servers_requests_came_to_may_stand_in_a_manifest(folder: Path) -> None:
    note = Usage(requests=3, request_s=0.5).as_note(PriceConfig())
    edited(folder, lambda told: told["steps"]["sample"].update(server=note))
    assert RunFolder.look(folder).manifest["steps"]["sample"]["server"] == note


def out_is_a_file(folder: Path) -> Path:
    (folder / "file").write_text("mine")
    return folder / "file"


def out_is_a_link_to_nothing(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nowhere")
    return folder / "link"


def out_lies_below_a_file(folder: Path) -> Path:
    return out_is_a_file(folder) / "run"


def out_has_a_long_name(folder: Path) -> Path:
    return folder / (300 * "n")


def out_has_a_long_path(folder: Path) -> Path:
    return folder.joinpath(*(50 * [100 * "n"]))


def out_is_a_link_to_itself(folder: Path) -> Path:
    (folder / "round").symlink_to(folder / "round")
    return folder / "round"


BAD_PLACES = [
    out_is_a_file, out_is_a_link_to_nothing, out_lies_below_a_file, out_has_a_long_name, out_has_a_long_path,
    out_is_a_link_to_itself,
]  # fmt: skip


@pytest.mark.parametrize("place", BAD_PLACES)
def test_a_place_that_can_hold_no_run_is_one_error_and_stays_as_it_is(
    place: Callable[[Path], Path], tmp_path: Path
) -> None:
    out = place(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(RunError, match=r"(a run needs a folder, got|cannot hold a run \().* choose another --out"):
        RunFolder.open(out, CONFIG)
    for read in (RunFolder.look, RunFolder.reopen, show, Results):
        with pytest.raises(RunError, match=r"no run|cannot be read"):
            read(out)
    with RunFolder.open(tmp_path / "run", CONFIG) as run, pytest.raises(RunError, match="a run folder is wanted"):
        reuse_from(run, out)
    shutil.rmtree(tmp_path / "run")
    assert sorted(tmp_path.iterdir()) == before


def test_a_place_that_may_not_be_written_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match=r"run cannot hold a run \(Permission denied\); .* another --out"):
        RunFolder.open(tmp_path / "run", CONFIG)


def test_a_run_that_may_only_be_read_is_shown_and_does_not_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(run_folder.os, "open", refuse)
    assert RunFolder.look(folder).is_done("sample")
    with pytest.raises(
        RunError, match=r"must be writable for a run to go on, got Read-only file system; .* copy the folder"
    ):
        RunFolder.reopen(folder)


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    RuntimeError("I/O error: No space left on device (os error 28)"),  # safetensors
    ValueError("database or disk is full"),
]


@pytest.mark.parametrize("error", FULL)
def test_a_disk_that_is_full_ends_a_step_with_the_command_that_goes_on(tmp_path: Path, error: Exception) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        told = rf"{tmp_path} cannot be written, .* what is done stays: make room, .* recloop resume {tmp_path}"
        with pytest.raises(RunError, match=told), run.step("prepare", {}) as step:
            (step.folder / "half").write_text("h")
            raise error
        assert not list(tmp_path.rglob("half"))
        with run.step("prepare", {}) as step:
            (step.folder / "whole").write_text("w")
    assert RunFolder.look(tmp_path).is_done("prepare")


def test_a_library_that_hides_the_reason_is_seen_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder.open(tmp_path, CONFIG) as run:
        with pytest.raises(ValueError, match="of the step"), run.step("prepare", {}):
            raise ValueError("of the step")
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
        with pytest.raises(RunError, match="the disk is full"), run.step("prepare", {}):
            raise RuntimeError("unexpected pos 6300800 vs 6300688")  # torch.save
        with pytest.raises(GenerationError, match="mine"), run.step("prepare", {}):
            raise GenerationError("mine")


LINKS = [
    ".config.json.part",
    "qrels.trec",
    "completions.sqlite",
    ".scratch",
    "steps/.sample.part",
    "lm",
    ".scratch/a/b",
]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_anywhere_in_a_run_is_refused_before_anything_is_written(
    folder: Path, name: str, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("mine")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(victim)
    before = contents(folder)
    for goes_on in (RunFolder.reopen, lambda path: RunFolder.open(path, CONFIG, method="mine")):
        with pytest.raises(RunError, match=r"may hold no symbolic links, got .*; replace it by what it points to"):
            goes_on(folder)
    assert contents(folder) == before
    assert contents(victim) == {"kept": b"mine"}


def test_a_log_that_no_step_wrote_is_not_taken_over(folder: Path) -> None:
    before = contents(folder)["metrics.jsonl"]
    edited(folder, lambda told: told["steps"]["sample"]["outputs"].pop("metrics.jsonl"))
    RunFolder.reopen(folder).close()
    assert len((folder / "metrics.jsonl").read_bytes()) < len(before)
