"""A language model behind an OpenAI-compatible server: `vllm serve`, llama.cpp, a hosted one with a key.

The event loop has a thread of its own, so that neither a slow caller nor the caller's own loop delays open requests.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress

from recloop.errors import GenerationError
from recloop.llm.chat import own_tokenizer, token_counter
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.server.config import ServerAddress, check_host, parse_address, read_key, server_identity
from recloop.llm.server.cost import Usage
from recloop.llm.server.protocol import Wire
from recloop.llm.server.redaction import PromptHook, outgoing
from recloop.llm.server.scheduler import RequestQueue, ServerReply, Terms
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
    ) -> None:
        base = parse_address(config.name)
        self._address = base if trained_name is None else ServerAddress(base.base_url, trained_name)
        check_host(self._address, config.pace)
        self._config, self._hook = config, hook
        self._must_be_listed = trained_name is not None and "{folder}" not in config.server.trained_name
        revision = config.server.revision if revision is None else revision
        mark = "" if hook is None else f"+{getattr(hook, '__qualname__', type(hook).__qualname__)}"
        # Address, model, revision, and a hash of the settings that decide its answers.
        self.name = server_identity(self._address, config.server, revision) + mark
        self._tokens_of = None if tokenizer is None else token_counter(own_tokenizer(find_model_folder(tokenizer)))

    def count_tokens(self, text: str) -> int:
        encoded = text.encode("utf-8", "replace")  # an answer may hold half a character
        if self._tokens_of is None:
            return -(-len(encoded) // BYTES_PER_TOKEN)
        return self._tokens_of(encoded.decode())

    def taken_out(self, prompts: Sequence[Prompt]) -> Counter[str]:
        """The personal details that are taken out of these prompts before they are sent, and how often each."""
        server = self._config.server
        sent = (outgoing(prompt, server.redact, server.phone_regions) for prompt in prompts)
        return Counter(text for _, found in sent for text in found)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yield (position in `prompts`, its completions) as prompts are complete.

        Raises:
            GenerationError: the server is gone, takes no request, or does not have this model.
            BudgetError: a cap is reached.
        """
        numbers = tuple(sampling.completion_numbers)
        asks = ((prompt, numbers) for prompt in prompts)
        held: dict[int, list[Completion]] = {}
        for answers in self.answer(asks, sampling, Usage(), has_answered=False):
            for answer in answers:
                completions = held.setdefault(answer.ask, [])
                completions.extend(answer.completions)
                if answer.completions and len(completions) == len(numbers):
                    yield answer.ask, tuple(sorted(held.pop(answer.ask), key=lambda completion: completion.completion))

    def answer(
        self, asks: Iterator[tuple[Prompt, tuple[int, ...]]], sampling: Sampling, usage: Usage, has_answered: bool
    ) -> Generator[list[ServerReply]]:
        """Answer every ask; `asks` is read, in the caller's thread, whenever there is room for more.

        Yields what has come since the last time, and something at least every second. Taking the next list
        means that the last one is safe, which bounds what a kill can lose. An error is raised after everything
        received has been yielded. An ask is a prompt with the numbers of the completions wanted of it.
        """
        wire = Wire(self._address, self._config.server, self._config.pace, read_key(self._config.pace))
        terms = Terms(self._address, self._config, sampling, self.count_tokens, usage, has_answered)
        worker = _Worker(terms, wire, self._must_be_listed)
        server, most_open = self._config.server, ASKS_AHEAD * self._config.pace.max_concurrency
        num_missing: dict[int, int] = {}
        num_asked, is_exhausted = 0, False
        try:
            while True:
                while not is_exhausted and len(num_missing) < most_open:
                    ask = next(asks, None)
                    if ask is None:
                        is_exhausted = True
                        worker.tell(worker.requests.close)
                        break
                    prompt, numbers = ask
                    sent, taken_out = outgoing(prompt, server.redact, server.phone_regions, self._hook)
                    num_missing[num_asked] = len(numbers)
                    worker.tell(worker.requests.add, num_asked, sent, prompt.user, numbers, len(taken_out))
                    num_asked += 1
                answers = worker.next(TICK_S)
                if answers is None:
                    return
                news = [answer for answer in answers if answer.completions]
                for answer in news:
                    num_missing[answer.ask] -= len(answer.completions)
                    if not num_missing[answer.ask]:
                        del num_missing[answer.ask]
                yield answers
                worker.tell(worker.requests.saved, len(news))
        finally:
            worker.end()


class _Worker:
    """The thread with the event loop, in which `requests` are made."""

    def __init__(self, terms: Terms, wire: Wire, must_be_listed: bool) -> None:
        self._answers: queue.SimpleQueue[ServerReply | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self.requests = RequestQueue(terms, self._answers.put, self._loop)
        self._main = self._loop.create_task(_make_requests(self.requests, terms, wire, must_be_listed))
        self._thread = threading.Thread(target=self._work, name="recloop-server", daemon=True)
        self._thread.start()

    def tell(self, method: Callable[..., object], *arguments: object) -> None:
        """Have the thread call this; nothing once it has ended, as `next` says."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(method, *arguments)

    def next(self, timeout_s: float) -> list[ServerReply] | None:
        """All answers so far, none after `timeout_s`; at the end None, or the error that ended it."""
        answers: list[ServerReply] = []
        try:
            answer = self._answers.get(timeout=timeout_s)
            while answer is not None:
                answers.append(answer)
                answer = self._answers.get_nowait()
        except queue.Empty:
            return answers
        self._answers.put(None)  # the mark of the end, for the next time
        if not answers and self._error is not None:
            raise self._error
        return answers or None

    def end(self) -> None:
        """Cancel open requests and wait for the thread."""
        self.tell(self._main.cancel)
        self._thread.join()

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._main)
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._loop.close()
            self._answers.put(None)


async def _make_requests(requests: RequestQueue, terms: Terms, wire: Wire, must_be_listed: bool) -> None:
    async with wire:
        if must_be_listed:
            await _check_listed(wire, terms.address)
        await requests.run(wire)


async def _check_listed(wire: Wire, address: ServerAddress) -> None:
    """GenerationError where a server lists models, and not this one; one that lists none is believed."""
    names = await wire.model_names()
    if names and not any(address.model in (name, name.partition(":")[0]) for name in names):
        raise GenerationError(
            f"{address.host} must serve the trained model as {address.model}, got a server that lists "
            f"{', '.join(names[:5])}{' and more' if len(names) > 5 else ''}; serve it under that name beside "
            f"or in place of the others, then: recloop resume FOLDER"
        )
