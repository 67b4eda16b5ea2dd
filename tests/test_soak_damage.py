"""A changed byte in any file of a finished run is noticed, made again, or decides nothing.

Step files: the step is not read. Manifest and configuration: the run is not opened, or what they say is the same. What
lies at the top of the run for people: `recloop resume` makes it again. The lock and the caches decide nothing in a
finished run. `RECLOOP_SOAK=short` takes one method and some of the files.
"""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from recloop.errors import RunError
from recloop.evaluation.terminal import show
from recloop.experiment.manifest import PASSING, differing_keys
from recloop.experiment.run_folder import RunFolder
from recloop.methods.method import run_method
from recloop.methods.registry import method_named
from recloop.progress import SILENT
from recloop.settings import validate
from whole_runs import SETTINGS, files_of, finish, manifest_of, start, whole_run

IS_FULL = os.environ.get("RECLOOP_SOAK", "short") == "full"
METHODS = tuple(SETTINGS) if IS_FULL else ("re2llm",)
BYTES_OF_JSON = 600 if IS_FULL else 60  # tried in the manifest and in the configuration
DECIDES_NOTHING = {".lock", "completions.sqlite", "vectors.sqlite"}
KEPT_AS_IT_IS = {"hints.json"}  # may be somebody's work: said, not written over


def changed(data: bytes, chance: random.Random) -> bytes:
    """The bytes with one bit of one byte turned; an empty file gets a byte."""
    if not data:
        return b"x"
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


@pytest.fixture(scope="module", params=METHODS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    shutil.copytree(whole_run(request.param), folder)
    return folder


@pytest.mark.soak
def test_a_changed_byte_of_a_step_is_noticed_when_the_step_is_read(run: Path) -> None:
    chance, num = random.Random(1), 0
    for name, entry in manifest_of(run)["steps"].items():
        for output in entry["outputs"]:
            file = run / entry["folder"] / output
            whole = file.read_bytes()
            file.write_bytes(changed(whole, chance))
            with pytest.raises(RunError, match="must be what step"):
                RunFolder.look(run).folder(name)
            file.write_bytes(whole)
            num += 1
    print(f"{run.parent.name}: {num} files of steps, {num} noticed")


@pytest.mark.soak
@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_changed_byte_of_manifest_or_configuration_is_refused_or_says_the_same(run: Path, name: str) -> None:
    chance, file, num = random.Random(name), run / name, 0
    whole = file.read_bytes()
    before = json.loads(whole)
    for _ in range(BYTES_OF_JSON):
        file.write_bytes(changed(whole, chance))
        try:
            RunFolder.look(run)
        except RunError:
            num += 1
        else:
            after = json.loads(file.read_bytes())
            others = [
                line for line in differing_keys(before, after) if not line.startswith((*PASSING, "manifest_sha256"))
            ]
            known = "manifest_sha256" not in before or "manifest_sha256" in after
            assert not others or not known, others
    file.write_bytes(whole)
    print(f"{run.parent.name}: {BYTES_OF_JSON} bytes of {name}, {num} refused")


@pytest.mark.soak
def test_what_lies_at_the_top_is_made_again_byte_for_byte(run: Path) -> None:
    of_steps = {f"{e['folder']}/{name}" for e in manifest_of(run)["steps"].values() for name in e["outputs"]}
    tops = [name for name in files_of(run) if name not in of_steps and name not in ("manifest.json", "config.json")]
    before, chance = {name: (run / name).read_bytes() for name in files_of(run)}, random.Random(2)
    assert {"report.html", "results.json", "per_user.parquet", "completions.parquet", "metrics.jsonl"} <= {*tops}
    for name in tops:
        (run / name).write_bytes(changed(before[name], chance))
    with pytest.raises(RunError, match=r"results\.json is not what the run wrote; recloop resume .* makes it again"):
        show(run)
    # A cache that cannot be opened would stop a run that has something left to ask, not this one.
    finish(start("resume", str(run)))
    after = {name: (run / name).read_bytes() for name in files_of(run)}
    differ = {name for name in before if after.get(name) != before[name]}
    assert differ <= DECIDES_NOTHING | (KEPT_AS_IT_IS & {*tops}), differ
    for name in {*tops} - DECIDES_NOTHING:
        (run / name).unlink()
    finish(start("resume", str(run)))
    assert {name for name in before if (run / name).read_bytes() != before[name]} <= DECIDES_NOTHING
    print(f"{run.parent.name}: {len(tops)} files at the top, {len({*tops} - DECIDES_NOTHING)} made again")


@pytest.mark.soak
def test_a_resumed_run_reads_the_files_of_every_step(run: Path) -> None:
    with RunFolder.reopen(run) as opened:
        method = method_named(opened.manifest["method"])
        run_method(method, validate(method.config, opened.config), opened, SILENT)
        assert opened._whole == {*opened.manifest["steps"]}
