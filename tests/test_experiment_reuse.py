"""What a run takes from another: the steps that would come out the same, and no other."""

import contextlib
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

from recloop.errors import RunError
from recloop.experiment.manifest import PASSING
from recloop.experiment.reuse import reuse_from
from recloop.experiment.run_folder import REUSED, RunFolder
from recloop.experiment.step import StepKind, Steps, forecast_of_reuse
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.registry import method_named
from recloop.methods.rerec.config import ReRecConfig
from recloop.methods.run import reuse_run
from recloop.progress import Progress
from test_methods_dpo4rec_recipe import do, training_config, write_lm
from test_methods_rerec_recipe import config_of as rerec_config
from test_methods_rerec_recipe import do as do_rerec

pytestmark = pytest.mark.slow

DPO = {"max_pairs": 8, "learning_rate": 1e-2}  # enough for texts to change
# Which steps there are, how often, and what is among their inputs; a step's name says what they are.
OTHERS = {
    "dpo4rec": ("rounds", "seeds", "backbones", "variants", "reward.num_models", "train"),
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


def reads_of(model: type[BaseModel], run: Callable[[], Any]) -> dict[str, set[str]]:
    """Settings that each kind of stage reads in a run; what is read between two steps, the second does."""
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

    whole = Steps.step

    @contextmanager
    def step(
        self: Steps, kind: StepKind, key: str, inputs: Mapping[str, Any], folder: str | None = None
    ) -> Generator[Any]:
        with whole(self, kind, key, inputs, folder) as one:
            yield one
        found[kind.label] |= pending
        pending.clear()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Steps, "step", step)
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
    ours = training_config(lm, variants="all", rounds=1, reward={"num_models": 2, "cross_fit": True})
    theirs = rerec_config(variants=["grpo_ndcg", "rerec"], transfer=[ELSEWHERE])
    return {
        "dpo4rec": reads_of(Dpo4RecConfig, lambda: do(ours, watched / "dpo4rec")),
        "rerec": reads_of(ReRecConfig, lambda: do_rerec(watched / "rerec", theirs)),
    }


def kinds_of(method: str) -> dict[str, StepKind]:
    return {kind.label: kind for kind in method_named(method).steps if kind.reads is not None}


@pytest.mark.parametrize("method", ["dpo4rec", "rerec"])
def test_a_step_reads_no_setting_that_its_kind_does_not_name(
    reads: dict[str, dict[str, set[str]]], method: str
) -> None:
    kinds = kinds_of(method)
    unnamed: dict[str, set[str]] = {}
    for label, kind in kinds.items():
        named = {
            *(kind.reads or ()),
            *(kinds["prepare"].reads or ()),
            *OTHERS[method],
            *EARLIER.get(label, ()),
            *PASSING,
        }
        assert label in reads[method], "a kind without a step in a whole run"
        unnamed[label] = {
            path for path in reads[method][label] if not any(path == one or path.startswith(f"{one}.") for one in named)
        }
    assert {label: paths for label, paths in unnamed.items() if paths} == {}


def core(lm: Path, **changes: Any) -> Dpo4RecConfig:
    return training_config(lm, **({"variants": "core", "dpo": DPO} | changes))


def reused(run: Path) -> dict[str, bool]:
    """Every stage of a run and whether another run did it."""
    steps = json.loads((run / "manifest.json").read_text())["steps"]
    return {name: REUSED in entry for name, entry in steps.items()}


@pytest.fixture(scope="module")
def first(lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with core rows, done in one go."""
    path = tmp_path_factory.mktemp("first") / "run"
    do(core(lm), path)
    return path


def do_with(first: Path, config: Dpo4RecConfig, path: Path, until: str | None = None) -> str:
    with RunFolder.open(path, config.model_dump(mode="json")) as run:
        reuse_from(run, first)
    return do(config, path, until=until)


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
        pytest.param({"dpo": DPO | {"learning_rate": 3e-2}}, (*TRAINED, *RANDOM, *LAST), id="lr"),
        pytest.param({"split": {"train": 0.4, "reward": 0.2, "valid": 0.1, "test": 0.3}}, None, id="split"),
    ],
)
def test_only_what_a_setting_touches_is_done_again(
    lm: Path, first: Path, tmp_path: Path, changes: dict[str, Any], again: tuple[str, ...] | None
) -> None:
    config = core(lm, **changes)
    do_with(first, config, tmp_path / "reusing")
    steps = reused(tmp_path / "reusing")
    assert {name for name, was_reused in steps.items() if not was_reused} == set(again or steps)


def test_a_run_with_rounds_takes_the_log_of_one_without_and_draws_what_it_rewards(lm: Path, tmp_path: Path) -> None:
    do(core(lm, rounds=0), tmp_path / "measured")
    do_with(tmp_path / "measured", core(lm), tmp_path / "trained")
    steps = reused(tmp_path / "trained")
    assert steps["prepare"]
    assert not steps["sample.untuned.s0"]
    assert not steps["evaluate"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "prepare is reused from run"),
        ({"pace": {"max_concurrency": 3}}, "prepare is reused from run"),
        (
            {"data_seed": 5},
            "nothing is reused from run, since prepare differs: data_seed: 0, now 5",
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
        inputs = json.loads((first / "manifest.json").read_text())["steps"]["prepare"]["inputs"]
        steps = Steps(run, Progress(out), None)
        with contextlib.suppress(OSError), steps.step(kinds_of("dpo4rec")["prepare"], "", inputs) as step:
            if not step.is_done:
                raise OSError("done again")
    assert out.getvalue().strip() == said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            (
                "prepare, sample.untuned, sample, sample.untuned_matched, encode, reward_model, reward, pairs, train, "
                "fit, score"
            ),
        ),
        (
            {"dpo": DPO | {"learning_rate": 3e-2}},
            "prepare, sample.untuned, sample, sample.untuned_matched, encode, reward_model, reward, pairs, fit, score",
        ),
        ({"data_seed": 5}, "nothing will be reused from .*, since prepare differs: data_seed: 0, now 5"),
    ],
)
def test_what_would_be_taken_is_told_beforehand(lm: Path, first: Path, changes: dict[str, Any], said: str) -> None:
    assert re.search(
        f"{said}$",
        forecast_of_reuse(method_named("dpo4rec").steps, core(lm, **changes).model_dump(mode="json"), first),
    )


def test_more_rows_are_added_to_those_that_are_there(lm: Path, first: Path, tmp_path: Path) -> None:
    do_with(first, core(lm, variants="all"), tmp_path / "reusing")
    steps, before = reused(tmp_path / "reusing"), set(reused(first)) - set(LAST)
    assert {name for name, was_reused in steps.items() if was_reused} == before
    do(core(lm, variants="all"), tmp_path / "alone")
    results = [(tmp_path / name / "results.json").read_bytes() for name in ("reusing", "alone")]
    assert results[0] == results[1]


def test_a_run_that_took_goes_on_when_the_source_is_gone(lm: Path, first: Path, tmp_path: Path) -> None:
    source, path, config = tmp_path / "source", tmp_path / "run", core(lm)
    do(config, source, until="encode")
    with RunFolder.open(path, config.model_dump(mode="json")) as run:
        reuse_from(run, source)
    do(config, path, until="encode")
    assert all(reused(path).values())
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
        reuse_run(run, source)
    with closing(sqlite3.connect(tmp_path / "run" / "completions.sqlite")) as cache:
        counts = [cache.execute(f"select count(*) from {table}").fetchone()[0] for table in ("completions", "usage")]
    assert counts[0] > 0
    assert counts[1] == 0


def test_files_that_the_source_did_not_write_are_not_reused(lm: Path, first: Path, tmp_path: Path) -> None:
    source, path, config = tmp_path / "source", tmp_path / "run", core(lm)
    do(config, source, until="sample")
    file = source / "steps" / "sample.untuned.s0" / "fit.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    do_with(source, config, path, until="sample")
    assert reused(path) == {"prepare": True, "sample.untuned.s0": False}
    assert (path / "steps" / "sample.untuned.s0" / "fit.parquet").read_bytes()[:-1] == file.read_bytes()


def test_who_cannot_be_reused_is_named_with_the_reason(lm: Path, first: Path, tmp_path: Path) -> None:
    config = core(lm).model_dump(mode="json")
    with RunFolder.open(tmp_path / "run", config) as run:
        with pytest.raises(RunError, match=r"run folder is wanted to reuse, got .*nowhere"):
            reuse_from(run, tmp_path / "nowhere")
        with pytest.raises(RunError, match="cannot reuse itself"):
            reuse_from(run, tmp_path / "run")
        manifest = json.loads((first / "manifest.json").read_text())
        del manifest["manifest_sha256"]
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


def test_a_run_that_only_chooses_measures_untuned_and_trained(lm: Path, first: Path, tmp_path: Path) -> None:
    do_with(first, core(lm, variants="trained"), tmp_path / "run")
    steps = reused(tmp_path / "run")
    assert {name for name, was_reused in steps.items() if not was_reused} == set(LAST)
    assert not any("random" in name or "shuffled" in name for name in steps)
    tables = [json.loads((path / "results.json").read_text())["tables"][0] for path in (tmp_path / "run", first)]
    rows = [{row["name"]: row["estimate"]["value"] for row in table["metrics"][0]["variants"]} for table in tables]
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
    with RunFolder.open(tmp_path / "reusing", config.model_dump(mode="json"), method="rerec") as run:
        reuse_from(run, one_variant)
    do_rerec(tmp_path / "reusing", config)
    again = {name for name, was_reused in reused(tmp_path / "reusing").items() if not was_reused} - {*LAST}
    plain = [f"sample.{what}grpo_ndcg.s0" for what in ("", "retention.", "next.")]
    trained = [f"train.grpo_ndcg.s0.e{epoch}" for epoch in (0, 1)]
    lms = ("base_model", "supervised", "grpo_ndcg", "rerec")
    assert again == {*plain, *trained, "prepare.elsewhere", *(f"sample.{lm}.s0.elsewhere" for lm in lms)}
    results = [(path / "results.json").read_bytes() for path in (tmp_path / "reusing", watched / "rerec")]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("changes", "not_reused"),
    [
        ({"sft": {"epochs": 2}}, {"train.supervised"}),
        ({"grpo": {"learning_rate": 1e-3}}, {"train"}),
        ({"seeds": [0, 1]}, {"sample.next.baselines"}),
        ({"reward": {"qas_weight": 0.5}}, set[str]()),  # among the inputs of an variant
    ],
)
def test_what_a_run_of_rerec_would_take_is_told_beforehand(
    one_variant: Path, changes: dict[str, Any], not_reused: set[str]
) -> None:
    config = rerec_config(variants=["rerec"], **changes).model_dump(mode="json")
    told = forecast_of_reuse(method_named("rerec").steps, config, one_variant)
    assert told.split(": ")[-1].split(", ") == [name for name in kinds_of("rerec") if name not in not_reused]
