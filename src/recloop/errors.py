"""Every exception recloop raises on purpose: also the standard class it replaces. A message says what, got, do."""

import unicodedata
from collections.abc import Generator
from contextlib import contextmanager

BIDI_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
UNSHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode categories: control, surrogate, line and paragraph separators


def shown(text: str) -> str:
    """Text from outside as a terminal may show it: what would steer it stands escaped; line breaks and tabs stay.

    Example:
        >>> shown("title\\x1b[2J")
        'title\\\\x1b[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    is_plain = {c: c in "\n\t" or (c not in BIDI_MARKS and unicodedata.category(c) not in UNSHOWN) for c in set(text)}
    return "".join(c if is_plain[c] else c.encode("unicode_escape").decode() for c in text)


class RecloopError(Exception):
    """Root of every error recloop raises on purpose. Its message quotes what others wrote, fit for a terminal."""

    def __str__(self) -> str:
        return shown(super().__str__())


class DataError(RecloopError, ValueError):
    """A log, catalogue or knowledge file is not what it should be."""


class SettingError(RecloopError, ValueError):
    """A configuration value or combination makes no sense."""


class LeakageError(RecloopError, ValueError):
    """Labels of the wrong user group were about to be used."""


class ContractError(RecloopError, TypeError):
    """An object passed in does not do what its protocol says."""


class MissingPackageError(RecloopError, ImportError):
    """A package that only some runs need is not installed."""


class GenerationError(RecloopError, RuntimeError):
    """A language model or encoder failed or wrote something unusable."""


class BudgetError(RecloopError, RuntimeError):
    """A cap on requests, tokens or money is reached; what was got is kept."""


class TrainingError(RecloopError, RuntimeError):
    """A fit diverged or has nothing to learn from."""


class RunError(RecloopError, RuntimeError):
    """A run folder is locked, foreign, damaged or incomplete."""


@contextmanager
def needs_extra(name: str) -> Generator[None]:
    """An import inside that fails becomes a MissingPackageError, which says how to install the package.

    Args:
        name: of the extra in pyproject.toml that brings it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"{error.name} is not installed; pip install 'recloop[{name}]'") from error
