"""MIND: the published files as they are, against a reading in plain Python."""

from datetime import datetime

import pytest

from recloop.data.checks import BadRowPolicy
from recloop.data.impressions import lists_from_impressions
from recloop.data.mind import read_mind
from recloop.errors import DataError
from recloop.records import Group

SPLIT = {"train": 0.5, "reward": 0, "valid": 0.25, "test": 0.25}
BEHAVIORS = [
    "1\tU1\t11/12/2019 2:14:46 PM\tN1 N2 N1\tN3-0 N4-1",
    "2\tU2\t11/11/2019 5:00:00 AM\t\tN1-1 N2-0 N9-0",
    "3\tU1\t11/11/2019 5:00:00 AM\tN2 N3\tN1-0 N4-0",
    "4\tU3\t11/13/2019 12:00:00 AM\tN4\tN4-1",
    "5\tU4\t11/13/2019 12:00:00 AM\tN4\tN1-1 N2-0",
]
NEWS = [f"N{n}\tsports\trow, ing\tTitle {n}\tabstract\turl\t[]\t[]" for n in range(1, 5)]


def write(folder, behaviors=BEHAVIORS, news=NEWS):
    (folder / "behaviors.tsv").write_text("\n".join(behaviors))
    (folder / "news.tsv").write_text("\n".join(news))
    return folder


def test_the_log_and_its_impressions(tmp_path):
    said = []
    log = read_mind(write(tmp_path), BadRowPolicy(None, said.append))
    assert said == ["1 of 5 news are not in news.tsv: their id is their title"]
    assert log.items.select("item_id", "title", "category", "subcategory").rows()[0] == (
        "N1",
        "Title 1",
        ["sports"],
        ["row ing"],
    )
    titles, ids = log.items["title"].to_list(), log.users["user_id"].to_list()
    lists = lists_from_impressions(log, split=SPLIT)
    history = {ids[u]: [titles[i] for i in lists.histories.of(u)[0]] for u in range(log.num_users)}
    # U1's first list is of the 11th, and so is the history; U2 has read nothing
    assert history == {"U1": ["Title 2", "Title 3"], "U2": [], "U3": ["Title 4"], "U4": ["Title 4"]}
    assert sum(len(lists.of(group)) for group in Group) == 4  # a list of one item cannot be ordered
    assert "N9" in titles


BAD = [
    ("5\tU4\t11/13/2019 12:00:00 AM\tN4", "does not have the 5 fields"),
    ("6\tU4\t11/13/2019 12:00:00 AM\tN4\tN1 N2-0", "is no list such as"),
    ("6\tU4\t13/13/2019 12:00:00 AM\tN4\tN1-0 N2-0", "is not a time of the form"),
    ("1\tU4\t11/13/2019 12:00:00 AM\tN4\tN1-0 N2-0", "'1' repeats the list"),
]


@pytest.mark.parametrize(("row", "complaint"), BAD, ids=[complaint for _, complaint in BAD])
def test_a_bad_row_is_one_error_or_is_set_aside(tmp_path, row, complaint):
    folder = write(tmp_path, [*BEHAVIORS, row])
    with pytest.raises(DataError, match=complaint):
        read_mind(folder)
    log = read_mind(folder, BadRowPolicy(tmp_path / "bad.jsonl"))
    assert log.impressions["list"].n_unique() == 5


@pytest.mark.slow
def test_every_published_row_equals_a_plain_reading(shared_data):
    folder = shared_data / "mind-sample"
    log = read_mind(folder)
    lists = lists_from_impressions(log, split=SPLIT, window_max=1000)
    rows = [line.rstrip("\n").split("\t") for line in (folder / "behaviors.tsv").read_text("utf-8").splitlines()]
    users, items = log.users["user_id"].to_list(), log.items["item_id"].to_list()
    expected = []
    for _, user, _, _, shown in rows:
        places = [cell.rsplit("-", 1) for cell in shown.split(" ")]
        labels = {item: max(int(label) for name, label in places if name == item) for item, _ in places}
        expected.append((user, sorted(labels.items())))
    got = [
        (users[user], sorted((items[i], int(y)) for i, y, real in zip(*row, strict=True) if real))
        for group in Group
        for made in [lists.of(group)]
        for user, *row in zip(made.user_B, made.items_BL, made.labels_BL, made.is_item_BL, strict=True)
    ]
    assert sorted(got) == sorted(expected)
    assert len(got) == 5000
    history = {}
    for _, user, _, read, _ in sorted(rows, key=lambda row: datetime.strptime(row[2], "%m/%d/%Y %I:%M:%S %p")):
        history.setdefault(user, list(dict.fromkeys(read.split())))
    assert {users[u]: [items[i] for i in lists.histories.of(u)[0]] for u in range(log.num_users)} == history
