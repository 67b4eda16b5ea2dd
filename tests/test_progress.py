"""Progress lines and bars, with a clock that the test moves."""

import io
import time

import pytest

from recloop.progress import SILENT, Progress, format_seconds


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines_of(out: io.StringIO) -> list[str]:
    return out.getvalue().splitlines()


def test_a_stage_of_less_than_two_seconds_says_nothing(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(out, clock=clock).stage("fit", total=10, unit="lists") as step:
        for _ in range(10):
            clock.now_s += 0.19
            step()
    assert out.getvalue() == ""


def test_what_takes_longer_than_ten_seconds_each_is_told_per_hour(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(out, clock=clock).stage("simulated", total=2, unit="simulated") as step:
        for _ in range(2):
            clock.now_s += 240
            step()
    assert lines_of(out)[0] == "simulated: 1/2 simulated"  # more of the same batch may follow at once
    assert lines_of(out)[1] == "simulated: 2/2 simulated, 15.0 simulated/h, 0.0 s left"
    assert lines_of(out)[-1] == "simulated: 2 simulated in 8 min 00 s (15.0 simulated/h)"


def test_a_line_every_ten_seconds_with_rate_and_time_left_then_one_at_the_end(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(out, clock=clock).stage("fit", total=600, unit="lists") as step:
        for _ in range(6):  # 100 lists each 4 s: 25 lists/s, 24 s in all
            clock.now_s += 4
            step(100)
    # Lines fall due at 12 s (300 done, 300 left at 25/s) and at 24 s (nothing left).
    assert lines_of(out) == [
        "fit: 300/600 lists, 25 lists/s, 12.0 s left",
        "fit: 600/600 lists, 25 lists/s, 0.0 s left",
        "fit: 600 lists in 24.0 s (25 lists/s)",
    ]


def test_rate_and_time_left_are_those_of_whole_batches(clock: Clock) -> None:
    """Three batches of 100, 12 s each, whose completions arrive in one burst, as a model in this process works."""
    out = io.StringIO()
    with Progress(out, clock=clock).stage("sample", total=300, unit="completions") as step:
        for _ in range(3):
            clock.now_s += 12
            for _ in range(50):
                step(2)
    # At 24 s one batch is whole: 100 in 12 s; 2 of the second are counted, 198 are left at 8.33 a second.
    assert lines_of(out) == [
        "sample: 2/300 completions",
        "sample: 102/300 completions, 8.33 completions/s, 23.8 s left",
        "sample: 202/300 completions, 8.33 completions/s, 11.8 s left",
        "sample: 300 completions in 36.0 s (8.33 completions/s)",
    ]


def test_what_flows_without_pauses_is_told_after_two_seconds(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(out, clock=clock).stage("fit", total=400, unit="lists") as step:
        for _ in range(90):  # 8 a second
            clock.now_s += 0.125
            step()
    assert lines_of(out)[0] == "fit: 80/400 lists, 8.00 lists/s, 40.0 s left"


def test_what_was_found_done_says_nothing_about_the_rate(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(out, clock=clock).stage("fit", total=1000, unit="lists") as step:
        step.skip(400)
        for _ in range(2):
            clock.now_s += 6
            step(60)  # 10 a second, 480 left
    assert lines_of(out) == [
        "fit: 520/1,000 lists, 10 lists/s, 48.0 s left",
        "fit: 520 lists in 12.0 s (10 lists/s)",
    ]


def test_without_a_total_there_is_no_time_left(clock: Clock) -> None:
    out = io.StringIO()
    with Progress(out, clock=clock).stage("read", unit="rows") as step:
        for _ in range(2):
            clock.now_s += 10
            step(5)
    assert lines_of(out) == [
        *("read: 5 rows", "read: 10 rows, 0.50 rows/s", "read: 10 rows in 20.0 s (0.50 rows/s)"),
    ]


def test_a_stage_that_fails_leaves_no_line_that_says_it_ended(clock: Clock) -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="broken"), Progress(out, clock=clock).stage("fit"):
        clock.now_s += 30
        raise ValueError("broken")
    assert out.getvalue() == ""


def test_silence_writes_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with SILENT.stage("fit", total=2) as step:
        step(2)
    SILENT.say("hello")
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_a_terminal_shows_a_bar_after_two_seconds_and_a_line_at_the_end() -> None:
    out = io.StringIO()
    progress = Progress(out, bars=True)
    with progress.stage("outer", total=2, unit="rounds") as outer:
        with progress.stage("brief", total=1, unit="steps") as brief:
            brief()
        time.sleep(2.3)
        outer(2)
        progress.say("[not markup]")
    assert "brief" not in out.getvalue()
    assert lines_of(out)[0] == "[not markup]"
    assert "outer: 2 rounds in 2." in lines_of(out)[-1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (59.96, "1 min 00 s"), (245, "4 min 05 s"), (7_384, "2 h 03 min")],
)
def test_times_read_as_people_write_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
