"""What leaves this machine: the one place every outgoing prompt passes.

E-mail addresses, telephone and card numbers and IP addresses are replaced by a word that says what stood
there. A hook of your own may change or refuse a prompt after that. Patterns find what looks like such a
thing; names and free text that identify somebody they do not find.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from recloop.records import Prompt

Kind = Literal["email", "phone", "card", "ip"]
KINDS: tuple[Kind, ...] = ("email", "card", "ip", "phone")  # a card number would look like a telephone
PromptHook = Callable[[Prompt], Prompt]

EMAIL = re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f.]*)(?![\w:])")
PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"\+\d{1,3}(?:[ .()/-]{0,2}\d){7,12}"  # international
    r"|\(\d{2,5}\)[ .-]?\d{3,4}[ .-]?\d{3,4}"  # (212) 555-0100
    r"|\d{3}([ .-])\d{3}\1\d{4}"  # 212-555-0100
    r"|0\d{1,4}[ /-]\d{2,4}[ -]?\d{2,4}[ -]?\d{1,4}"  # 030 901820, 01632 960 001
    r")(?![\w-])"
)


def redact(text: str, kinds: Sequence[Kind] = KINDS) -> tuple[str, int]:
    """The text with every pattern of these kinds replaced by its name in brackets, and how many there were.

    Example:
        >>> redact("ann@example.org, 4111 1111 1111 1111, from 10.0.0.7; 1999-2003, 5 stars")
        ('[email], [card], from [ip]; 1999-2003, 5 stars', 3)
    """
    num_found = 0
    for kind in KINDS:
        if kind in kinds:
            text, num = PATTERNS[kind](text)
            num_found += num
    return text, num_found


def outgoing(prompt: Prompt, kinds: Sequence[Kind], hook: PromptHook | None = None) -> tuple[Prompt, int]:
    """The prompt as it may be sent, and how many patterns were taken out of it.

    Args:
        kinds: what to redact.
        hook: called with the redacted prompt; returns the one to send, or raises to send none.
    """
    system, num_system = redact(prompt.system, kinds)
    text, num_text = redact(prompt.text, kinds)
    sent = replace(prompt, system=system, text=text)
    return (sent if hook is None else hook(sent)), num_system + num_text


def _email(text: str) -> tuple[str, int]:
    return EMAIL.subn("[email]", text) if "@" in text else (text, 0)


def _phone(text: str) -> tuple[str, int]:
    return PHONE.subn("[phone]", text)


def _card(text: str) -> tuple[str, int]:
    return _where(CARD, "[card]", lambda found: _has_luhn_sum(re.sub(r"\D", "", found)), text)


def _ip(text: str) -> tuple[str, int]:
    return _where(IP, "[ip]", _is_address, text)


PATTERNS: Mapping[Kind, Callable[[str], tuple[str, int]]] = {
    "email": _email, "card": _card, "ip": _ip, "phone": _phone,
}  # fmt: skip


def _where(pattern: re.Pattern[str], word: str, holds: Callable[[str], bool], text: str) -> tuple[str, int]:
    num_found = 0

    def exchange(match: re.Match[str]) -> str:
        nonlocal num_found
        if not holds(match[0]):
            return match[0]
        num_found += 1
        return word

    return pattern.sub(exchange, text), num_found


def _has_luhn_sum(digits: str) -> bool:
    """Whether the last digit is the check digit that every payment card has."""
    doubled = [int(d) * 2 for d in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.rstrip("."))
    except ValueError:
        return False
    return text.strip(":.") != ""
