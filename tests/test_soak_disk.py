"""A run whose disk is full again and again, and is given more room each time, ends as on a large disk.

Needs the right to mount a file system in memory. Only in `RECLOOP_SOAK=full`.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from whole_runs import DEADLINE_S, SETTINGS, files_of, manifest_of, result_of, whole_run, words_of

# Too small for the folder, for a cache, for a step's files, for a checkpoint, for its optimizer; then large enough.
ROOM = {
    "dpo4rec": ("8k", "300k", "2m", "12m", "25m", "45m", "60m", "400m"),
    "rerec": ("8k", "100k", "2m", "12m", "22m", "30m", "40m", "400m"),
    "re2llm": ("8k", "200k", "500k", "900k", "1100k", "400m"),
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk, mounted in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a disk in memory")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.soak
@pytest.mark.skipif(os.environ.get("RECLOOP_SOAK", "short") != "full", reason="only in RECLOOP_SOAK=full")
@pytest.mark.parametrize("method", SETTINGS)
def test_a_run_on_a_disk_that_is_full_again_and_again_ends_as_on_a_large_one(method: str, disk: Path) -> None:
    run = disk / "run"
    done: list[int] = []
    for size in ROOM[method]:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)
        is_begun = (run / "manifest.json").exists()
        words = ["resume", str(run)] if is_begun else ["run", method, *words_of(method), "--out", str(run)]
        command = [sys.executable, "-c", "import sys; from recloop.cli import main; sys.exit(main())", *words]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
        assert "Traceback" not in ended.stderr, ended.stderr[-2_000:]
        if size != ROOM[method][-1]:
            assert ended.returncode == 1, f"{size}: {ended.stderr[-500:]}"
            said = [line for line in ended.stderr.splitlines() if line.startswith("recloop: ")]
            assert len(said) == 1, said
            assert str(disk) in said[0] or "database" in said[0], said
        done.append(len(manifest_of(run)["steps"]) if (run / "manifest.json").exists() else 0)
    assert ended.returncode == 0, ended.stderr[-2_000:]
    print(f"{method}: steps done when the disk was full: {done[:-1]}, at the end {done[-1]}")
    whole = whole_run(method)
    assert result_of(run) == result_of(whole)
    assert files_of(run) == files_of(whole)
