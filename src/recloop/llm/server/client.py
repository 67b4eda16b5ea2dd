"""A language model behind an OpenAI-compatible server: `vllm serve`, llama.cpp, a hosted one with a key.

The event loop that talks to the server has a thread of its own. So a caller that works on an answer for long,
or has an event loop already, does not delay open requests.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any

from recloop.errors import GenerationError
from recloop.llm.chat import own_tokenizer
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.server.config import ServerAddress, check_host, parse_address, read_key, server_identity
from recloop.llm.server.protocol import Wire
from recloop.llm.server.rate_limits import BACKOFF_BASE_S
from recloop.llm.server.redaction import PromptHook, outgoing
from recloop.llm.server.scheduler import RequestQueue, Terms
from recloop.llm.server.streaming import NO_USAGE, Ask, ServerReply, Standing
from recloop.llm.weights import find_model_folder
from recloop.records import Completion, Prompt

TICK_S = 1.0
BYTES_PER_TOKEN = 3  # guess, on the safe side: English has four, names and other scripts fewer
ASKS_AHEAD = 2  # times the concurrency: asks held ready


class ServerLM:
    """A language model behind a server. Nothing is sent before the first prompt is.

    With `completions_per_request` of 1 a completion depends on seed, prompt and number, as far as the server
    respects the seed. With more, the completions of one request share a seed.

    Args:
        config: its name says where the server is.
        trained_name: what the server calls a model trained from the configured one. A server that lists its
            models must list this one, unless `config.server.trained_name` is a folder: some servers answer
            with another model where they do not know the name.
        revision: of the weights, for the name; the configured one when None.
        tokenizer: folder or name of its tokenizer; None to estimate token counts.
        hook: called with every prompt before it is sent, after redaction. Its qualified name enters the model's.
        retry_base_s: first wait after a failure, doubled after each.

    Raises:
        SettingError: the host is not among those allowed.
    """

    def __init__(
        self,
        config: LmConfig,
        *,
        trained_name: str | None = None,
        revision: str | None = None,
        tokenizer: str | None = None,
        hook: PromptHook | None = None,
        retry_base_s: float = BACKOFF_BASE_S,
    ) -> None:
        base = parse_address(config.name)
        self._address = base if trained_name is None else ServerAddress(base.base_url, trained_name)
        check_host(self._address, config.pace)
        self._config, self._hook, self._retry_base_s = config, hook, retry_base_s
        self._must_be_listed = trained_name is not None and "{folder}" not in config.server.trained_name
        revision = config.server.revision if revision is None else revision
        mark = "" if hook is None else f"+{getattr(hook, '__qualname__', type(hook).__qualname__)}"
        self._name = server_identity(self._address, config.server, revision) + mark
        self._tokenizer: Any = None if tokenizer is None else own_tokenizer(find_model_folder(tokenizer))

    @property
    def name(self) -> str:
        """Address, model, revision, and a hash of the settings that decide its answers."""
        return self._name

    def count_tokens(self, text: str) -> int:
        encoded = text.encode("utf-8", "replace")  # an answer may hold half a character
        if self._tokenizer is None:
            return -(-len(encoded) // BYTES_PER_TOKEN)
        return len(self._tokenizer(encoded.decode(), add_special_tokens=False, verbose=False).input_ids)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yield (position in `prompts`, its completions) as prompts are complete.

        Raises:
            GenerationError: the server is gone, takes no request, or does not have this model.
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

    def answer(self, asks: Iterator[Ask], sampling: Sampling, standing: Standing) -> Generator[list[ServerReply]]:
        """Answer every ask; `asks` is read, in the caller's thread, whenever there is room for more.

        Yields what has come since the last time, and something at least every second. Taking the next list
        means that the last one is safe, which bounds what a kill can lose. An error is raised after everything
        received has been yielded.
        """
        key = read_key(self._config.pace)
        terms = Terms(self._address, self._config, sampling, standing, self.count_tokens, self._retry_base_s)
        worker = _Worker(terms, key, self._must_be_listed)
        try:
            yield from self._exchange(worker, asks)
        finally:
            worker.end()

    def _exchange(self, worker: _Worker, asks: Iterator[Ask]) -> Iterator[list[ServerReply]]:
        server, most_open = self._config.server, ASKS_AHEAD * self._config.pace.max_concurrency
        num_missing: dict[int, int] = {}
        num_asked, is_exhausted = 0, False
        while True:
            while not is_exhausted and len(num_missing) < most_open:
                ask = next(asks, None)
                if ask is None:
                    is_exhausted = True
                    worker.tell(RequestQueue.close)
                    break
                sent, num_redacted = outgoing(ask.prompt, server.redact, server.phone_regions, self._hook)
                num_missing[num_asked] = len(ask.completions)
                worker.tell(RequestQueue.add, num_asked, sent, ask.prompt.user, ask.completions, num_redacted)
                num_asked += 1
            answers = worker.next(TICK_S)
            if answers is None:
                return
            for answer in answers:
                if answer.completions:
                    num_missing[answer.ask] -= len(answer.completions)
                    if not num_missing[answer.ask]:
                        del num_missing[answer.ask]
            yield answers
            worker.tell(RequestQueue.saved, sum(1 for answer in answers if answer.completions))


class _Worker:
    """The thread with the event loop."""

    def __init__(self, terms: Terms, key: str | None, must_be_listed: bool) -> None:
        self._terms, self._key, self._must_be_listed = terms, key, must_be_listed
        self._answers: queue.SimpleQueue[ServerReply | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._has_ended = False
        self._loop = asyncio.new_event_loop()
        self._queue: RequestQueue | None = None
        self._main: asyncio.Task[None] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._work, name="recloop-server", daemon=True)
        self._thread.start()
        self._started.wait()

    def tell(self, method: Callable[..., None], *arguments: object) -> None:
        """Have the thread call this method of its queue; nothing once the thread has ended, as `next` says."""
        self._soon(method, self._queue, *arguments)

    def next(self, timeout_s: float) -> list[ServerReply] | None:
        """All answers so far, an empty one after `timeout_s`; at the end None, or the error that ended it."""
        if self._has_ended:
            if self._error is not None:
                raise self._error
            return None
        answers: list[ServerReply] = []
        try:
            answer = self._answers.get(timeout=timeout_s)
            while answer is not None:
                answers.append(answer)
                answer = self._answers.get_nowait()
            self._has_ended = True
        except queue.Empty:
            pass
        return answers or [ServerReply(-1, (), NO_USAGE)]

    def end(self) -> None:
        """Cancel open requests and wait for the thread."""
        if self._thread.is_alive():
            self._soon(self._cancel)
        self._thread.join()

    def _soon(self, what: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has ended by itself; `next` raises why
            self._loop.call_soon_threadsafe(what, *arguments)

    def _cancel(self) -> None:
        if self._main is not None:
            self._main.cancel()

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._main = self._loop.create_task(self._run())
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._started.set()
            self._loop.close()
            self._answers.put(None)

    async def _run(self) -> None:
        terms = self._terms
        self._queue = RequestQueue(terms, self._answers.put)
        async with Wire(terms.address, terms.config.pace, self._key) as wire:
            self._started.set()
            if self._must_be_listed:
                await _check_listed(wire, terms.address)
            await self._queue.run(wire)


async def _check_listed(wire: Wire, address: ServerAddress) -> None:
    """A server that does not list its models is believed.

    Raises:
        GenerationError: it lists models, and not this one.
    """
    names = await wire.model_names()
    if names and not any(address.model in (name, name.partition(":")[0]) for name in names):
        raise GenerationError(
            f"{address.host} must serve the trained model as {address.model}, got a server that lists "
            f"{', '.join(names[:5])}{' and more' if len(names) > 5 else ''}; serve it under that name beside "
            f"or in place of the others, then: recloop resume FOLDER"
        )
