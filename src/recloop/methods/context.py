"""Being replaced by `recloop.methods.study`."""

from recloop.methods.study import LmRef, OwnParts, derived_seed
from recloop.methods.study import Study as Loop
from recloop.methods.study import open_study as open_loop

__all__ = ["LmRef", "Loop", "OwnParts", "derived_seed", "open_loop"]
