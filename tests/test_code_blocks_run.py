"""The Python and the commands of README and site, run: a page's blocks one after another, in an empty folder.

What a page takes for granted, such as a log of one's own, is made by the function of its name in `PREPARED`.

What would take minutes is made smaller, in plain sight. `LOG`, `STUDY` and `OTHERS` are settings that are added where
the page does not say them. `SMALLER` are words of Python that are replaced. What is not run at all stands in `NOT_RUN`,
or has a mark on the page.
"""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import recloop
import recloop as rl
from code_blocks import Block, Command, commands_of, link_clone, page_of, smaller, those_of, write_files
from fake_server import FakeServer
from recloop import cli
from test_serving_process import serving
from whole_runs import SETTINGS

pytestmark = pytest.mark.slow

SMALL_LOG = {"num_users": 40, "num_items": 60, "num_interactions": 12}
LOG = {f"data.simulated.{name.replace('_', '-')}": str(value) for name, value in SMALL_LOG.items()}
STUDY = {
    "prompt.max-prompt-tokens": "300", "completions.reward": "2", "completions.test": "1", "dpo.max-pairs": "2",
    "reranker.max-epochs": "1", "reranker.min-epoch-steps": "4", "statistics.num-flips": "200",
    "statistics.num-resamples": "100", "variants": "core", "encoder": "static",
}  # fmt: skip
OTHERS = {
    "rerec": SETTINGS["rerec"] | {"variants": '["rerec"]', "lm.max-tokens": "8", "grpo.max-reply-tokens": "8"},
    "re2llm": SETTINGS["re2llm"] | {"data.simulated-sessions.num-test": "6", "lm.max-tokens": "40"},
}
ONE_EPOCH = {"log, lists, vectors)": "log, lists, vectors, max_epochs=1, min_epoch_steps=4)"}
SMALLER = {
    "README.md": {"users=1000": "users=40", "n=10": "n=2"} | ONE_EPOCH,
    "docs/index.md": {"load_log()": "load_log(users=40)", "n=10": "n=2"} | ONE_EPOCH,
    "docs/use.md": {"users=1000": "users=40"},
}
NOT_RUN = {
    ("README.md", "recloop serve"): "docs/serve.md",
    ("docs/index.md", "recloop run dpo4rec --config mine.toml --out"): "the README's",
    ("docs/index.md", "recloop resume runs/mine"): "the README's",
    ("docs/data.md", "recloop run dpo4rec --config mine.toml --out"): "the README's",
}
# Commands that come before those of the page.
BEFORE = {
    "docs/use.md": "recloop run dpo4rec --data table --data.path week1.csv --data.table.rating rating "
    "--data.table.time time --data.table.items items.csv --data.table.attributes genre --rounds 0 "
    "--variants trained --out runs/week1",
}
SERVER = "http://127.0.0.1:8000/v1"  # of pages that ask a language model behind a server: the fake one here


def own_log() -> tuple[pl.DataFrame, pl.DataFrame]:
    """A log of 40 users (user_id, item_id, rating, time) and its items (item_id, title, genre, year)."""
    log = rl.load_log("simulated", simulated={"num_users": 40, "num_items": 60, "num_interactions": 16})
    rows = log.interactions.join(log.users, on="user").join(log.items.select("item", "item_id"), on="item")
    items = log.items.select("item_id", "title", pl.col("genre").list.join("|"), year=1950 + pl.col("item"))
    return rows.sort("user", "time").select("user_id", "item_id", "rating", "time"), items


def shown_lists(log: pl.DataFrame) -> pl.DataFrame:
    """Three lists a user, of four items with one click."""
    users = log["user_id"].unique(maintain_order=True).to_list()
    rows = [
        {"user_id": user, "list_id": f"{user}-{number}", "item_id": f"i{(7 * row + 3 * number + place) % 60}",
         "label": int(place == row % 4), "position": place + 1, "time": 1.1e9 + 1000.0 * number + row}
        for row, user in enumerate(users) for number in range(3) for place in range(4)
    ]  # fmt: skip
    return pl.DataFrame(rows)


def readme() -> dict[str, Any]:
    """A log of one's own, and one in the form of MovieLens-1M."""
    log, items = own_log()
    log.rename({"item_id": "movie_id", "time": "timestamp"}).write_csv("my-log.csv")
    items.rename({"item_id": "movie_id", "title": "name"}).write_csv("my-items.csv")
    number = pl.col("user_id", "item_id").str.slice(1).cast(pl.Int64) + 1
    films = items.select(pl.col("item_id").str.slice(1).cast(pl.Int64) + 1, pl.col("title") + " (1995)", "genre")
    tables = {
        "ratings": log.with_columns(number, pl.col("rating", "time").cast(pl.Int64)).rows(),
        "movies": films.rows(),
        "users": [(user + 1, "F", 25, 10, "48067") for user in range(40)],
    }
    Path("ml-1m").mkdir()
    for name, rows in tables.items():
        Path(f"ml-1m/{name}.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in rows), "latin-1")
    return {}


def data() -> dict[str, Any]:
    """Tables with columns of other names, baskets, frames, and a finished run on them."""
    log, items = own_log()
    when = pl.from_epoch(pl.col("time").cast(pl.Int64)).dt.strftime("%d.%m.%Y %H:%M")
    log.with_columns(when).rename(
        {"user_id": "customer", "item_id": "sku", "rating": "stars", "time": "bought_at"}
    ).write_csv("purchases.csv")
    described = items.rename({"item_id": "article", "title": "description", "genre": "category"})
    described.with_columns(brand=pl.lit("Ours")).write_csv("products.csv")
    baskets = [
        ",".join([user, *(f"i{(int(user[1:]) + place) % 60}" for place in range(8))]) for user in set(log["user_id"])
    ]
    Path("groceries.csv").write_text("\n".join(sorted(baskets)) + "\n")
    crm = log.select("user_id").unique(maintain_order=True).with_columns(segment=pl.lit("a"))
    frames = {"purchases": log.to_pandas(), "items": items.drop("year"), "shown": shown_lists(log).to_pandas()}
    return {**frames, "crm": crm}


def shown() -> dict[str, Any]:
    """A log without ratings, and lists beside it."""
    log, items = own_log()
    log.drop("rating").rename({"user_id": "user", "item_id": "item", "time": "when"}).write_csv("purchases.csv")
    items.rename({"item_id": "item", "genre": "category"}).write_csv("products.csv")
    columns = {"user_id": "user", "item_id": "item", "label": "clicked", "position": "place"}
    shown_lists(log).drop("time").rename(columns).write_csv("shown.csv")
    return {}


def use() -> dict[str, Any]:
    """Lists and histories to use a run for, and a table in two weeks: in the second a quarter of the users bought."""
    log, items = own_log()
    for name in ("lists", "more-lists"):
        pl.DataFrame({"user_id": ["u7"] * 3, "item_id": ["i3", "i14", "i15"]}).write_parquet(f"{name}.parquet")
    pl.DataFrame({"user_id": ["u7", "u8"]}).write_csv("users.csv")
    new = {"user_id": ["new"] * 3, "item_id": ["i9", "i2", "i6"], "rating": [5.0, 1.0, 4.0]}
    pl.DataFrame(new).write_csv("histories.csv")
    columns = {"user_id": "user", "item_id": "item"}
    is_late = (pl.col("user_id").str.slice(1).cast(pl.Int64) % 4 == 0) & (pl.int_range(pl.len()).over("user_id") >= 13)
    log.filter(~is_late).rename(columns).write_csv("week1.csv")
    log.filter(is_late).with_columns(item_id=pl.lit("late")).unique("user_id", maintain_order=True).rename(
        columns
    ).write_csv("week2.csv")
    items.drop("year").rename({"item_id": "item"}).write_csv("items.csv")
    pl.DataFrame({"item": ["late"], "title": ["The Latecomer"], "genre": ["War"]}).write_csv("new-items.csv")
    return {}


def server() -> dict[str, Any]:
    """Prompts, a log, and Presidio as far as the page uses it."""
    log = rl.load_log("simulated", users=40)
    analyzer, anonymizer = types.ModuleType("presidio_analyzer"), types.ModuleType("presidio_anonymizer")
    analyzer.__dict__["AnalyzerEngine"] = lambda: types.SimpleNamespace(analyze=lambda text, **_: [text])
    without = types.SimpleNamespace(anonymize=lambda text, found: types.SimpleNamespace(text=f"{text} without names"))
    anonymizer.__dict__["AnonymizerEngine"] = lambda: without
    for module in (analyzer, anonymizer):
        sys.modules[module.__name__] = module
    prompts = rl.profile_prompts(log, rl.candidate_lists(log, protocol="kar"), template="plain")
    return {"prompts": prompts[:3], "log": log}


PREPARED: dict[str, Callable[[], dict[str, Any]]] = {
    "README.md": readme,
    "docs/index.md": readme,
    "docs/scale.md": readme,
    "docs/data.md": data,
    "docs/guides/shown-lists.md": shown,
    "docs/use.md": use,
    "docs/server.md": server,
}
RUN = {
    "docs/use.md": "demo",
    "docs/serve.md": "demo",
    "docs/data.md": "mine",
    "docs/guides/paper-to-table.md": "published",
}
"""Pages that take a finished run for granted, and its name in `runs`."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make run` leaves, with the small settings."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    command = Command(("recloop", "run", "dpo4rec", "--variants", "trained", "--out", str(folder)), "")
    assert cli.main(smaller(command, LOG | STUDY).words[1:]) == 0
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    link_clone(tmp_path)


def prepare(page: str, finished: Path) -> dict[str, Any]:
    """What the page takes for granted, in this folder; the names that its Python takes for granted."""
    write_files(page)
    if page in RUN:
        shutil.copytree(finished, Path("runs") / RUN[page])
    return PREPARED[page]() if page in PREPARED else {}


def small_run(method: str, **given: Any) -> rl.Results:
    """`rl.run` with the small settings, but for what is given."""
    given.setdefault("data", {"simulated": dict(SMALL_LOG)})
    for key, value in STUDY.items():
        section, _, name = key.replace("-", "_").rpartition(".")
        inner = given.setdefault(section, {}) if section else given
        if isinstance(inner, dict):  # else an object
            inner.setdefault(name, value)
    return RUN_IN_FULL(method, **given)


RUN_IN_FULL = rl.run


@pytest.mark.parametrize("blocks", those_of("python"), ids=page_of)
def test_python_of_a_page(blocks: list[Block], finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = blocks[0].page
    names = prepare(page, finished)
    monkeypatch.setattr(recloop, "run", small_run)
    replaced = dict(SMALLER.get(page, {}))
    with FakeServer() as fake:
        for block in (one for one in blocks if one.needs != "a GPU"):
            text = block.text.replace(SERVER, fake.base_url)
            for old in [old for old in replaced if old in text]:
                text = text.replace(old, replaced.pop(old))
            if ">>>" in text:
                test = doctest.DocTestParser().get_doctest(text, names, str(block), page, block.line)
                assert doctest.DocTestRunner().run(test).failed == 0
            else:
                exec(compile(text, str(block), "exec"), names)
    assert replaced == {}, "these words are no longer on the page"


@pytest.mark.parametrize("blocks", those_of("bash"), ids=page_of)
def test_commands_of_a_page(blocks: list[Block], finished: Path) -> None:
    page = blocks[0].page
    commands = [one for block in blocks for one in commands_of(block) if not one.needs and not is_elsewhere(page, one)]
    todo = [one for one in commands if one.words[0] in ("recloop", "curl", "tensorboard")]
    if not todo:
        return  # `test_code_blocks.py` has read them
    prepare(page, finished)
    if page in BEFORE:
        todo.insert(0, Command(tuple(BEFORE[page].split()), ""))
    with ExitStack() as stack:
        url = ""
        for command in todo:
            match command.words:
                case ("recloop", "serve", folder):
                    url = stack.enter_context(serving(Path(folder)))[1]
                case ("recloop", *words):
                    assert cli.main(small(command).words[1:]) == 0, words
                case ("curl", *_):
                    assert "error" not in curl(command, url)
                case ("tensorboard", "--logdir", folder):
                    assert list(Path(folder).glob("**/*tfevents*"))


def is_elsewhere(page: str, command: Command) -> bool:
    """Whether the command is run with another page."""
    return any(page == where and str(command).startswith(start) for where, start in NOT_RUN)


def small(command: Command) -> Command:
    """The command with small settings, if it takes settings."""
    match command.words[1:]:
        case ("run", "dpo4rec", *words):
            own = {} if "--config" in words or "--data" in words else LOG
            grpo = {"grpo.max-pairs": "4"} if "grpo" in words else {}
            return smaller(command, own | STUDY | grpo)
        case ("run", method, *_):
            return smaller(command, OTHERS[method])
        case ("prompts", *_):
            return smaller(command, LOG)
        case _:
            return command


def curl(command: Command, url: str) -> Any:
    """What the service answers to a line that asks it by curl."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("no curl here")
    words = [word.replace("localhost:8000", url) for word in command.words[1:]]
    return json.loads(subprocess.run([program, "--fail", *words], check=True, capture_output=True).stdout)


def test_what_is_not_run_is_on_the_page() -> None:
    commands = [
        (blocks[0].page, str(one)) for blocks in those_of("bash") for block in blocks for one in commands_of(block)
    ]
    for page, start in NOT_RUN:
        assert any(page == where and command.startswith(start) for where, command in commands), start
