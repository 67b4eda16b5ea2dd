"""What leaves this machine: every prompt to a server passes `outgoing`.

E-mail addresses, telephone numbers, card numbers and IP addresses are replaced by a word in brackets. Names, and
free text that identifies somebody, are not found: give a hook for them, such as Presidio (docs/server.md).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from recloop.records import Prompt

Kind = Literal["email", "card", "ip", "phone"]
KINDS: tuple[Kind, ...] = ("email", "card", "ip", "phone")  # in this order: a card number looks like a telephone
REGIONS = ("US", "GB")
PromptHook = Callable[[Prompt], Prompt]

EMAIL = re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])")
IP = re.compile(  # an address has at most 45 characters
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f:]{0,45}:[0-9A-Fa-f:.]{0,45}:[0-9A-Fa-f.]{0,45})(?![\w:])"
)
SEVEN_DIGITS = re.compile(r"\d(?:[^\d\n]{0,4}\d){6}")  # the shortest telephone number; most prompts have none


def redact(text: str, kinds: Sequence[Kind] = KINDS, regions: Sequence[str] = REGIONS) -> tuple[str, list[str]]:
    """The text with every pattern of these kinds replaced by its name in brackets, and what was replaced.

    Args:
        regions: countries whose national telephone numbers are found; international ones always are.

    Example:
        >>> redact("ann@example.org, 4111 1111 1111 1111, from 10.0.0.7; part 0500-12345")
        ('[email], [card], from [ip]; part 0500-12345', ['ann@example.org', '4111 1111 1111 1111', '10.0.0.7'])
    """
    found: list[str] = []
    for kind in KINDS:
        if kind in kinds:
            spans = _phones(text, regions) if kind == "phone" else _matches(kind, text)
            found += [text[start:end] for start, end in spans]
            for start, end in reversed(spans):
                text = f"{text[:start]}[{kind}]{text[end:]}"
    return text, found


def outgoing(
    prompt: Prompt, kinds: Sequence[Kind], regions: Sequence[str] = REGIONS, hook: PromptHook | None = None
) -> tuple[Prompt, list[str]]:
    """The prompt as it may be sent, redacted and then through the hook; and what was taken out of it."""
    system, in_system = redact(prompt.system, kinds, regions)
    text, in_text = redact(prompt.text, kinds, regions)
    sent = replace(prompt, system=system, text=text)
    return (sent if hook is None else hook(sent)), in_system + in_text


def _matches(kind: Kind, text: str) -> list[tuple[int, int]]:
    match kind:
        case "email":
            return [found.span() for found in EMAIL.finditer(text)] if "@" in text else []
        case "card":
            return [found.span() for found in CARD.finditer(text) if _has_luhn_sum(re.sub(r"\D", "", found[0]))]
        case _:
            return [found.span() for found in IP.finditer(text) if _is_address(found[0])]


def _phones(text: str, regions: Sequence[str]) -> list[tuple[int, int]]:
    """Numbers that are valid and grouped as their country groups them; of plain digits only international ones."""
    if not SEVEN_DIGITS.search(text):
        return []
    from phonenumbers import Leniency, PhoneNumberMatcher

    spans: list[tuple[int, int]] = []
    for region in regions or (None,):
        for found in PhoneNumberMatcher(text, region, Leniency.STRICT_GROUPING):
            is_new = all(found.end <= start or found.start >= end for start, end in spans)
            if is_new and not found.raw_string.isdigit():
                spans.append((found.start, found.end))
    return sorted(spans)


def _has_luhn_sum(digits: str) -> bool:
    """Whether the last digit is the check digit that every payment card has."""
    doubled = [int(d) * 2 for d in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(d - 9 if d > 9 else d for d in doubled)) % 10 == 0


def _is_address(text: str) -> bool:
    """Whether a text is an IP address and has a digit, as ``2001:db8::7`` has and the name ``Ace::Fade`` has not."""
    try:
        ipaddress.ip_address(text.rstrip("."))
    except ValueError:
        return False
    return any(c.isdigit() for c in text)
