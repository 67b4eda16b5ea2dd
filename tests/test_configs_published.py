"""The published settings are read by their methods, and a plan says what they want where the model is not at hand."""

from pathlib import Path

import pytest

from recloop import cli
from recloop.config import load_config
from recloop.llm.config import LocalLmConfig
from recloop.methods.cost_estimate import num_parameters, slowness
from recloop.methods.registry import method_named

FILES = sorted((Path(__file__).parents[1] / "configs" / "published").glob("*.toml"))
LOCATIONS = {"data.path": "somewhere", "data.metadata": "elsewhere"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_published_settings_are_those_of_a_run(file: Path) -> None:
    wanted = [name for name in LOCATIONS if f"--{name}" in file.read_text()]
    config = load_config(method_named(file.stem.partition("-")[0]).config, file, [(n, LOCATIONS[n]) for n in wanted])
    assert config.model_dump()["seeds"] == (0, 1, 2)


@pytest.mark.slow
def test_a_plan_goes_by_the_name_of_a_model_that_is_not_here(monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = ["run", "dpo4rec", "--lm", "transformers:nobody/Model-8B-Instruct", "--dry-run"]
    assert cli.main([*words, "--data.simulated.num-users", "60"]) == 0
    told = capsys.readouterr().out
    assert "nothing is checked: a model must be a folder" in told
    assert "8.00 B parameters, 32.0 GB on a CPU (float32), 16.0 GB on a GPU (bfloat16)" in told


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("transformers:meta-llama/Llama-3.1-8B-Instruct", 8_000_000_000),
        ("transformers:HuggingFaceTB/SmolLM2-135M-Instruct", 135_000_000),
        ("transformers:org/Qwen2.5-0.5B", 500_000_000),
        ("transformers:org/best-model", None),
        ("transformers:org/model-8bit", None),
    ],
)
def test_the_size_of_a_model_is_in_its_name(name: str, size: int | None) -> None:
    assert num_parameters(LocalLmConfig(name=name)) == size


def test_the_size_of_a_model_is_counted_in_its_weights() -> None:
    config = LocalLmConfig(name="bundled")
    assert num_parameters(config) == 3_344_064
    assert slowness(config) == pytest.approx(1, abs=0.02)
