"""Every exception recloop raises on purpose: also the standard class it replaces. A message says what, got, do."""

from collections.abc import Generator
from contextlib import contextmanager


class RecloopError(Exception):
    """Root of every error recloop raises on purpose."""


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
