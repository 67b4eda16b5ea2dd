import time
from dataclasses import replace

import pytest
from pydantic import ValidationError

from recloop.llm.server.config import ServerConfig
from recloop.llm.server.redaction import outgoing, redact
from recloop.records import Prompt

# Test numbers published by card networks; example addresses and fictional telephone ranges.
PERSONAL = [
    ("ann.vale+x@mail.example.org", "[email]"),
    ("o'ann@example.co.uk", "o'[email]"),
    ("4111111111111111", "[card]"),
    ("5555 5555 5555 4444", "[card]"),
    ("3782-822463-10005", "[card]"),
    ("192.168.0.254", "[ip]"),
    ("2001:db8::8a2e:370:7334", "[ip]"),
    ("::1", "[ip]"),
    ("+44 20 7946 0958", "[phone]"),
    ("+1 (212) 555-0100", "[phone]"),
    ("(212) 555-0100", "[phone]"),
    ("212-555-0100", "[phone]"),
    ("212.555.0100", "[phone]"),
    ("020 7946 0958", "[phone]"),
    ("+49 (0)170 1234567", "[phone]"),
    ("+442079460958", "[phone]"),
]
HARMLESS = [
    '5 stars | "2001: A Space Odyssey" | era 1960s | genre Sci-Fi',
    "Counts by era: above average 1990s 12, 1980s 4; below 1970s 2.",
    "1999-2003, 12 films, average 3.5 stars, oldest first:",
    "4111111111111112",  # the check digit is wrong
    "version 1.2.3, 300.1.1.1, ratio 16:9, at 10:30",
    "10,000 BC; 007; THX 1138; 12 Angry Men; Apollo 13",
    "ann at example, @home, a@b",
    # Catalogue numbers that look like telephones, and a name that is an IPv6 address by its letters.
    '5 stars | "Filter 0500-12345" | brand Ace::Fade',
    "0500-123456, 4011-0500, 90-123-4567, 300-555-1212, 100-200-3000, 2125550100",
    "ISBN 0-306-40615-2, 978-3-16-148410-0, 0306406152; 1996 03 10 12",
]


@pytest.mark.parametrize(("found", "word"), PERSONAL)
def test_what_identifies_somebody_is_replaced(found, word):
    taken_out = found.removeprefix(word.partition("[")[0])
    assert redact(f"Before {found}, after.") == (f"Before {word}, after.", [taken_out])
    assert redact(found) == (word, [taken_out])


@pytest.mark.parametrize("text", HARMLESS)
def test_what_histories_are_made_of_stays(text):
    assert redact(text) == (text, [])


@pytest.mark.parametrize("text", ["::" * 100_000, "1." * 100_000, "4 " * 100_000, "a@" * 100_000, "+1 " * 3_000])
def test_a_long_text_of_marks_takes_no_time(text):
    started_s = time.process_time()
    redact(text)
    assert time.process_time() - started_s < 5  # a square of the length would take hours


def test_only_the_kinds_asked_for_are_replaced():
    text = "ann@example.org 10.0.0.7"
    assert redact(text, ["ip"]) == ("ann@example.org [ip]", ["10.0.0.7"])
    assert redact(text, []) == (text, [])


def test_national_numbers_are_found_where_their_country_is_named():
    text = "Ring 030 901820."
    assert redact(text) == (text, [])
    assert redact(text, regions=("DE",)) == ("Ring [phone].", ["030 901820"])
    assert redact("Ring +49 30 901820.", regions=()) == ("Ring [phone].", ["+49 30 901820"])
    with pytest.raises(ValidationError, match="country codes such as US or DE, got UK"):
        ServerConfig(phone_regions=("UK",))


def test_both_parts_of_a_prompt_pass_and_then_the_hook():
    prompt = Prompt(7, "Ask ann@example.org.", "Call 212-555-0100.", 3, 1)
    sent, taken_out = outgoing(prompt, ["email", "phone"], hook=lambda p: replace(p, text=p.text + " Now."))
    assert sent == Prompt(7, "Ask [email].", "Call [phone]. Now.", 3, 1)
    assert taken_out == ["ann@example.org", "212-555-0100"]
