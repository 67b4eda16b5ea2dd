"""Bad rows that a run sets aside lie in its folder; a plan writes nothing."""

import json
import re
from pathlib import Path

import polars as pl
import pytest

from recloop import cli
from recloop.data.load import DataConfig
from recloop.errors import DataError, SettingError
from recloop.methods.dpo4rec.config import Dpo4RecConfig
from recloop.methods.dpo4rec.cost_estimate import forecast
from recloop.methods.run_log import read_plan_log, read_plan_sample, read_run_log
from recloop.progress import SILENT


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """A log with a bad row, read in an empty working directory."""
    file = tmp_path / "log.csv"
    file.write_text("user,item,rating\n" + "".join(f"u{n},i{n % 3},4\n" for n in range(6)) + "u1,i1,x\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return DataConfig(name="table", path=file, on_bad_rows="quarantine")


@pytest.mark.parametrize(("name", "file"), [("", "quarantine.jsonl"), ("books", "quarantine-books.jsonl")])
def test_bad_rows_lie_beside_the_run(data: DataConfig, tmp_path: Path, name: str, file: str) -> None:
    log = read_run_log(data, 0, SILENT, tmp_path / "run", name)
    assert log.interactions.height == 6
    rows = [json.loads(line) for line in (tmp_path / "run" / file).read_text().splitlines()]
    assert [row["line"] for row in rows] == [8]
    assert not list(Path.cwd().iterdir())


def test_a_file_that_a_setting_names_takes_them(data: DataConfig, tmp_path: Path) -> None:
    read_run_log(data.model_copy(update={"quarantine": Path("bad.jsonl")}), 0, SILENT, tmp_path / "run")
    assert [file.name for file in Path.cwd().iterdir()] == ["bad.jsonl"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("named", [{}, {"quarantine": Path("bad.jsonl")}])
def test_a_plan_counts_them_and_writes_nothing(data: DataConfig, named: dict[str, Path]) -> None:
    log = read_plan_log(data.model_copy(update=named), 0)
    assert any(line.startswith("1 bad rows set aside: ") for line in log.reading)
    assert not list(Path.cwd().iterdir())


def test_a_dry_run_writes_nothing(data: DataConfig, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"u{u},i{i},{1 + (u * i) % 5}\n" for u in range(60) for i in range(u % 3, 60, 3))
    assert data.path is not None
    data.path.write_text("user,item,rating\n" + rows + "u1,i1,x\n")
    words = ["run", "dpo4rec", "--data", "table", "--data.path", str(data.path), "--data.on-bad-rows", "quarantine"]
    words += ["--variants", "without_lm", "--dry-run", "--data.quarantine", "bad.jsonl"]
    code = cli.main(words)
    assert code == 0, capsys.readouterr().err
    assert "1 bad rows set aside" in capsys.readouterr().out
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("users", [None, 150])
def test_of_a_large_parquet_table_a_plan_reads_some_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, users: int | None
) -> None:
    file = tmp_path / "big.parquet"
    rows = [(f"u{u}", f"i{i}", 1 + (u * i) % 5) for u in range(400) for i in range(u % 7, 60, 3)]
    pl.DataFrame(rows, schema=["user", "item", "rating"], orient="row").write_parquet(file)
    config = Dpo4RecConfig.model_validate(
        {"data": {"name": "table", "path": file, "table": {"rating": "rating"}, "users": users}, "rounds": 0}
    )
    exact = forecast(config)
    monkeypatch.setattr("recloop.methods.run_log.MAX_ROWS_WHOLE", 1000)
    for module in ("methods.run_log", "methods.dpo4rec.cost_estimate"):
        monkeypatch.setattr(f"recloop.{module}.PLAN_USERS", 100)
    sample = read_plan_sample(config.data, config.data_seed)
    assert sample.num_users == (users or 400)
    assert sample.num_items == 60
    assert 60 < sample.log.num_users < 140
    about = forecast(config)
    assert f"{len(rows):,} rows of 400 users with 60 items; those of {sample.log.num_users} users" in about
    assert f"big: {users or 400} users, 60 items" in about
    for pattern in (r"([\d,]+) train,", r"([\d,]+) completions", r"about ([\d,]+) read"):
        numbers = [int(re.findall(pattern, text)[0].replace(",", "")) for text in (exact, about)]
        assert numbers[1] == pytest.approx(numbers[0], rel=0.15)


def test_a_large_table_that_lacks_its_columns_gets_the_error_of_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "big.parquet"
    pl.DataFrame({"who": ["a"] * 9, "item": list("abcdefghi")}).write_parquet(file)
    monkeypatch.setattr("recloop.methods.run_log.MAX_ROWS_WHOLE", 3)
    with pytest.raises(DataError, match="must have a column 'user'"):
        read_plan_sample(DataConfig(name="table", path=file), 0)


def test_more_users_than_a_large_table_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "big.parquet"
    rows = [(f"u{u}", f"i{i}") for u in range(50) for i in range(9)]
    pl.DataFrame(rows, schema=["user", "item"], orient="row").write_parquet(file)
    monkeypatch.setattr("recloop.methods.run_log.MAX_ROWS_WHOLE", 3)
    monkeypatch.setattr("recloop.methods.run_log.PLAN_USERS", 10)
    assert read_plan_sample(DataConfig(name="table", path=file, users=50), 0).num_users == 50
    with pytest.raises(SettingError, match="at most the 50 users"):
        read_plan_sample(DataConfig(name="table", path=file, users=51), 0)
