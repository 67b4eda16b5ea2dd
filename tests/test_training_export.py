"""An exported model answers as the one it was made from, and holds nothing of recloop's own."""

import shutil
from pathlib import Path

import pytest
import torch

from recloop.cli import main
from recloop.errors import GenerationError, RunError
from recloop.experiment.run_folder import RunFolder
from recloop.training.export import export_model
from tiny_lm import build_tiny_lm

# peft asks transformers for a property that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")

IDS = torch.arange(5, 45)[None]


def logits_of(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(IDS).logits


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_lm(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter that changes something: both its factors are random."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    folder = tmp_path_factory.mktemp("adapter") / "trained.s0"
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(str(folder))
    (folder / "training.json").write_text("{}")
    return folder


@pytest.mark.slow
def test_a_merged_export_computes_what_both_compute(base: Path, adapter: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    said = export_model(adapter, tmp_path / "whole", merge=True)
    with torch.no_grad():
        together = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
        expected = together(IDS).logits
    got = logits_of(tmp_path / "whole")
    assert torch.allclose(got, expected, atol=1e-5)
    assert not torch.allclose(got, logits_of(base), atol=1e-2)
    assert f"vllm serve {tmp_path / 'whole'}" in said
    assert (tmp_path / "whole" / "tokenizer.json").is_file()


def test_an_adapter_is_exported_for_its_base(adapter: Path, base: Path, tmp_path: Path, capsys) -> None:
    assert main(["export", str(adapter), str(tmp_path / "trained")]) == 0
    said = capsys.readouterr().out
    assert f"vllm serve {base} --enable-lora --max-lora-rank 4 --lora-modules trained={tmp_path / 'trained'}" in said
    files = {file.name for file in (tmp_path / "trained").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files
    assert "training.json" not in files


def test_a_whole_model_is_copied(base: Path, tmp_path: Path) -> None:
    export_model(base, tmp_path / "copy", merge=True)
    assert torch.equal(logits_of(tmp_path / "copy"), logits_of(base))


def test_an_export_overwrites_nothing(base: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(RunError, match="new or empty folder"):
        export_model(base, tmp_path, merge=False)
    with pytest.raises(GenerationError, match=r"must be a folder with config.json"):
        export_model(tmp_path, tmp_path / "out", merge=False)
    assert main(["export", str(base)]) == 2


def test_a_run_is_no_model_and_a_model_has_weights(base: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    RunFolder.open(run, {"seed": 1}).close()
    with pytest.raises(GenerationError, match=r"got the run .*run; it has trained none \(lm\) yet"):
        export_model(run, out, merge=False)
    shutil.copytree(base, run / "lm" / "trained.s0")
    with pytest.raises(GenerationError, match=r"name one of its models: \S+/run/lm/trained\.s0$"):
        export_model(run, out, merge=False)
    (run / "lm" / "trained.s0" / "model.safetensors").unlink()
    with pytest.raises(GenerationError, match=r"got no \.safetensors in \S+/run/lm/trained\.s0"):
        export_model(run / "lm" / "trained.s0", out, merge=True)
    assert not out.exists()


def test_who_may_read_the_folder_may_read_the_model(base: Path, tmp_path: Path) -> None:
    assert (base / "model.safetensors").is_file()
    export_model(base, tmp_path / "copy", merge=False)
    folder = (tmp_path / "copy").stat().st_mode & 0o666
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "copy").iterdir()} == {folder}


def test_a_link_to_a_folder_is_not_followed(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    (folder / "more").symlink_to(tmp_path)
    with pytest.raises(GenerationError, match="links to files only"):
        export_model(folder, tmp_path / "out", merge=False)
    assert not (tmp_path / "out").exists()
