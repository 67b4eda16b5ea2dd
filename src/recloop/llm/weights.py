"""Model folders: where they are, what identifies their contents, and one error for those that cannot be read."""

from __future__ import annotations

import hashlib
import json
import math
import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from recloop.errors import GenerationError, RecloopError, SettingError
from recloop.files import home_expanded

# What decides a model's answers: weights, shapes, tokenizer, chat template, and an encoder's pooling.
IDENTITY_FILES = (
    *("*.safetensors", "config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json"),
    *("chat_template*", "vocab*", "merges.txt", "modules.json", "sentence_bert_config.json", "[0-9]_*/*"),
)
BASE = "base_model_name_or_path"
SIZES = ("hidden_size", "n_embd", "d_model", "vocab_size", "intermediate_size", "max_position_embeddings")
MAX_RANK = 4_096  # guess
MAX_PARAMETERS_TOLD = 64  # guess: times those stored; four-bit weights are stored as an eighth
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def find_model_folder(folder_or_name: str | Path) -> Path:
    """The local folder of a model: itself, or Hugging Face's, downloaded when absent; GenerationError for neither."""
    folder = home_expanded(folder_or_name)
    if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
        return folder
    name = str(folder_or_name)
    why = "no config.json in it" if folder.is_dir() else "no such folder"
    if not folder.is_dir() and HUB_NAME.fullmatch(name):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(name, allow_patterns=[*IDENTITY_FILES, "*.json", "*.model", "*.txt"]))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            why = f"no such folder, and Hugging Face answered: {str(error).splitlines()[0]}"
    raise GenerationError(
        f"a model must be a folder with config.json or a Hugging Face name such as "
        f"org/model, got {name!r} ({why}); check the spelling, or save the model with save_pretrained"
    )


def weights_hash(folder: Path) -> str:
    """SHA-256 of what decides a model's answers, an adapter's base included; a folder that was moved has the same."""
    digest = hashlib.sha256()
    files = {path for pattern in IDENTITY_FILES for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(files):
        digest.update(f"{path.relative_to(folder)}\0{_file_hash(path)}\0".encode())
    adapter = adapter_config(folder)
    if adapter is not None:
        digest.update(weights_hash(base_folder_of(folder)).encode())
        del adapter[BASE]
        digest.update(json.dumps(adapter, sort_keys=True).encode())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name):
        return real.name  # Hugging Face's cache names large files by their SHA-256
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def adapter_config(folder: Path) -> dict[str, Any] | None:
    """The peft configuration of an adapter folder; None for a whole model's, GenerationError where it is damaged."""
    path = folder / "adapter_config.json"
    if not path.is_file():
        return None
    adapter = _read_object(path)
    if not isinstance(adapter.get(BASE), str) or not adapter[BASE]:
        raise GenerationError(
            f"{path} must name the model it adapts as {BASE}, got {adapter.get(BASE)!r}; save it again"
        )
    is_lora = adapter.get("peft_type", "LORA") == "LORA"  # another kind is refused where it would be trained
    if is_lora and (not isinstance(adapter.get("r"), int) or not 0 < adapter["r"] <= MAX_RANK):
        raise GenerationError(
            f"{path} must have a rank r from 1 to {MAX_RANK}, got {adapter.get('r')!r}; save it again"
        )
    return adapter


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise GenerationError(f"{path} cannot be read ({error}); fetch or save the model again") from error
    if not isinstance(value, dict):
        raise GenerationError(f"{path} must hold a JSON object, got another value; fetch or save the model again")
    return cast("dict[str, Any]", value)


def base_folder_of(folder: Path) -> Path:
    """The folder of the whole model: itself, or the one a peft adapter was trained on."""
    adapter = adapter_config(folder)
    if adapter is None:
        return folder
    base = find_model_folder(adapter[BASE])
    if (base / "adapter_config.json").is_file():
        raise GenerationError(
            f"the base of the adapter {folder} must be a whole model, got the adapter {base}; merge it"
        )
    return base


def require_fit_sizes(folder: Path) -> None:
    """GenerationError where the configuration describes far more than the weights hold: all of it would be made."""
    from safetensors import safe_open

    shapes: list[list[int]] = []
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "np") as weights:
            shapes += [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    path = folder / "config.json"
    if not shapes or not path.is_file():
        return
    most = MAX_PARAMETERS_TOLD * sum(map(math.prod, shapes))
    told = _read_object(path)
    for part in (told, *(cast("dict[str, Any]", one) for one in told.values() if isinstance(one, dict))):
        size = {name: value for name, value in part.items() if isinstance(value, int)}
        width = max((abs(size.get(name, 1)) for name in ("hidden_size", "n_embd", "d_model")), default=1)
        size["heads"] = size.get("num_attention_heads", 1) * size.get("head_dim", 1)
        layers = [size[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if name in size]
        is_odd = any(not 0 < number <= len(shapes) for number in layers)
        if is_odd or any(width * size.get(name, 0) > most for name in (*SIZES, "heads")):
            raise GenerationError(
                f"{path} must describe the weights beside it, got sizes that are not theirs; fetch the model again"
            )


def in_four_bits(device_type: str) -> Any:
    """transformers' settings for linear layers in 4 bits (NF4, as in QLoRA, arXiv 2305.14314); needs bitsandbytes."""
    if find_spec("bitsandbytes") is None:
        raise SettingError("load_in_4bit needs bitsandbytes, got none; pip install 'recloop[4bit]', or leave it off")
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32 if device_type == "cpu" else torch.bfloat16,
    )


@contextmanager
def no_notices() -> Generator[None]:
    """No progress bars of transformers inside, and no word of an attribute that peft reads and it will rename."""
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        if had_bars:
            logging.enable_progress_bar()


@contextmanager
def reading(folder: Path, kind: str) -> Generator[None]:
    """`no_notices`, and one error for everything that can be wrong with a folder."""
    try:
        with no_notices():
            require_fit_sizes(folder)
            yield
    except RecloopError:
        raise
    except Exception as error:  # others' code at others' files raises whatever it likes
        why = (str(error) or repr(error)).splitlines()[0][:300]
        raise GenerationError(
            f"the model in {folder} cannot be read ({why}); it must be a {kind} "
            f"saved with save_pretrained, weights as safetensors, needing no code of its own"
        ) from error
