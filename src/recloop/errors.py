"""Every exception recloop raises on purpose.

RecloopError
├── DataError        (ValueError)      a log, catalogue or knowledge file is not what it should be
├── SettingError     (ValueError)      a configuration value or combination makes no sense
├── LeakageError     (ValueError)      labels of the wrong user group were about to be used
├── ContractError    (TypeError)       an object passed in does not do what its protocol says
├── GenerationError  (RuntimeError)    a language model or encoder failed or wrote something unusable
├── BudgetError      (RuntimeError)    a cap on requests, tokens or money is reached; what was got is kept
├── TrainingError    (RuntimeError)    a fit diverged or has nothing to learn from
└── RunError         (RuntimeError)    a run folder is locked, foreign, damaged or incomplete

A message says what is wrong, what was got, and what to do about it.
"""


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


class GenerationError(RecloopError, RuntimeError):
    """A language model or encoder failed or wrote something unusable."""


class BudgetError(RecloopError, RuntimeError):
    """A cap on requests, tokens or money is reached; what was got is kept."""


class TrainingError(RecloopError, RuntimeError):
    """A fit diverged or has nothing to learn from."""


class RunError(RecloopError, RuntimeError):
    """A run folder is locked, foreign, damaged or incomplete."""
