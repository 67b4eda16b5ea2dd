"""What a run takes from another: the stages that would come out the same, and no other."""

import io
import json
import re
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from test_methods_dpo4rec_recipe import do, tuned_config, write_lm
from test_methods_rerec_recipe import config_of as rerec_config
from test_methods_rerec_recipe import do as do_rerec

from recloop.errors import RunError
from recloop.experiment.reuse import READS, beginning_of, forecast_of_reuse, reuse_from, reuse_stage
from recloop.experiment.run_folder import REUSED, RunFolder
from recloop.experiment.stages import Staged
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.rerec.config import ReRecConfig
from recloop.progress import Progress

pytestmark = pytest.mark.slow

DPO = {"max_pairs": 8, "lr": 1e-2}  # enough for texts to change
# Which stages there are, and how often, and what is among their inputs; a stage's name says what they are.
CONTROLS = {
    "dpo4rec": ("rounds", "seeds", "backbones", "rows", "reward.num_models"),
    "rerec": (
        "seeds", "variants", "supervised", "reinforced", "transfer", "reward", "advantage", "curriculum",
        "statistics",
    ),
}  # fmt: skip
# Read before the stage, for sample.next and encode.
EARLIER = {"embed": ("next_item",), "prepare": ("encoder",)}
WHOLE = ("model_copy", "model_dump", "model_dump_json", "model_fields_set")


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lm(tmp_path_factory.mktemp("lm"))


def reads_of(method: str, model: type[BaseModel], run: Callable[[], Any]) -> dict[str, set[str]]:
    """Settings that each kind of stage reads in a run; what is read between two stages, the second does."""
    found: dict[str, set[str]] = defaultdict(set)
    pending: set[str] = set()
    section_of: dict[type[BaseModel], str] = {
        info.annotation: f"{name}."
        for name, info in model.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    } | {model: ""}
    sections = {name.removesuffix(".") for name in section_of.values()}

    def watch(watched: type[BaseModel], prefix: str, patch: pytest.MonkeyPatch) -> None:
        def read(self: BaseModel, name: str) -> Any:
            path = f"{prefix}{name}"
            if name in watched.model_fields and path not in sections:
                pending.add(path)
            elif name in WHOLE and prefix:
                pending.add(prefix.removesuffix("."))
            return object.__getattribute__(self, name)

        patch.setattr(watched, "__getattribute__", read, raising=False)

    whole = Staged.stage

    @contextmanager
    def stage(
        self: Staged, verb: str, key: str, inputs: Mapping[str, Any], folder: str | None = None
    ) -> Generator[Any]:
        with whole(self, verb, key, inputs, folder) as one:
            yield one
        found[beginning_of(method, one.name)] |= pending
        pending.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Staged, "stage", stage)
        for watched, prefix in section_of.items():
            watch(watched, prefix, patch)
        pending.clear()
        run()
    return dict(found)


ELSEWHERE = {"name": "elsewhere", "max_requests": 4, "data": {"simulated": {"num_users": 12, "num_items": 132}}}


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs lie that are watched, by method."""
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def reads(lm: Path, watched: Path) -> dict[str, dict[str, set[str]]]:
    """By method: what a run with every row reads, or one with every kind of stage."""
    ours = tuned_config(lm, rows="all", rounds=1, reward={"num_models": 2, "cross_fit": True})
    theirs = rerec_config(variants=["grpo_ndcg", "rerec"], transfer=[ELSEWHERE])
    return {
        "dpo4rec": reads_of("dpo4rec", Dpo4RecConfig, lambda: do(ours, watched / "dpo4rec")),
        "rerec": reads_of("rerec", ReRecConfig, lambda: do_rerec(watched / "rerec", theirs)),
    }


@pytest.mark.parametrize(("method", "stages"), [(method, stages) for method in READS for stages in READS[method]])
def test_a_stage_reads_no_setting_that_is_not_named(
    reads: dict[str, dict[str, set[str]]], method: str, stages: str
) -> None:
    named = {*READS[method][stages], *READS[method]["prepare"], *CONTROLS[method], *EARLIER.get(stages, ())}
    unnamed = {
        path for path in reads[method][stages] if not any(path == one or path.startswith(f"{one}.") for one in named)
    }
    assert unnamed == set()


def core(lm: Path, **changes: Any) -> Dpo4RecConfig:
    return tuned_config(lm, **({"rows": "core", "dpo": DPO} | changes))


def taken(run: Path) -> dict[str, bool]:
    """Every stage of a run and whether another run did it."""
    stages = json.loads((run / "manifest.json").read_text())["stages"]
    return {name: REUSED in entry for name, entry in stages.items()}


@pytest.fixture(scope="module")
def first(lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with core rows, done in one go."""
    path = tmp_path_factory.mktemp("first") / "run"
    do(core(lm), path)
    return path


def do_with(first: Path, config: Dpo4RecConfig, path: Path) -> str:
    with RunFolder.open(path, config.model_dump(mode="json")) as run:
        reuse_from(run, first)
    return do(config, path)


TRAINED = (
    "train.trained.s0", "sample.trained.s0", "encode.trained.s0", "fit.trained.prm.s0", "score.trained.reward_model.s0",
    "fit.shuffled.prm.s0"
)  # fmt: skip
RANDOM = tuple(name.replace("trained", "random_label_dpo") for name in TRAINED[:-1])
LAST = ("evaluate", "report")


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        pytest.param({}, LAST, id="none"),
        pytest.param({"dpo": DPO | {"lr": 3e-2}}, (*TRAINED, *RANDOM, *LAST), id="lr"),
        pytest.param({"split": {"train": 0.4, "reward": 0.2, "valid": 0.1, "test": 0.3}}, None, id="split"),
    ],
)
def test_only_what_a_setting_touches_is_done_again(
    lm: Path, first: Path, tmp_path: Path, changes: dict[str, Any], again: tuple[str, ...] | None
) -> None:
    config = core(lm, **changes)
    do_with(first, config, tmp_path / "taking")
    stages = taken(tmp_path / "taking")
    assert {name for name, was_taken in stages.items() if not was_taken} == set(again or stages)


def test_a_run_with_rounds_takes_the_log_of_one_without_and_draws_what_it_rewards(lm: Path, tmp_path: Path) -> None:
    do(core(lm, rounds=0), tmp_path / "measured")
    do_with(tmp_path / "measured", core(lm), tmp_path / "trained")
    stages = taken(tmp_path / "trained")
    assert stages["prepare"]
    assert not stages["sample.untuned.s0"]
    assert not stages["evaluate"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "prepare is taken from run"),
        ({"pace": {"max_concurrency": 3}}, "prepare is taken from run"),
        (
            {"data_seed": 5},
            "nothing is taken from run, for log, groups or prompts differ: data_seed: 0, now 5",
        ),
    ],
)
def test_what_is_taken_is_said_and_why_nothing_is(
    lm: Path, first: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    out = io.StringIO()
    config = core(lm, **{name: value for name, value in changes.items() if name != "pace"})
    settings = config.model_dump(mode="json")
    settings["lm"]["pace"] |= changes.get("pace", {})
    with RunFolder.open(tmp_path / "run", settings) as run:
        reuse_from(run, first)
        inputs = json.loads((first / "manifest.json").read_text())["stages"]["prepare"]["inputs"]
        reuse_stage(run, "prepare", inputs, Progress(out))
    assert out.getvalue().strip() == said


def test_another_log_under_the_same_settings_is_named_without_digests(lm: Path, first: Path, tmp_path: Path) -> None:
    out = io.StringIO()
    with RunFolder.open(tmp_path / "run", core(lm).model_dump(mode="json")) as run:
        reuse_from(run, first)
        reuse_stage(run, "prepare", {"log": "another"}, Progress(out))
    assert out.getvalue().strip() == (
        "nothing is taken from run, for log, groups or prompts differ: the log or the language model is "
        "another one, under the same settings"
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "prepare, sample, sample.untuned, encode, reward model, reward, pairs, train, fit, score"),
        (
            {"dpo": DPO | {"lr": 3e-2}},
            "prepare, sample, sample.untuned, encode, reward model, reward, pairs, fit, score",
        ),
        (
            {"data_seed": 5},
            "nothing will be taken from .*, for log, groups or prompts differ: data_seed: 0, now 5",
        ),
    ],
)
def test_what_would_be_taken_is_told_beforehand(lm: Path, first: Path, changes: dict[str, Any], said: str) -> None:
    assert re.search(f"{said}$", forecast_of_reuse(core(lm, **changes).model_dump(mode="json"), first))


def test_more_rows_are_added_to_those_that_are_there(lm: Path, first: Path, tmp_path: Path) -> None:
    do_with(first, core(lm, rows="all"), tmp_path / "taking")
    stages, before = taken(tmp_path / "taking"), set(taken(first)) - set(LAST)
    assert {name for name, was_taken in stages.items() if was_taken} == before
    do(core(lm, rows="all"), tmp_path / "alone")
    results = [(tmp_path / name / "results.json").read_bytes() for name in ("taking", "alone")]
    assert results[0] == results[1]


def test_a_run_that_took_goes_on_when_the_giver_is_gone(lm: Path, first: Path, tmp_path: Path) -> None:
    source, path, config = tmp_path / "source", tmp_path / "run", core(lm)
    do(config, source, until="encode")
    with RunFolder.open(path, config.model_dump(mode="json")) as run:
        reuse_from(run, source)
    do(config, path, until="encode")
    assert all(taken(path).values())
    source.rename(tmp_path / "moved")
    do(config, path)
    assert (path / "results.json").read_bytes() == (first / "results.json").read_bytes()


def test_completions_come_along_and_what_they_cost_does_not(lm: Path, first: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(first, source)
    with closing(sqlite3.connect(source / "completions.sqlite")) as cache:
        cache.execute("insert into usage values ('sample.untuned.s0', 'requests', 7)")
        cache.commit()
    with RunFolder.open(tmp_path / "run", core(lm).model_dump(mode="json")) as run:
        reuse_from(run, source)
    with closing(sqlite3.connect(tmp_path / "run" / "completions.sqlite")) as cache:
        counts = [cache.execute(f"select count(*) from {table}").fetchone()[0] for table in ("completions", "usage")]
    assert counts[0] > 0
    assert counts[1] == 0


def test_files_that_the_giver_did_not_write_are_not_taken(lm: Path, first: Path, tmp_path: Path) -> None:
    source, path, config = tmp_path / "source", tmp_path / "run", core(lm)
    do(config, source, until="sample")
    file = source / "stages" / "sample.untuned.s0" / "fit.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"sample.untuned.s0 is to be taken .* restore it"):
        do_with(source, config, path)
    assert taken(path) == {"prepare": True}


def test_who_cannot_give_is_named_with_the_reason(lm: Path, first: Path, tmp_path: Path) -> None:
    config = core(lm).model_dump(mode="json")
    with RunFolder.open(tmp_path / "run", config) as run:
        with pytest.raises(RunError, match=r"run folder is wanted to take from, got .*nowhere"):
            reuse_from(run, tmp_path / "nowhere")
        with pytest.raises(RunError, match="cannot take from itself"):
            reuse_from(run, tmp_path / "run")
        manifest = json.loads((first / "manifest.json").read_text())
        for number, (change, said) in enumerate(
            [({"method": "rerec"}, "got one of rerec"), ({"versions": {"torch": "1"}}, r"versions .*torch")]
        ):
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / "manifest.json").write_text(json.dumps(manifest | change))
            with pytest.raises(RunError, match=said):
                reuse_from(run, tmp_path / str(number))
    with (
        RunFolder.open(tmp_path / "other", ReRecConfig().model_dump(mode="json"), method="rerec") as other,
        pytest.raises(RunError, match="got one of dpo4rec for one of rerec"),
    ):
        reuse_from(other, first)


def test_a_run_that_only_chooses_measures_untuned_and_tuned(lm: Path, first: Path, tmp_path: Path) -> None:
    do_with(first, core(lm, rows="trained"), tmp_path / "run")
    stages = taken(tmp_path / "run")
    assert {name for name, was_taken in stages.items() if not was_taken} == set(LAST)
    assert not any("random" in name or "shuffled" in name for name in stages)
    tables = [json.loads((path / "results.json").read_text())["tables"][0] for path in (tmp_path / "run", first)]
    rows = [{row["name"]: row["estimate"]["value"] for row in table["metrics"][0]["rows"]} for table in tables]
    assert set(rows[0]) == {"untuned", "trained", "best_of_n", "reward_model_untuned", "reward_model_trained"}
    assert rows[0] == {name: value for name, value in rows[1].items() if name in rows[0]}


@pytest.fixture(scope="module")
def one_variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("one_variant") / "run"
    do_rerec(path, rerec_config(variants=["rerec"]))
    return path


@pytest.mark.usefixtures("reads")
def test_a_run_of_rerec_takes_all_but_an_variant_and_another_log(
    one_variant: Path, watched: Path, tmp_path: Path
) -> None:
    config = rerec_config(variants=["grpo_ndcg", "rerec"], transfer=[ELSEWHERE])
    with RunFolder.open(tmp_path / "taking", config.model_dump(mode="json"), method="rerec") as run:
        reuse_from(run, one_variant)
    do_rerec(tmp_path / "taking", config)
    again = {name for name, was_taken in taken(tmp_path / "taking").items() if not was_taken} - {*LAST}
    plain = [f"sample.{what}grpo_ndcg.s0" for what in ("", "kept.", "next.")]
    trained = [f"train.grpo_ndcg.s0.e{epoch}" for epoch in (0, 1)]
    lms = ("shipped", "supervised", "grpo_ndcg", "rerec")
    assert again == {*plain, *trained, "prepare.elsewhere", *(f"sample.{lm}.s0.elsewhere" for lm in lms)}
    results = [(path / "results.json").read_bytes() for path in (tmp_path / "taking", watched / "rerec")]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("changes", "not_taken"),
    [
        ({"sft": {"epochs": 2}}, {"train.supervised"}),
        ({"grpo": {"lr": 1e-3}}, {"train"}),
        ({"seeds": [0, 1]}, {"sample.next.baselines"}),
        ({"reward": {"qas_weight": 0.5}}, set[str]()),  # among the inputs of an variant
        ({"embedding": {"epochs": 4}}, {"embed"}),
    ],
)
def test_what_a_run_of_rerec_would_take_is_told_beforehand(
    one_variant: Path, changes: dict[str, Any], not_taken: set[str]
) -> None:
    told = forecast_of_reuse(rerec_config(variants=["rerec"], **changes).model_dump(mode="json"), one_variant)
    assert told.split(": ")[-1].split(", ") == [name for name in READS["rerec"] if name not in not_taken]
