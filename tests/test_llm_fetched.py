"""Where a fetched model is found."""

from pathlib import Path

import pytest

from recloop.errors import GenerationError
from recloop.llm.smollm2 import FOLDER, WEIGHTS, base_folder, fetch_smollm2


def test_a_model_is_found_here_first_and_then_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project / "models", elsewhere):
        folder.mkdir(parents=True)
    cached = tmp_path / "cache" / "recloop" / "models" / FOLDER
    monkeypatch.chdir(project)
    with pytest.raises(GenerationError, match=f"models/{FOLDER} or .*cache.*recloop fetch smollm2"):
        base_folder()
    cached.mkdir(parents=True)
    (cached / WEIGHTS).write_bytes(b"")
    assert base_folder() == fetch_smollm2() == cached
    monkeypatch.chdir(elsewhere)
    assert base_folder() == cached
    monkeypatch.chdir(project)
    own = project / "models" / FOLDER
    own.mkdir()
    assert base_folder() == cached  # an empty folder is none
    (own / WEIGHTS).write_bytes(b"")
    assert base_folder().resolve() == own
