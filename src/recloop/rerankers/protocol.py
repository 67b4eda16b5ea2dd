"""What a reranker must do: be fitted by recloop, or score lists however it likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32
    from torch import nn

    from recloop.records import Lists, UserVectors
    from recloop.rerankers.config import RerankerConfig
    from recloop.rerankers.list_batch import BatchShape


class Backbone(Protocol):
    """Makes a network that recloop fits: an `nn.Module` from a `ListBatch` to scores ``[X, L]``.

    The usual backbone is the module's class itself. `recloop.testing.check_reranker` tells whether it fits.
    Two attributes are optional. ``reads_history = True`` asks for history tokens. ``loss`` replaces the softmax
    loss: a static method from scores ``[B, L]``, labels and the mask of items to one number.

    Example:
        >>> from torch import nn
        >>> class Pointwise(nn.Module):
        ...     def __init__(self, shape, config):
        ...         super().__init__()
        ...         self.layers = nn.Sequential(nn.Linear(shape.width, 32), nn.ReLU(), nn.Linear(32, 1))
        ...
        ...     def forward(self, batch):
        ...         return self.layers(batch.features()).squeeze(-1)
    """

    def __call__(self, shape: BatchShape, config: RerankerConfig, /) -> nn.Module: ...


class Reranker(Protocol):
    """Scores candidate lists; `recloop.testing.check_reranker` tells whether an object fits."""

    def score(self, lists: Lists, user_vectors: UserVectors | None, /) -> Float32[np.ndarray, "B N L"]:
        """Scores of every list under every completion of its user.

        Args:
            lists: any group's lists; their labels must not be read.
            user_vectors: encoded texts of at least the users of `lists`; None for a reranker without them.

        Returns:
            Higher is better, ``-inf`` at padding; N is 1 when `user_vectors` is None. The score of a list
            depends on no other list of the call.
        """
        ...
