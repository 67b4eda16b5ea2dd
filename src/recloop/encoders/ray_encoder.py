"""A text encoder on the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from recloop.encoders.load import EncoderConfig, encoder_from_config
from recloop.encoders.sentence import count_cut
from recloop.experiment.ray_jobs import RayConfig, Work, do_jobs

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32


@dataclass(frozen=True)
class RayEncoder:
    """An encoder that workers hold; `recloop.encoders.sentence.encode_texts` has them encode side by side.

    A worker is given what one process would encode at once, so vectors are the same to the last bit.
    """

    config: EncoderConfig
    ray: RayConfig

    @property
    def name(self) -> str:
        return self._about[0]

    @property
    def width(self) -> int:
        return self._about[1]

    @cached_property
    def _about(self) -> tuple[str, int]:
        return self._first_of(("about", ()))

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        return self._first_of(("encode", texts))

    def encode_chunks(self, chunks: Sequence[Sequence[str]]) -> Iterator[tuple[int, Float32[np.ndarray, "B D"]]]:
        """Place and vectors of each, in any order."""
        return self._have_done([("encode", chunk) for chunk in chunks])

    def count_cut(self, texts: Sequence[str]) -> int:
        """How many of these texts are longer than the encoder reads."""
        return self._first_of(("count_cut", texts))

    def _first_of(self, job: tuple[str, Sequence[str]]) -> Any:
        ((_, found),) = self._have_done([job])
        return found

    def _have_done(self, jobs: Sequence[tuple[str, Sequence[str]]]) -> Iterator[tuple[int, Any]]:
        work = Work(f"encode {self.config.model_dump_json()}", partial(_Encoder, self.config))
        return do_jobs(self.ray, work, jobs) if jobs else iter(())


class _Encoder:
    """In a worker: opens the encoder, and does job by job."""

    def __init__(self, config: EncoderConfig) -> None:
        self._encoder = encoder_from_config(config)

    def __call__(self, job: tuple[str, Sequence[str]]) -> Any:
        verb, texts = job
        if verb == "about":
            return self._encoder.name, self._encoder.width
        return self._encoder.encode(texts) if verb == "encode" else count_cut(self._encoder, texts)
