"""What any reranker must do to take part: score lists under each completion of their users' texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

    from recloop.records import Lists, UserVectors


class Reranker(Protocol):
    """Scores candidate lists; `recloop.testing.check_reranker` tells whether an object fits."""

    def score(self, lists: Lists, user_vectors: UserVectors | None) -> Float32[np.ndarray, "B N L"]:
        """Score every list under every completion of its user.

        Args:
            lists: any group's lists; their labels must not be read.
            user_vectors: encoded texts of at least the users of `lists`; None for a reranker without them.

        Returns:
            Higher is better, ``-inf`` at padding; N is 1 when `user_vectors` is None. The score of a list
            depends on no other list of the call.
        """
        ...
