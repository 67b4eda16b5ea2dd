"""A trained language model for other programs: an adapter beside its base, or merged weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from recloop.errors import GenerationError, RunError
from recloop.experiment.manifest import MANIFEST
from recloop.files import open_files
from recloop.llm.chat import own_tokenizer
from recloop.llm.weights import BASE, adapter_config, base_folder_of, find_model_folder, no_notices, reading
from recloop.training.result import TRAINING_FILE

OWN_FILES = (TRAINING_FILE, "metrics.jsonl", ".*")  # of no use in serving


def export_model(folder: Path, out: Path, *, merge: bool) -> str:
    """What was written and how to serve it, after copying a model folder to where it is served from.

    Args:
        folder: a model or adapter, e.g. ``runs/demo/lm/trained.s0``.
        out: a new or empty folder.
        merge: add an adapter to its base, in the base's precision; no effect on a whole model.

    Raises:
        RunError: `out` holds something.
        GenerationError: `folder` is no model, has no weights, or is a run, which has its models below ``lm``.
    """
    folder = find_model_folder(folder)
    _require_weights(folder)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"an export needs a new or empty folder, got {out}; choose another")
    adapter = adapter_config(folder)
    if adapter is None or not merge:
        _copy(folder, out)
    else:
        _merge(folder, base_folder_of(folder), out)
    open_files(out)
    if adapter is None or merge:
        return f"model in {out}\n  vllm serve {out}\n  transformers serve {out}"
    base = adapter[BASE]
    return (
        f"adapter in {out}, of base {base}\n"
        f"  vllm serve {base} --enable-lora --max-lora-rank {adapter['r']} --lora-modules {out.name}={out}\n"
        f"  merged into one folder: recloop export {folder} OUT --merge"
    )


def _require_weights(folder: Path) -> None:
    if (folder / MANIFEST).is_file():
        models = sorted({str(file.parent) for file in folder.glob("lm/*/*config.json")})
        do = f"name one of its models: {', '.join(models)}" if models else "it has trained none (lm) yet"
        raise GenerationError(f"a model's folder is wanted, got the run {folder}; {do}")
    if not any(folder.glob("*.safetensors")):
        raise GenerationError(
            f"a model's folder must hold its weights, got no .safetensors in {folder}; save it with save_pretrained"
        )


def _copy(folder: Path, out: Path) -> None:
    """The folder's files; Hugging Face's cache has links in place of files, and no links to folders."""
    linked = [path for path in folder.rglob("*") if path.is_symlink() and not path.is_file()]
    if linked:
        raise GenerationError(f"a model's folder may hold links to files only, got {linked[0]}; remove it")
    try:
        shutil.copytree(folder, out, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*OWN_FILES))
    except OSError as error:
        raise GenerationError(f"{folder} cannot be copied to {out} ({error}); check both") from error


def _merge(folder: Path, base: Path, out: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with reading(base, "causal LM"):
        model = AutoModelForCausalLM.from_pretrained(
            base, dtype="auto", use_safetensors=True, trust_remote_code=False, local_files_only=True
        )
        whole = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
        tokenizer = own_tokenizer(folder)
    with no_notices():
        whole.save_pretrained(out)
    tokenizer.save_pretrained(out)
