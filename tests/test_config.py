"""Configurations from TOML and dotted overrides: what is taken, what is refused, and how it is said."""

import importlib
import time
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from recloop.config import describe_settings, load_config
from recloop.errors import SettingError
from recloop.methods.registry import METHODS, method_named
from recloop.settings import RENAMED, RENAMED_VALUES, current_name, near_matches, settings_of, validate


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
        ("data.on-bad-row", r"--data.on-bad-row: no such setting in Settings; did you mean data.on-bad-rows\?"),
        ("users", r"did you mean data.users\?"),
        ("train", r"--train is a section.*--train.lr, --train.lora"),
        ("zzz", r"--zzz: no such setting in Settings \(--help-all lists"),
        ("quik", r"--quik: no such option; did you mean quick\?"),
    ],
)
def test_an_unknown_key_is_refused_with_what_is_near(key: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        load_config(Settings, None, [(key, "1")])


def test_a_flag_that_stands_alone_is_true_and_only_for_yes_or_no() -> None:
    assert load_config(Settings, None, [("train.lora", None)]) == Settings(train=TuneSection(lora=True))
    with pytest.raises(SettingError, match=r"--data\.users needs a value, got none"):
        load_config(Settings, None, [("data.users", None)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[dtaa]\nusers = 1\n", r"dtaa: no such setting in Settings"),
        ("[data]\nuser = 1\n", r"data.user: no such setting in Settings; did you mean data.users\?"),
        ("data = 3\n", r"data is a section, got the value 3; set one of its fields"),
        ("[data\n", "a.toml cannot be read as TOML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.toml"
    file.write_text(text)
    with pytest.raises(SettingError, match=message):
        load_config(Settings, file, [])


def test_of_several_files_the_later_one_wins_value_by_value(tmp_path: Path) -> None:
    files = [tmp_path / "a.toml", tmp_path / "b.toml"]
    files[0].write_text("seeds = [1, 2]\n[data]\nusers = 10\non_bad_rows = 'quarantine'\n[train]\nlr = 0.5\n")
    files[1].write_text("seeds = [3]\n[data]\nusers = 20\n")
    config = load_config(Settings, files, [])
    assert config.seeds == (3,)
    assert (config.data.users, config.data.on_bad_rows, config.train.lr) == (20, "quarantine", 0.5)
    assert load_config(Settings, files[::-1], []).data.users == 10
    assert load_config(Settings, [], []) == Settings()
    files[1].write_text("data = 3\n")
    with pytest.raises(SettingError, match="data is a section, got the value 3"):
        load_config(Settings, files, [])


def test_a_byte_order_mark_is_read_and_another_encoding_is_said(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"\xef\xbb\xbf[data]\r\nusers = 3\r\n")
    assert load_config(Settings, file, []).data.users == 3
    file.write_text("[data]\nusers = 3\n", encoding="utf-16")
    with pytest.raises(SettingError, match="its text is UTF-16; save it as UTF-8"):
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


def test_the_help_names_every_setting_with_its_default_bounds_and_choices() -> None:
    text = describe_settings(Settings, "ours", every=True)
    assert [setting.flag for setting in settings_of(Settings)] == [
        "--seeds", "--data.name", "--data.path", "--data.users", "--data.on-bad-rows",
        "--data.bin", "--train.lr", "--train.lora", "--transfer", "--model",
    ]  # fmt: skip
    assert text.startswith("All 10 settings of ours")
    assert "--data.users  [int|none = none, at least 1]\n      Only so many users." in text
    assert "--data.on-bad-rows  [error|quarantine = error]" in text
    assert "--train.lr  [float = 0.0001, above 0]" in text
    assert "--seeds  [list = 1]" in text


class Marked(BaseModel):
    seeds: tuple[int, ...] = Field((1,), description="one run each", json_schema_extra={"shown_first": True})
    rarely: int = Field(1, description="a constant, nearly")
    lm: Elsewhere = Field(description="another log")


def test_the_short_help_has_a_line_for_each_marked_setting_under_its_section() -> None:
    class Long(BaseModel):
        lr: float = Field(0.1, description="word " * 60, json_schema_extra={"shown_first": True})

    class Whole(Marked):
        train: Long = Field(Long(), description="how it is trained")

    assert describe_settings(Whole, "ours", every=False).splitlines() == [
        "The 2 most used of 8 (--help-all shows all) settings of ours, for the command line or a TOML file:",
        "",
        "  --seeds [list = 1]".ljust(44) + "  one run each",
        "",
        "train: how it is trained",
        "  --train.lr [float = 0.1]".ljust(44) + "  " + "word " * 13 + "...",
    ]


@pytest.mark.parametrize("name", METHODS)
def test_the_settings_that_matter_first_are_about_thirty(name: str) -> None:
    settings = list(settings_of(method_named(name).config))
    first = [setting for setting in settings if setting.is_shown_first]
    assert 25 <= len(first) <= 35
    assert all(setting.info.description for setting in settings)
    lines = describe_settings(method_named(name).config, name, every=False).splitlines()
    assert max(map(len, lines)) <= 120
    assert len(lines) <= len(first) + 2 * 20


@pytest.mark.parametrize(
    "name",
    [
        "scripts.evaluate_lm.cli.EvaluateLmConfig",
        "benchmarks.simulated_data.bench.SimulatedBenchConfig",
        "benchmarks.kar_reproduction.bench.ReproductionConfig",
        "studies.evidence.bench.QualityConfig",
        "benchmarks.speed.bench.SpeedConfig",
        "scripts.pretrain_lm.pretrain.PretrainConfig",
    ],
)
def test_every_setting_has_a_description(name: str) -> None:
    module, _, model = name.rpartition(".")
    settings = settings_of(getattr(importlib.import_module(module), model))
    assert [setting.flag for setting in settings if not setting.info.description] == []


def test_near_matches_stay_silent_about_strangers() -> None:
    assert near_matches("qqqq", ["data.users", "train.lr"]) == ""


# Where each renamed part stood: (the method whose setting it was, its whole old name, its whole new name).
FORMER = (
    ("dpo4rec", "headline", "primary_metric"),
    ("dpo4rec", "rows", "variants"),
    ("rerec", "arms", "variants"),
    ("dpo4rec", "data.world.num_users", "data.simulated.num_users"),
    ("dpo4rec", "data.facets", "data.attributes"),
    ("dpo4rec", "data.table.facet_separator", "data.table.attribute_separator"),
    ("re2llm", "data.log.world.useful_facets", "data.simulated.useful_attributes"),
    ("re2llm", "data.world.num_train", "data.simulated_sessions.num_train"),
    ("re2llm", "data.simulated.num_train", "data.simulated_sessions.num_train"),
    ("re2llm", "data.simulated.num_test", "data.simulated_sessions.num_test"),
    ("re2llm", "data.simulated.num_candidates", "data.simulated_sessions.num_candidates"),
    ("re2llm", "data.simulated.max_items", "data.simulated_sessions.max_items"),
    ("re2llm", "data.sessions.cut", "sessions.cut"),
    ("dpo4rec", "data.table.stars", "data.table.rating"),
    ("dpo4rec", "data.table.stars_min", "data.table.rating_min"),
    ("dpo4rec", "data.table.stars_max", "data.table.rating_max"),
    ("dpo4rec", "data.table.positive_from_stars", "data.table.positive_from_rating"),
    ("dpo4rec", "split.feedback", "split.reward"),
    ("dpo4rec", "split.turn", "split.fold"),
    ("dpo4rec", "lm.endpoint.tuned_name", "lm.server.trained_name"),
    ("dpo4rec", "lm.endpoint.drafts_per_request", "lm.server.completions_per_request"),
    ("dpo4rec", "drafts.feedback", "completions.reward"),
    ("dpo4rec", "drafts.test", "completions.test"),
    ("dpo4rec", "reward.judges", "reward.num_models"),
    ("dpo4rec", "reward.shared", "reward.cross_fit"),
    ("dpo4rec", "dpo.batch", "dpo.batch_size"),
    ("rerec", "sft.accumulation", "sft.gradient_accumulation_steps"),
    ("dpo4rec", "dpo.checkpoint_steps", "dpo.save_steps"),
    ("dpo4rec", "dpo.likelihood", "dpo.sft_weight"),
    ("rerec", "grpo.kl", "grpo.beta"),
    ("rerec", "grpo.answers", "grpo.num_generations"),
    ("rerec", "grpo.clip", "grpo.epsilon"),
    ("rerec", "grpo.updates", "grpo.num_iterations"),
    ("rerec", "grpo.warmup", "grpo.warmup_steps"),
    ("dpo4rec", "dpo.lr", "dpo.learning_rate"),
    ("re2llm", "agent.steps", "policy.steps"),
    ("re2llm", "measure.metrics", "metrics.names"),
    ("dpo4rec", "measure.empty", "metrics.empty"),
)


def test_each_row_of_the_table_of_old_names_is_tried() -> None:
    # One is a flag (test_cli.py), one a setting of scripts.pretrain_lm.
    tried = {old for old in RENAMED for _, key, _ in FORMER if f".{old}." in f".{key}."}
    assert set(RENAMED) - tried == {"take_from"}


@pytest.mark.parametrize(("method", "old", "new"), FORMER, ids=lambda value: value)
def test_an_old_name_is_an_error_that_says_the_new_one(method: str, old: str, new: str, tmp_path: Path) -> None:
    model = method_named(method).config
    known = {setting.key for setting in settings_of(model)}
    assert current_name(old) == new
    assert new in known
    assert old not in known
    flag = old.replace("_", "-")
    with pytest.raises(SettingError, match=rf"--{flag}: an old name; write {new.replace('_', '-')} \("):
        load_config(model, None, [(flag, "1")])
    *sections, name = old.split(".")
    file = tmp_path / "a.toml"
    file.write_text(f"{f'[{chr(46).join(sections)}]' if sections else ''}\n{name} = 1\n")
    with pytest.raises(SettingError, match=rf": an old name; write {new.rsplit('.', 1)[0].split('.')[0]}"):
        load_config(model, file, [])


@pytest.mark.parametrize(
    ("method", "setting", "old"),
    [
        ("dpo4rec", "data.name", "worlds"),
        ("dpo4rec", "lm.name", "embedded"),
        ("rerec", "lm.name", "embedded:answers"),
        ("dpo4rec", "variants", "tuned"),
        ("dpo4rec", "prompt.likes_by", "stars"),
        ("rerec", "reinforced", "shipped"),
    ],
)
def test_an_old_value_is_an_error_that_says_the_new_one(method: str, setting: str, old: str) -> None:
    model = method_named(method).config
    with pytest.raises(SettingError, match=f"got '{old}', an old name; write {RENAMED_VALUES[old]}"):
        load_config(model, None, [(setting, old)])
    load_config(model, None, [(setting, RENAMED_VALUES[old])])


def test_values_from_python_meet_the_same_errors() -> None:
    with pytest.raises(SettingError, match=r"data.user: no such setting in Settings; did you mean data.users\?"):
        validate(Settings, {"data": {"user": 3}})


def test_one_data_block_serves_all_three_methods(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'data_seed = 3\n[data]\nname = "table"\npath = "log.csv"\nusers = 50\non_bad_rows = "quarantine"\n'
        '[data.table]\nuser = "who"\nitem = "what"\ntime = "when"\n'
    )
    read = [load_config(method_named(name).config, file, []).data for name in METHODS]
    assert len({one.model_dump_json(include={"name", "path", "users", "on_bad_rows", "table"}) for one in read}) == 1


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("method", METHODS)
def test_no_number_of_a_method_may_be_without_end(method: str, value: str) -> None:
    model = method_named(method).config
    for one in settings_of(model):
        if "float" in one.facts:
            with pytest.raises(SettingError, match=rf"{one.key.rsplit('.', 1)[-1]}|read for "):
                load_config(model, None, [(one.key, value)])


@pytest.mark.parametrize("value", [str(2**63), "9" * 400, "-" + "9" * 19])
def test_no_number_may_have_more_than_64_bits(value: str) -> None:
    with pytest.raises(SettingError, match="seeds must be a finite number of 64 bits"):
        load_config(Settings, None, [("seeds", value)])


def test_a_number_that_a_rule_cannot_take_is_refused() -> None:
    with pytest.raises(SettingError, match="must be a number of 64 bits"):
        load_config(method_named("dpo4rec").config, None, [("split.fold", "9" * 400)])


def test_two_spellings_of_one_setting_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[data]\non_bad_rows = "error"\non-bad-rows = "quarantine"\n')
    with pytest.raises(SettingError, match=r"on_bad_rows and on-bad-rows are one setting twice; give it once"):
        load_config(Settings, file, [])
    overrides = [("data.on_bad_rows", "error"), ("data.on-bad-rows", "quarantine")]
    with pytest.raises(SettingError, match=r"--data.on_bad_rows and --data.on-bad-rows are one setting twice"):
        load_config(Settings, None, overrides)
    assert load_config(Settings, None, [("seeds", "1"), ("seeds", "2")]).seeds == (2,)


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 100_000, "a = " + "{a=" * 5_000, "a." * 50_000 + "a = 1", "# " + "x" * 2_000_000],
    ids=["lists", "tables", "keys", "size"],
)
def test_a_file_that_is_deep_or_huge_is_refused_at_once(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    start = time.monotonic()
    with pytest.raises(SettingError, match=r"settings\.toml"):
        load_config(Settings, file, [])
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("path", ["~nobody-of-that-name/log", "~a\0b", "~\udcff/x"])
def test_a_path_of_an_unknown_user_is_one_error(path: str) -> None:
    with pytest.raises(SettingError, match="a path that begins with ~ must name a user of this machine, got"):
        load_config(method_named("dpo4rec").config, None, [("data", "ml-1m"), ("data.path", path)])


def test_a_deep_value_and_a_value_in_place_of_a_section_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is not JSON"):
        load_config(Settings, None, [("seeds", "[" * 100_000)])
    (tmp_path / "settings.toml").write_text("data = 3\n")
    with pytest.raises(SettingError, match="data is a section, got the value 3"):
        load_config(Settings, tmp_path / "settings.toml", [("data.users", "5")])
