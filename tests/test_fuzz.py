"""The fuzzer itself: the same case for the same seed, and a watcher that notices what it is there for."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.mutate import mutated, mutated_tree

CASE = """
import random, subprocess, sys, tempfile
from pathlib import Path
from fuzz.__main__ import _one
from fuzz.watch import Watcher
from recloop.errors import DataError

work = Path(sys.argv[1])
watcher = Watcher(work)
beside = work / "sentinel" / "beside"

def refuses(): raise DataError("k must be at least 1, got 0; use 10")
def breaks(): raise KeyError("x")
def writes_inside(): (work / "case" / "out").write_text("x")
def writes_outside(): (beside / "new").write_text("x")
def writes_through_a_link():
    (work / "case" / "link").symlink_to(beside)
    (work / "case" / "link" / "precious.txt").write_text("x")
def writes_at_home(): Path("~/x").expanduser().write_text("x")
def removes(): (beside / "precious.txt").unlink()
def starts(): subprocess.run(["true"])

for one in (refuses, breaks, writes_inside, writes_outside, writes_through_a_link, writes_at_home, removes, starts):
    outcome, told, _ = _one(lambda rng, folder: one, watcher, random.Random(0), case_is_foreign=False)
    print(one.__name__, outcome)
"""


@pytest.mark.slow
def test_the_watcher_notices_what_a_case_does_outside_its_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CASE, tmp_path],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    assert dict(line.split() for line in done.stdout.splitlines()) == {
        "refuses": "refused",
        "breaks": "failed",
        "writes_inside": "worked",
        "writes_outside": "failed",
        "writes_through_a_link": "failed",
        "writes_at_home": "failed",
        "removes": "failed",
        "starts": "failed",
    }


@pytest.mark.parametrize("form", ["bytes", "json", ","])
def test_a_seed_gives_the_same_damage_and_another_seed_another(form):
    raw = json.dumps([{"user": "u1", "item": "i1"}]).encode()
    made = [[mutated(raw, form, random.Random(seed)) for seed in range(50)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 25


def test_a_damaged_value_leaves_the_given_one_alone():
    value = {"a": [1, {"b": 2}], "c": "d"}
    changed = [mutated_tree(value, random.Random(seed)) for seed in range(50)]
    assert value == {"a": [1, {"b": 2}], "c": "d"}
    assert sum(one != value for one in changed) > 45
