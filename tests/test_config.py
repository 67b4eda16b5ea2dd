"""Configurations from TOML and dotted overrides: what is taken, what is refused, and how it is said."""

import importlib
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recloop.config import describe_fields, fields_of, load_config, near_matches
from recloop.errors import SettingError


class BadRows(StrEnum):
    ERROR = "error"
    QUARANTINE = "quarantine"


class DataSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field("simulated", description="Which log to read.")
    path: Path | None = Field(None, description="Its folder.")
    users: int | None = Field(None, ge=1, description="Only so many users.")
    on_bad_rows: BadRows = Field(BadRows.ERROR, description="What to do with a bad row.")
    bin: Path = Field(Path("bad.jsonl"), description="Where bad rows go.")

    @model_validator(mode="after")
    def _users_need_a_path(self) -> "DataSection":
        if self.users == 13 and self.path is None:
            raise SettingError("13 users need a path, got none; give --data.path")
        return self


class TuneSection(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    lr: float = Field(1e-4, gt=0, description="Learning rate.")
    lora: bool | Literal["auto"] = Field("auto", description="Whether to train adapters only.")


class Elsewhere(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    data: DataSection = Field(description="Another log.")


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    seeds: tuple[int, ...] = Field((1,), description="One run per seed.")
    data: DataSection = Field(default_factory=DataSection)
    train: TuneSection = Field(default_factory=TuneSection)
    transfer: tuple[Elsewhere, ...] = Field((), description="Other logs.")
    model: str = Field("bundled", description="Which writes.")


def test_defaults_then_the_file_then_the_overrides(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('seeds = [1, 2]\n[data]\nusers = 10\non-bad-rows = "quarantine"\n[train]\nlr = 0.5\n')
    config = load_config(Settings, file, [("data.users", "20"), ("data.users", "30")])
    assert config == Settings(
        seeds=(1, 2),
        data=DataSection(users=30, on_bad_rows=BadRows.QUARANTINE),
        train=TuneSection(lr=0.5),
    )


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (("data", "ml-1m"), Settings(data=DataSection(name="ml-1m"))),
        (("data.on-bad-rows", "quarantine"), Settings(data=DataSection(on_bad_rows=BadRows.QUARANTINE))),
        (("data.on_bad_rows", "quarantine"), Settings(data=DataSection(on_bad_rows=BadRows.QUARANTINE))),
        (("data.users", "none"), Settings()),
        (("seeds", "3,4"), Settings(seeds=(3, 4))),
        (("seeds", "[5]"), Settings(seeds=(5,))),
        (("train.lora", "true"), Settings(train=TuneSection(lora=True))),
        (("train.lora", "auto"), Settings()),
    ],
)
def test_typed_values_become_the_fields_types(override: tuple[str, str], expected: Settings) -> None:
    assert load_config(Settings, None, [override]) == expected


def test_given_paths_become_absolute_and_defaults_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(Settings, None, [("data.path", "../logs")])
    assert config.data.path == tmp_path / "../logs"
    assert config.data.bin == Path("bad.jsonl")  # a default stays what a validator may compare with
    assert Settings.model_validate(config.model_dump(mode="json")) == config


def test_paths_in_lists_of_tables_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('[[transfer]]\ndata = {path = "logs"}\n[[transfer]]\ndata = {}\n')
    first, second = load_config(Settings, Path("a.toml"), []).transfer
    assert first.data.path == tmp_path / "logs"
    assert second == Elsewhere(data=DataSection())


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("transformers:./lm", "transformers:{here}/lm"),
        ("sentence:../run/lm", "sentence:{here}/../run/lm"),
        ("transformers:./absent", "transformers:./absent"),
        ("transformers:lm", "transformers:lm"),  # may be a name
        ("openai:./lm", "openai:./lm"),
    ],
)
def test_a_models_folder_named_from_here_becomes_absolute(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, typed: str, kept: str
) -> None:
    (tmp_path / "run" / "lm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    assert load_config(Settings, None, [("model", typed)]).model == kept.format(here=tmp_path / "run")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("data.on-bad-row", r"no setting --data.on-bad-row in Settings; did you mean --data.on-bad-rows\?"),
        ("users", r"did you mean --data.users\?"),
        ("train", r"--train is a section.*--train.lr, --train.lora"),
        ("zzz", r"no setting --zzz in Settings \(--help lists"),
    ],
)
def test_an_unknown_key_is_refused_with_what_is_near(key: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_config(Settings, None, [(key, "1")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[dtaa]\nusers = 1\n", r"a.toml: unknown key dtaa"),
        ("[data]\nuser = 1\n", r"unknown key data.user in Settings; did you mean data.users\?"),
        ("data = 3\n", r"data is a section, got the value 3; write a table \[data\]"),
        ("[data\n", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(SettingError, match=message):
        load_config(Settings, file, [])


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="No such file"):
        load_config(Settings, tmp_path / "none.toml", [])


def test_every_value_that_does_not_fit_is_named_with_what_was_got() -> None:
    with pytest.raises(SettingError) as caught:
        load_config(Settings, None, [("data.users", "0"), ("train.lr", "fast")])
    assert "data.users: Input should be greater than or equal to 1, got '0'" in str(caught.value)
    assert "got 'fast'" in str(caught.value)


def test_a_rule_over_several_values_speaks_for_itself() -> None:
    with pytest.raises(SettingError, match=r"\n  data: 13 users need a path, got none; give --data.path$"):
        load_config(Settings, None, [("data.users", "13")])


def test_the_help_names_every_field_with_its_default_bounds_and_choices() -> None:
    text = describe_fields(Settings)
    assert [field.flag for field in fields_of(Settings)] == [
        "--seeds", "--data.name", "--data.path", "--data.users", "--data.on-bad-rows",
        "--data.bin", "--train.lr", "--train.lora", "--transfer", "--model",
    ]  # fmt: skip
    assert "--data.users  [int|none = none, at least 1]\n      Only so many users." in text
    assert "--data.on-bad-rows  [error|quarantine = error]" in text
    assert "--train.lr  [float = 0.0001, above 0]" in text
    assert "--seeds  [list = 1]" in text


@pytest.mark.parametrize(
    "name",
    [
        "recloop.methods.dpo4rec.config.Dpo4RecConfig",
        "recloop.methods.rerec.config.ReRecConfig",
        "recloop.methods.re2llm.config.Re2llmConfig",
        "scripts.evaluate_lm.cli.EvaluateLmConfig",
        "benchmarks.simulated_data.SimulatedBenchConfig",
        "benchmarks.kar_reproduction.ReproductionConfig",
        "studies.evidence.bench.QualityConfig",
        "benchmarks.speed.bench.SpeedConfig",
        "scripts.pretrain_lm.pretrain.PretrainConfig",
    ],
)
def test_every_setting_has_a_description(name: str) -> None:
    module, _, model = name.rpartition(".")
    fields = fields_of(getattr(importlib.import_module(module), model))
    assert [field.flag for field in fields if not field.info.description] == []


def test_near_matches_stay_silent_about_strangers() -> None:
    assert near_matches("qqqq", ["data.users", "train.lr"]) == ""
