"""Being replaced by `recloop.experiment.step`."""


def require_verb(method: str, until: str | None) -> None:
    """Nothing."""
