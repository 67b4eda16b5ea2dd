"""Encoders compared on valid users: with a known answer, and from the command line."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recloop.cli import main
from recloop.errors import SettingError
from recloop.experiment.run_folder import RunFolder
from recloop.llm.config import LmConfig
from recloop.methods.dpo4rec.choose_encoder import (
    EncoderScore,
    encoder_named,
    encoders_text,
    encoders_to_try,
    ranked,
)
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.study import LmRef, open_study
from recloop.progress import SILENT

SMALL = [
    *("--data.simulated.num-users", "60", "--data.simulated.num-items", "60", "--data.simulated.num-interactions"),
    *("12", "--reranker.max-epochs", "2", "--prompt.max-prompt-tokens", "300"),
]


def test_encoders_are_ranked_by_their_mean_and_held_against_the_best_user_by_user() -> None:
    best, other, _ = ranked({"b": np.array([0.5, 0.7]), "a": np.array([0.5, 0.9]), "c": np.array([0.0, 0.0])})
    assert (best.name, best.value, best.below) == ("a", pytest.approx(0.7), 0.0)
    assert (other.name, other.value, other.below, other.error) == pytest.approx(("b", 0.6, 0.1, 0.1))


def test_what_is_told_names_the_flags_and_what_is_not_told_apart() -> None:
    scores = [EncoderScore("static+by_polarity", 0.5, 0.0, 0.0), EncoderScore("minilm", 0.45, 0.05, 0.03)]
    lines = encoders_text([*scores, EncoderScore("claims", 0.3, 0.2, 0.01)], "ndcg@5", 3).splitlines()
    assert lines[-1] == "take --encoder.name static --encoder.by-polarity true; not told apart from it: minilm"
    assert lines[2].split() == ["minilm", "0.4500", "0.0500", "±", "0.0300"]
    assert len(lines[1]) == len("static+by_polarity  ndcg@5 of valid users")


def test_encoders_are_typed_by_name_with_likes_and_dislikes_apart_on_demand() -> None:
    assert encoder_named("minilm+by_polarity").model_dump() == {"name": "minilm", "by_polarity": True}
    assert encoder_named("sentence:org/name").model_dump() == {"name": "sentence:org/name", "by_polarity": False}
    with pytest.raises(SettingError, match="an encoder must be"):
        encoder_named("nothing")


@pytest.mark.slow
def test_the_command_compares_and_keeps_texts_and_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = ["encoders", "static", "claims", "--out", str(run), *SMALL]
    assert main(words) == 0
    first = capsys.readouterr()
    found = json.loads((run / "encoders.json").read_text())
    assert {row["name"] for row in found} == {"static", "claims"}
    assert f"take --encoder.name {found[0]['name']}" in first.out
    assert main(words) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert "sample completions" not in again.err
    assert main(["encoders", "nothing", "--out", str(tmp_path / "other"), *SMALL]) == 2
    assert "an encoder must be" in capsys.readouterr().err
    assert main(["encoders", "--variants", "without_lm", "--out", str(tmp_path / "third"), *SMALL]) == 2
    assert "compared by texts" in capsys.readouterr().err


def test_a_model_of_ones_own_is_tried_as_an_encoder_too(tmp_path: Path) -> None:
    config = Dpo4RecConfig(rounds=0)
    with RunFolder.open(tmp_path / "run", config.model_dump(mode="json"), method="dpo4rec") as run:
        bundled = open_study(config, run, SILENT, None)
        assert encoders_to_try(bundled) == ("minilm", "minilm+by_polarity", "static", "static+by_polarity")
        own = config.model_copy(update={"lm": LmConfig(name="transformers:org/model")})
        changed = replace(bundled, config=own, first_lm=LmRef("untuned", Path("some/model"), "digest"))
        assert encoders_to_try(changed)[4:] == ("sentence:some/model", "sentence:some/model+by_polarity")
