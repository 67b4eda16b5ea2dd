"""A language model behind an OpenAI-compatible endpoint: `vllm serve`, llama.cpp, a hosted one with a key.

The event loop that talks to the server runs in a thread of its own, so that a caller who takes its time over
an answer, or has an event loop already, does not stop the clock of requests under way.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from recloop.errors import GenerationError
from recloop.llm.language_model import Sampling
from recloop.llm.server.config import (
    EndpointConfig,
    PaceConfig,
    ServerModel,
    check_host,
    read_key,
    server_identity,
)
from recloop.llm.server.cost import BudgetConfig, PriceConfig
from recloop.llm.server.rate_limits import BACKOFF_BASE_S
from recloop.llm.server.redaction import PromptHook, outgoing
from recloop.llm.server.streaming import NO_USAGE, Answer, Ask, Standing
from recloop.records import Completion, Prompt

if TYPE_CHECKING:
    from recloop.llm.server.protocol import Wire
    from recloop.llm.server.scheduler import EndpointQueue, Terms

TICK_S = 1.0
BYTES_PER_TOKEN = 3  # guess, on the safe side: English has four, names and other scripts fewer
ASKS_AHEAD = 2  # times the concurrency: asks held ready


@dataclass(frozen=True, slots=True)
class EndpointTerms:
    """How a model behind a server is asked, all settings together."""

    endpoint: EndpointConfig = field(default_factory=EndpointConfig)
    pace: PaceConfig = field(default_factory=PaceConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    prices: PriceConfig = field(default_factory=PriceConfig)


class EndpointLM:
    """A model behind a server. Nothing is sent before the first prompt is.

    With `completions_per_request` of 1 a completion depends on seed, prompt and number as far as the server keeps to
    the seed; with more the completions of one request share a seed.

    Args:
        served: where it is.
        terms: settings.
        revision: of the weights, for the name; the configured one when None.
        tokenizer: folder or name of its tokenizer; None to estimate.
        must_be_listed: a server that lists its models must list this one, before any prompt is sent to it:
            some servers answer with another model where they do not know the name.
        hook: called with every prompt before it is sent, after redaction.
        retry_base_s: first wait after a failure, doubled after each.

    Raises:
        SettingError: the host is not among those allowed.
    """

    def __init__(
        self,
        server: ServerModel,
        terms: EndpointTerms | None = None,
        *,
        revision: str | None = None,
        tokenizer: str | None = None,
        must_be_listed: bool = False,
        hook: PromptHook | None = None,
        retry_base_s: float = BACKOFF_BASE_S,
    ) -> None:
        self._terms = terms or EndpointTerms()
        check_host(server, self._terms.pace)
        self._served, self._hook, self._retry_base_s = server, hook, retry_base_s
        self._must_be_listed = must_be_listed
        revision = self._terms.endpoint.revision if revision is None else revision
        self._name = server_identity(server, self._terms.endpoint, revision)
        self._tokenizer = None if tokenizer is None else _load_tokenizer(tokenizer)

    @property
    def name(self) -> str:
        """Address, model, revision, and a hash of the settings that decide its answers."""
        return self._name

    @property
    def prices(self) -> PriceConfig:
        return self._terms.prices

    def count_tokens(self, text: str) -> int:
        encoded = text.encode("utf-8", "replace")  # an answer may hold half a character
        if self._tokenizer is None:
            return -(-len(encoded) // BYTES_PER_TOKEN)
        return len(self._tokenizer(encoded.decode(), add_special_tokens=False, verbose=False).input_ids)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yield (position in `prompts`, its completions) as prompts are complete.

        Raises:
            GenerationError: the server is gone, takes no request, or has not this model.
            BudgetError: a cap is reached.
        """
        numbers = tuple(sampling.completion_numbers)
        asks = (Ask(prompt, numbers) for prompt in prompts)
        held: dict[int, list[Completion]] = {}
        for answers in self.answer(asks, sampling, Standing()):
            for answer in answers:
                completions = held.setdefault(answer.ask, [])
                completions.extend(answer.completions)
                if answer.completions and len(completions) == len(numbers):
                    yield answer.ask, tuple(sorted(held.pop(answer.ask), key=lambda completion: completion.completion))

    def answer(self, asks: Iterator[Ask], sampling: Sampling, standing: Standing) -> Generator[list[Answer]]:
        """See `recloop.llm.server.streaming.StreamingModel`."""
        from recloop.llm.server.scheduler import Terms

        terms = self._terms
        key = read_key(terms.pace)
        queue_terms = Terms(
            server=self._served,
            endpoint=terms.endpoint,
            pace=terms.pace,
            budget=terms.budget,
            prices=terms.prices,
            sampling=sampling,
            standing=standing,
            count_tokens=self.count_tokens,
            retry_base_s=self._retry_base_s,
        )
        worker = _Worker(queue_terms, key, self._must_be_listed)
        try:
            yield from self._exchange(worker, asks)
        finally:
            worker.end()

    def _exchange(self, worker: _Worker, asks: Iterator[Ask]) -> Iterator[list[Answer]]:
        most_open = ASKS_AHEAD * self._terms.pace.max_concurrency
        left: dict[int, int] = {}
        num_taken, is_exhausted = 0, False
        while True:
            while not is_exhausted and len(left) < most_open:
                ask = next(asks, None)
                if ask is None:
                    is_exhausted = True
                    worker.close()
                    break
                sent, num_redacted = outgoing(ask.prompt, self._terms.endpoint.redact, self._hook)
                left[num_taken] = len(ask.completions)
                worker.add(num_taken, sent, ask, num_redacted)
                num_taken += 1
            answers = worker.next(TICK_S)
            if answers is None:
                return
            for answer in answers:
                if answer.completions:
                    left[answer.ask] -= len(answer.completions)
                    if not left[answer.ask]:
                        del left[answer.ask]
            yield answers
            worker.saved(sum(1 for answer in answers if answer.completions))


class _Worker:
    """The thread with the event loop. Everything but `next` only passes a message to it."""

    def __init__(self, terms: Terms, key: str | None, must_be_listed: bool) -> None:
        self._must_be_listed = must_be_listed
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._has_ended = False
        self._loop = asyncio.new_event_loop()
        self._queue: EndpointQueue | None = None
        self._main: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(terms, key), name="recloop-endpoint", daemon=True)
        self._thread.start()
        self._started.wait()

    def add(self, number: int, prompt: Prompt, ask: Ask, num_redacted: int) -> None:
        assert self._queue is not None
        self._tell(self._queue.add, number, prompt, ask.prompt.user, ask.completions, num_redacted)

    def close(self) -> None:
        assert self._queue is not None
        self._tell(self._queue.close)

    def saved(self, num_answers: int) -> None:
        assert self._queue is not None
        self._tell(self._queue.saved, num_answers)

    def next(self, timeout_s: float) -> list[Answer] | None:
        """All answers that are there, an empty one after `timeout_s`; at the end None or what ended it."""
        if self._has_ended:
            if self._error is not None:
                raise self._error
            return None
        answers: list[Answer] = []
        try:
            answer = self._answers.get(timeout=timeout_s)
            while answer is not None:
                answers.append(answer)
                answer = self._answers.get_nowait()
            self._has_ended = True
        except queue.Empty:
            pass
        return answers or [Answer(-1, (), NO_USAGE)]

    def end(self) -> None:
        """Cut off what is under way and wait for the thread."""
        if self._thread.is_alive():
            self._tell(self._cancel)
        self._thread.join()

    def _tell(self, what: object, *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)  # type: ignore[arg-type]
        except RuntimeError:
            return  # the loop has ended by itself; `next` says how

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    def _work(self, terms: Terms, key: str | None) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._main = self._loop.create_task(self._run(terms, key))
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()
            self._loop.close()
            self._answers.put(None)

    async def _run(self, terms: Terms, key: str | None) -> None:
        from recloop.llm.server.protocol import Wire
        from recloop.llm.server.scheduler import EndpointQueue

        self._queue = EndpointQueue(terms, self._answers.put)
        async with Wire(terms.server, terms.pace, key) as wire:
            self._started.set()
            if self._must_be_listed:
                await _check_listed(wire, terms.server)
            await self._queue.run(wire)


async def _check_listed(wire: Wire, server: ServerModel) -> None:
    """A server that does not say which models it has is believed.

    Raises:
        GenerationError: it lists models, and not this one.
    """
    names = await wire.model_names()
    if names and not any(name.partition(":")[0] == server.model or name == server.model for name in names):
        raise GenerationError(
            f"{server.host} must serve the trained model as {server.model}, got a server that lists "
            f"{', '.join(names[:5])}{' and more' if len(names) > 5 else ''}; serve it under that name beside "
            f"or in place of the others, then: recloop resume FOLDER"
        )


def _load_tokenizer(folder_or_name: str) -> Any:
    from transformers import AutoTokenizer

    from recloop.llm.weights import adapter_config, find_model_folder

    folder = find_model_folder(folder_or_name)
    adapter = adapter_config(folder)
    if adapter is not None and not (folder / "tokenizer_config.json").is_file():
        folder = find_model_folder(adapter["base_model_name_or_path"])
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
