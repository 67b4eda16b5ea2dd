"""What messy files and thin logs meet at the command line: one clear line each, or the right value.

The rows are kinds of input that users of other tools have brought; each is tried as `recloop run ... --dry-run` sees
it.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import recloop as rl
from recloop.cli import main

pytestmark = pytest.mark.slow  # a plan each
USERS, ITEMS, EACH = 24, 40, 12
DAY_S = 86_400
START_S = 1_600_000_000


def rows() -> list[tuple[str, str, int, int]]:
    """User, item, rating and time, each user in time order."""
    return [
        (f"u{user}", f"i{(7 * user + 3 * n) % ITEMS}", 1 + (user + n) % 5, START_S + n * DAY_S)
        for user in range(USERS)
        for n in range(EACH)
    ]


def item_rows() -> list[tuple[str, str, str, str]]:
    genres, directors = ("Drama", "Comedy", "Horror", "Western"), ("Ann Vale", "Leo Moss", "Ida Hart")
    return [(f"i{n}", f"Film {n}", genres[n % 4], directors[n % 3]) for n in range(ITEMS)]


class Door:
    """A folder with a log, its items and their settings, and the command line before it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.log = pl.DataFrame(rows(), schema=["user", "item", "rating", "time"], orient="row")
        self.items = pl.DataFrame(item_rows(), schema=["item", "title", "genre", "director"], orient="row")
        self.table: dict[str, object] = {
            "rating": "rating", "time": "time", "items": str(folder / "items.csv"),
            "attributes": ["genre", "director"], "domain": "movies",
        }  # fmt: skip
        self.path = folder / "log.csv"

    def write(self) -> None:
        if not self.path.exists():
            self.log.write_csv(self.path)
        if not (self.folder / "items.csv").exists():
            self.items.write_csv(self.folder / "items.csv")

    def times(self, texts: list[str]) -> None:
        """The log with these times, over and over."""
        column = [texts[n % len(texts)] for n in range(self.log.height)]
        self.log = self.log.with_columns(pl.Series("time", column))

    def knock(self, *more: str, method: str = "dpo4rec") -> tuple[int, str]:
        """The exit code and everything that is printed."""
        self.write()
        lines = ["[data]", 'name = "table"', f"path = {json.dumps(str(self.path))}", "[data.table]"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in self.table.items()]
        (self.folder / "a.toml").write_text("\n".join(lines))
        command = ["run", method, "--config", str(self.folder / "a.toml"), "--dry-run"]
        self.capsys.readouterr()
        code = main([*command, *([] if "--preflight" in more else ["--preflight", "off"]), *more])
        said = self.capsys.readouterr()
        return code, said.out + said.err

    def read(self) -> rl.Log:
        self.write()
        return rl.load_log("table", path=self.path, table=self.table)

    def dated(self) -> dict[str, float]:
        """When the first user's items were met, by id."""
        log = self.read()
        own = log.interactions.filter(pl.col("user") == 0)
        return dict(zip(log.items["item_id"].gather(own["item"]), own["time"], strict=True))


@pytest.fixture
def door(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.chdir(tmp_path)
    return Door(tmp_path, capsys)


def test_the_log_of_these_tests_is_in_order(door: Door) -> None:
    code, said = door.knock()
    assert code == 0
    assert f"reader table: {USERS * EACH} interactions of {USERS} users with {ITEMS} items" in said
    assert "in all" in said


REFUSED: dict[str, tuple[Callable[[Door], object], str]] = {
    "A1 times with the month first": (
        lambda door: door.times(["01/12/2024", "02/01/2024", "13/03/2024"]),
        "nor a number since 1970 between 1990 and 2100; say how times are written with data.table.time_format",
    ),
    "A2 years alone": (
        lambda door: door.times(["2024", "2023"]),
        "'2024' is neither ISO 8601, such as 2024-01-31T12:00:00Z, nor a number since 1970 between 1990 and 2100",
    ),
    "A6 another encoding": (
        lambda door: door.path.write_bytes("user,item,rating,time\nИван,i1,3,1600000000\n".encode("cp1251")),
        "line 2",
    ),
    "A7 half stars": (
        lambda door: setattr(door, "log", door.log.with_columns(rating=pl.col("rating") - 0.5)),
        "is not a rating from 1 to 5; correct it, or say with --data.table.rating-min where the scale begins",
    ),
    "A8 a workbook called csv": (lambda door: door.path.write_bytes(b"PK\x03\x04" + b"xl/workbook.xml" * 9), "Excel"),
    "A8 a page called csv": (lambda door: door.path.write_bytes(b"<!DOCTYPE html><html>"), "HTML"),
    "A8 an LFS pointer": (
        lambda door: door.path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n"),
        "Git LFS pointer",
    ),
    "A9 an id of its own in the items": (
        lambda door: setattr(door, "items", door.items.rename({"item": "product_id"})),
        "the table of items must have a column 'item', got product_id, title, genre, director",
    ),
    "A10 the same user and item twice": (
        lambda door: setattr(door, "log", pl.concat([door.log, door.log.head(3)])),
        "repeats the user and item of an earlier line; keep one of the two lines, or say with data.table.repeats which",
    ),
    "A15 a title of control characters": (
        lambda door: setattr(door, "items", door.items.with_columns(title=pl.lit("\x01\x02"))),
        "has no title",
    ),
    "A15 one column for user and item": (
        lambda door: door.table.update(item="user"), "user and item must be different columns, got 'user' for both"
    ),
    "A16 one interaction a user": (
        lambda door: setattr(door, "log", door.log.unique("user", keep="first", maintain_order=True)),
        "no user has more than one interaction",
    ),
    "A16 all on one item": (
        lambda door: (
            setattr(door, "log", door.log.with_columns(item=pl.lit("i1"))), door.table.update(repeats="all")
        ),
        "a list needs items that its user never met, got a log of one item; use a whole log",
    ),
    "A16 no rating that is positive": (
        lambda door: setattr(door, "log", door.log.with_columns(rating=pl.lit(1))),
        "a liked item has a rating of 4 or more, and they are 1 to 1",
    ),
    "B2 a log without attributes": (
        lambda door: (door.table.pop("attributes"), door.table.pop("items")),
        "the bundled language model (3.3M parameters) reads the attributes of items, got none in log",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_line_that_says_what_to_do(door: Door, name: str) -> None:
    spoil, message = REFUSED[name]
    spoil(door)
    code, said = door.knock()
    assert code != 0
    assert message in said
    assert "Traceback" not in said
    assert "; " in said  # what, got, do


READ: dict[str, tuple[Callable[[Door], object], str]] = {
    "A2 dates in the basic form": (lambda door: door.times(["20200904", "20240131"]), ""),
    "A4 offsets beside Z": (lambda door: door.times(["2024-01-31T12:00:00Z", "2024-01-31T13:30:00+01:00"]), ""),
    "A8 semicolons and decimal commas": (
        lambda door: door.path.write_text(
            "user;item;rating;time\n" + "".join(f"{u};{i};{r},0;{t}\n" for u, i, r, t in rows())
        ),
        "semicolons",
    ),
    "A8 gzip in capitals": (
        lambda door: (
            (door.folder / "LOG.CSV.GZ").write_bytes(gzip.compress(door.log.write_csv().encode())),
            setattr(door, "path", door.folder / "LOG.CSV.GZ"),
        ),
        "",
    ),
    "A10 repeats that count": (
        lambda door: (
            setattr(door, "log", pl.concat([door.log, door.log.head(3)])), door.table.update(repeats="last")
        ),
        "3 repeats of a user and item are left out: the last counts",
    ),
    "A12 spaces after commas": (
        lambda door: door.path.write_text(
            "user, item, rating, time\n" + "".join(f"{u}, {i}, {r}, {t}\n" for u, i, r, t in rows())
        ),
        "",
    ),
    "B1 titles that end in a year": (
        lambda door: setattr(door, "items", door.items.with_columns(title=pl.col("title") + " (1995)")),
        "is shown as the attribute year; data.table.year_from_title false keeps it in the titles",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_can_be_read_is_read_and_said(door: Door, name: str) -> None:
    change, message = READ[name]
    change(door)
    code, said = door.knock()
    assert code == 0, said
    assert message in said
    assert f"{USERS * EACH} interactions of {USERS} users with {ITEMS} items" in said


def test_A1_a_format_is_applied_to_the_whole_column(door: Door) -> None:
    door.times(["01/12/2024", "02/01/2024", "03/03/2024"])
    door.table["time_format"] = "%m/%d/%Y"
    assert sorted(set(door.dated().values())) == [1705017600.0, 1706745600.0, 1709424000.0]


def test_A3_fractions_of_a_second_keep_their_order(door: Door) -> None:
    door.times([f"{START_S}.{n:02d}" for n in range(EACH)][::-1])
    ids = list(door.dated())
    assert ids == [f"i{3 * n % ITEMS}" for n in range(EACH)][::-1]


def test_A5_nan_in_json_lines_is_nothing(door: Door) -> None:
    lines = [
        '{"item": "i0", "title": "Film", "genre": "Drama", "director": NaN, "year": 2011.0}',
        '{"item": "i1", "title": "Other", "genre": NaN, "director": "Ann Vale", "year": NaN}',
    ]
    (door.folder / "items.jsonl").write_text("\n".join(lines))
    door.table |= {"items": str(door.folder / "items.jsonl"), "attributes": ["genre", "director", "year"]}
    door.log = door.log.with_columns(item=pl.Series([f"i{n % 2}" for n in range(door.log.height)])).unique(
        ["user", "item"], maintain_order=True
    )
    assert door.read().items.select("genre", "director", "year").rows() == [
        (["Drama"], [], ["2011"]),
        ([], ["Ann Vale"], []),
    ]


def test_A13_a_byte_order_mark_in_settings_is_read(door: Door) -> None:
    door.write()
    text = f'\ufeff[data]\nname = "table"\npath = {json.dumps(str(door.path))}\n'
    text += '[data.table]\nitems = "items.csv"\nattributes = ["genre"]\n'
    (door.folder / "bom.toml").write_text(text, encoding="utf-8")
    assert main(["run", "dpo4rec", "--config", "bom.toml", "--dry-run", "--preflight", "off"]) == 0


@pytest.mark.parametrize("place", [0.3, 0.5, 0.95])
def test_A17_damaged_parquet_is_one_error_or_read(door: Door, place: float) -> None:
    door.path = door.folder / "log.parquet"
    door.log.write_parquet(door.path)
    raw = bytearray(door.path.read_bytes())
    raw[int(place * len(raw))] ^= 0xFF
    door.path.write_bytes(raw)
    code, said = door.knock()
    assert code == 0 or len([line for line in said.splitlines() if line.startswith("recloop: ")]) == 1
    assert "Panic" not in said


def test_B6_a_budget_too_small_is_told_with_one_that_holds_every_prompt(door: Door) -> None:
    command = ["prepare", "dpo4rec", "--config", str(door.folder / "a.toml"), "--preflight", "off", "--out", "run"]
    door.knock()
    assert main([*command, "--prompt.max-prompt-tokens", "40"]) != 0
    said = door.capsys.readouterr().err
    assert "prompt.max_prompt_tokens" in said
    needed = next(word for word in said.replace(";", " ").replace(",", " ").split() if word.isdigit() and word != "40")
    assert main([*command, "--prompt.max-prompt-tokens", needed]) == 0


def test_A11_reviews_of_the_2023_release_are_told_by_their_keys(door: Door) -> None:
    reviews = [
        {
            "user_id": u,
            "parent_asin": i,
            "asin": i,
            "rating": float(r),
            "timestamp": 1000 * t,
            "title": "x",
            "text": "y",
        }
        for u, i, r, t in rows()
    ]
    items = [
        {"parent_asin": i, "title": title, "categories": ["All", genre], "store": who, "main_category": "Films"}
        for i, title, genre, who in item_rows()
    ]
    for name, table in (("reviews.jsonl", reviews), ("meta.jsonl", items)):
        (door.folder / name).write_text("".join(json.dumps(row) + "\n" for row in table))
    command = ["run", "dpo4rec", "--dry-run", "--preflight", "off", "--data", "amazon", "--data.path", "reviews.jsonl"]
    command += ["--data.metadata", "meta.jsonl", "--data.amazon.min-per-user", "1", "--data.amazon.min-per-item", "1"]
    assert main(command) == 0
    said = door.capsys.readouterr().out
    assert "2023" in said
    assert f"{USERS * EACH} interactions of {USERS} users with {ITEMS} items" in said


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("978300760000", "is not a number of seconds since 1970 between 1990 and 2100"),
        ("253402300799", "is not a number of seconds since 1970 between 1990 and 2100"),
        ("2014", "is not a number of seconds since 1970 between 1990 and 2100"),
        ("", ""),
    ],
)
def test_A14_times_of_movielens_meet_the_same_check(door: Door, when: str, message: str) -> None:
    folder = door.folder / "ml-1m"
    folder.mkdir()
    (folder / "ratings.dat").write_text(f"1::1::5::978300760\n1::2::3::{when}\n")
    (folder / "movies.dat").write_text("1::Film (1995)::Drama\n2::Other (1996)::Comedy\n")
    (folder / "users.dat").write_text("1::F::1::10::48067\n")
    assert main(["run", "dpo4rec", "--dry-run", "--data", "ml-1m", "--data.path", str(folder)]) != 0
    said = door.capsys.readouterr().err
    assert "ratings.dat line 2" in said
    assert message in said
