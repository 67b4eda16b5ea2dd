"""What a run shows: half done, with a step in progress, and finished."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import recloop as rl
from recloop.errors import RunError
from recloop.serving.progress_view import MAX_POINTS, charts, step_name, view_run
from recloop.testing import FakeEncoder, FakeLM
from served import SETTINGS

pytestmark = pytest.mark.slow  # one run


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that stopped after its rewards."""
    folder = tmp_path_factory.mktemp("half") / "run"
    objects: dict[str, Any] = {"lm": FakeLM(), "encoder": FakeEncoder()}
    settings = SETTINGS | {"completions": {"test": 1, "reward": 3}, "rounds": 1}
    # An object cannot be trained, so the run is made as one that would be, by its steps.
    from recloop.experiment.run_folder import RunFolder
    from recloop.methods.dpo4rec import evaluate, reward
    from recloop.methods.dpo4rec.config import Dpo4RecConfig
    from recloop.methods.dpo4rec.data import prepare
    from recloop.methods.dpo4rec.generate import encode_user_texts, sample_user_texts
    from recloop.methods.study import OwnParts, open_study
    from recloop.progress import SILENT

    config = Dpo4RecConfig.model_validate(settings)
    with RunFolder.open(folder, config.model_dump(mode="json"), method="dpo4rec") as run:
        study = open_study(config, run, SILENT, None, OwnParts(**objects))
        task = prepare(study)
        texts = sample_user_texts(study, task, study.first_lm, 0, with_rewards=True)
        vectors = encode_user_texts(study, texts, 0)
        fits = evaluate.fit_reward_model(study, task, vectors, 0)
        reward.reward_user_texts(study, task, fits, texts, vectors, 0, 0)
    return folder


def test_texts_stand_beside_their_rewards_the_best_first(half: Path) -> None:
    view = view_run(half)
    rewards = pl.read_parquet(half / "steps" / "reward.r0.s0" / "rewards.parquet")
    texts = pl.read_parquet(half / "steps" / "sample.untuned.s0" / "reward.parquet")
    assert view["completions"]
    for user in view["completions"]:
        told = [(one["text"], one["reward"]) for one in user["texts"]]
        assert [reward for _, reward in told] == sorted((reward for _, reward in told), reverse=True)
        number = int(user["user_id"].removeprefix("u"))  # simulated users are named by their numbers
        by_completion = dict(rewards.filter(user_id=user["user_id"]).select("completion", "reward").iter_rows())
        written = texts.filter(user=number).select("completion", "text").iter_rows()
        assert sorted(told) == sorted((text, by_completion[n]) for n, text in written)
    assert (view["table"], view["now"], view["is_finished"]) == (None, None, False)


def test_what_the_step_in_progress_has_written_is_shown(half: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(half, run)
    part = run / "lm" / ".trained.s0.part"
    part.mkdir(parents=True)
    rows = [{"run_step": "train.trained.s0", "step": n, "loss": 0.7 - n / 10} for n in (1, 2)]
    (part / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"run_step": "tr')
    view = view_run(run)
    assert view["now"]["name"] == "train.trained.s0"
    assert view["now"]["idle_s"] < 60
    loss = next(chart for chart in view["charts"] if chart["title"] == "Training loss")
    assert loss["lines"] == [{"name": "train.trained.s0", "points": [(1, pytest.approx(0.6)), (2, pytest.approx(0.5))]}]


def test_curves_of_a_trainer_that_has_saved_a_checkpoint_are_shown(half: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(half, run)
    checkpoint = run / ".scratch" / "train.trained.s0" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    history = [{"step": 5, "loss": 0.25, "epoch": 0.5}]
    (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": history}))

    def points() -> list[tuple[float, float]]:
        loss = next(chart for chart in view_run(run)["charts"] if chart["title"] == "Training loss")
        (line,) = loss["lines"]
        assert line["name"] == "train.trained.s0"
        return line["points"]

    assert points() == [(5, 0.25)]
    later = run / ".scratch" / "train.trained.s0" / "checkpoint-10" / "trainer_state.json"
    later.parent.mkdir()
    later.write_text('{"log_history": [')  # is being written
    assert points() == [(5, 0.25)]
    later.write_text(json.dumps({"log_history": [*history, {"step": 10, "loss": 0.125}]}))
    assert points() == [(5, 0.25), (10, 0.125)]


def test_a_view_is_read_again_only_when_something_was_written(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view_run(half)
    monkeypatch.setattr("recloop.serving.progress_view.read_manifest", lambda _: pytest.fail("read again"))
    view_run(half)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rows = [{"run_step": "train.a", "step": n, "loss": float(np.sin(n))} for n in range(1, 5_001)]
    ((line,),) = (chart["lines"] for chart in charts(iter(rows)))
    assert len(line["points"]) <= MAX_POINTS + 1
    assert (line["points"][0][0], line["points"][-1][0]) == (1, 5_000)


def test_what_is_no_number_is_no_point() -> None:
    rows = [{"run_step": "a", "step": 1, "loss": None}, {"run_step": "a", "step": 2, "loss": float("nan")}, {"step": 3}]
    assert charts(iter(rows)) == []


def test_a_step_is_named_by_the_folder_it_writes_to() -> None:
    assert step_name(Path("run/steps/.sample.trained.s0.part")) == "sample.trained.s0"
    assert step_name(Path("run/lm/.trained.s0.part")) == "train.trained.s0"
    assert step_name(Path("run/reranker/.trained.prm.s0.part")) == "fit.trained.prm.s0"


def test_a_finished_run_shows_its_first_table(tmp_path: Path) -> None:
    objects: dict[str, Any] = {"lm": FakeLM(), "encoder": FakeEncoder()}
    results = rl.run("dpo4rec", out=tmp_path / "run", preflight="off", **objects, **SETTINGS)
    view = view_run(tmp_path / "run")
    table = results.table()
    first = table.filter(table["table"] == table["table"][0])
    told = {row["name"]: (row["label"], row["value"], row["low"], row["high"]) for row in view["table"]["rows"]}
    assert told == {row[0]: row[1:] for row in first.select("variant", "label", "value", "low", "high").iter_rows()}
    assert view["is_finished"]
    assert view["table"]["is_demonstration"]


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        view_run(tmp_path)
