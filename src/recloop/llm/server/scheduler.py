"""Requests to one language model behind a server: when each starts, and what its outcome leads to.

Runs inside the event loop of the thread in `recloop.llm.server.client`. Only that thread touches it; answers
leave through `emit`.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from math import ceil

from recloop.errors import BudgetError, GenerationError
from recloop.llm.completion_text import CALLED_A_TOOL, MAX_RAW_CHARS, tidy_completion
from recloop.llm.config import LmConfig
from recloop.llm.language_model import Sampling
from recloop.llm.server.config import ServerAddress
from recloop.llm.server.cost import BudgetConfig, Usage, over_budget, share_out
from recloop.llm.server.protocol import Wire, request_body
from recloop.llm.server.rate_limits import Concurrency, Health, RateLimit, backoff_s
from recloop.llm.server.reply import Choice, Failed, Failure, Reply, is_other_model, remedy
from recloop.records import Completion, CompletionStatus, Prompt

MAX_ATTEMPTS = 5  # failures at one prompt, while the server answers others, before the prompt is put aside
MANY_REJECTED = 20  # rejections before any answer: then the request is wrong, not the prompts
FEW_LEFT = 16  # at the end of the work a server may fail at so many last prompts without counting as gone
FATAL_GRACE_S = 2.0  # for answers on their way when a key is revoked
UNSAVED_PER_OPEN = 2  # answers on their way or not yet saved, for each request that may be open
UNKNOWN = float("nan")


@dataclass(slots=True)
class Job:
    """Some completions of one ask, in one request."""

    ask: int
    prompt: Prompt  # as it may be sent
    user: int
    completions: tuple[int, ...]
    waiting: tuple[int, ...] = ()  # completions held back until the server has answered a request for one
    num_sent: int = 0
    num_failures: int = 0
    answered_at_failure: int = -1  # requests the server had answered when it last failed at this job


@dataclass(frozen=True, slots=True)
class Terms:
    """Everything that decides how requests are made."""

    address: ServerAddress
    config: LmConfig
    sampling: Sampling
    count_tokens: Callable[[str], int]
    usage: Usage  # of the whole run so far; budgets count from here
    has_answered: bool  # usably, ever: a server that has answered refuses single prompts, else it is set up wrongly

    @property
    def must_be_asked(self) -> bool:
        """Whether only the model asked for may answer: its weights are known here, or it was trained here."""
        return bool(self.config.server.weights)


@dataclass(frozen=True, slots=True)
class ServerReply:
    """Some completions of one ask, perhaps not all of them yet; none when there is only usage."""

    ask: int  # position among the asks, in the order they were taken; -1 without completions
    completions: tuple[Completion, ...]
    usage: Usage  # since the last answer


class RequestQueue:
    """The scheduler: `add` work, `close` when there is no more, and await `run`."""

    def __init__(self, terms: Terms, emit: Callable[[ServerReply], None], loop: asyncio.AbstractEventLoop) -> None:
        self._terms, self._emit, self._loop = terms, emit, loop
        pace = self._pace = terms.config.pace
        now_s = loop.time()
        self._concurrency = Concurrency(pace.max_concurrency)
        self._health = Health(pace.max_outage_s)
        self._requests = RateLimit(pace.requests_per_min, now_s)
        self._tokens = RateLimit(pace.tokens_per_min, now_s)
        self._ready: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._flying: dict[asyncio.Task[None], Usage] = {}  # with what each may still cost
        self._refused: list[tuple[Job, str]] = []  # until the server has answered any request
        self._usage = terms.usage
        self._num_answered = 0
        self._num_unsaved = 0  # answers handed over and not yet committed
        self._read_factor = 1.0  # most that a prompt had more tokens than were estimated: a chat template adds some
        self._takes_many: bool | None = None  # n > 1; None until it was tried
        self._ticket = count()  # orders jobs that come back at the same moment
        self._is_closed = False
        self._stop: BaseException | None = None
        self._wake = asyncio.Event()
        self._rng = random.Random()  # of waits only; completions do not depend on it

    def add(self, ask: int, prompt: Prompt, user: int, completions: Sequence[int], redactions: int) -> None:
        if redactions:
            self._emit_usage(Usage(redactions=redactions))
        size = self._terms.config.server.completions_per_request
        for start in range(0, len(completions), size):
            self._ready.append(Job(ask, prompt, user, tuple(completions[start : start + size])))
        self._wake.set()

    def close(self) -> None:
        """No more asks will come."""
        self._is_closed = True
        self._wake.set()

    def saved(self, num_answers: int) -> None:
        """Count so many of the answers handed over as committed."""
        self._num_unsaved -= num_answers
        self._wake.set()

    async def run(self, wire: Wire) -> None:
        """Return when all asks are answered; raise what stops it, after the answers on their way have come in."""
        try:
            while self._stop is None:
                wait_s = self._start_jobs(wire)
                if self._stop is not None:
                    break
                if self._is_closed and not (self._ready or self._later or self._flying):
                    self._settle_refused(is_end=True)
                    break
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
            if self._stop is not None:
                if self._flying:
                    is_budget = isinstance(self._stop, BudgetError)
                    await asyncio.wait(self._flying, timeout=self._pace.timeout_s if is_budget else FATAL_GRACE_S)
                raise self._stop
        finally:
            for task in self._flying:
                task.cancel()
            await asyncio.gather(*self._flying, return_exceptions=True)

    def _start_jobs(self, wire: Wire) -> float | None:
        """Start what may start now; seconds until more may start, None when that depends on an event."""
        while self._stop is None:
            now_s = self._loop.time()
            while self._later and self._later[0][0] <= now_s:
                self._ready.append(heapq.heappop(self._later)[2])
            next_s = self._later[0][0] - now_s if self._later else None
            if not self._ready:
                return next_s
            limit = 1 if self._health.is_troubled else self._concurrency.limit
            num_open = len(self._flying)
            if num_open >= limit or num_open + self._num_unsaved >= UNSAVED_PER_OPEN * limit:
                return None
            if self._takes_many is False and len(self._ready[0].completions) > 1:
                job = self._ready.popleft()
                self._ready.extendleft(replace(job, completions=(number,)) for number in reversed(job.completions))
            may_cost = self._may_cost(self._ready[0])
            wait_s = max(
                self._health.wait_s(now_s), self._requests.wait_s(1, now_s), self._tokens.wait_s(may_cost.tokens, now_s)
            )
            if wait_s > 0:
                return wait_s
            if not self._is_affordable(may_cost):
                return None
            self._requests.take(1, now_s)
            self._tokens.take(may_cost.tokens, now_s)
            task = self._loop.create_task(self._do(wire, self._ready.popleft(), may_cost))
            self._flying[task] = may_cost
            task.add_done_callback(self._landed)
        return None

    def _may_cost(self, job: Job) -> Usage:
        """The most that a request may use."""
        read = ceil(self._read_factor * self._estimate(job.prompt))
        written = self._terms.sampling.max_tokens * len(job.completions)
        return Usage(requests=1, input_tokens=read, output_tokens=written)

    def _estimate(self, prompt: Prompt) -> int:
        return self._terms.count_tokens(prompt.system) + self._terms.count_tokens(prompt.text)

    def _is_affordable(self, may_cost: Usage) -> bool:
        """Whether the caps hold even if all open requests cost the most they may; if they never will, stops."""
        budget, prices = self._terms.config.budget, self._terms.config.prices
        if budget == BudgetConfig():  # no caps
            return True
        reserved = sum(self._flying.values(), self._usage + may_cost)
        error = over_budget(reserved, budget, prices)
        if error is not None and not self._flying:
            self._stop = error
        return error is None

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop = error  # a defect: the caller gets it with its traceback
        self._wake.set()

    async def _do(self, wire: Wire, job: Job, may_cost: Usage) -> None:
        terms, start_s = self._terms, self._loop.time()
        body = request_body(terms.address, terms.config.server, job.prompt, terms.sampling, job.completions)
        outcome = await wire.ask(body)
        now_s = self._loop.time()
        usage = Usage(requests=1, retries=int(job.num_sent > 0), request_s=now_s - start_s)
        job.num_sent += 1
        if isinstance(outcome, Reply):
            self._take(job, outcome, usage, may_cost)
        else:
            self._fail(job, outcome, usage, may_cost, now_s)

    def _take(self, job: Job, reply: Reply, usage: Usage, may_cost: Usage) -> None:
        terms, num_wanted = self._terms, len(job.completions)
        self._health.succeeded()
        self._concurrency.succeeded()
        self._num_answered += 1
        taken = reply.choices[:num_wanted]
        if num_wanted > 1 and self._takes_many is None:
            self._takes_many = len(taken) > 1
        if job.waiting:  # a request for one is answered where a request for several was not
            self._takes_many = False
        other = reply.model if is_other_model(reply.model, terms.address.model) else ""
        if other and terms.must_be_asked:
            self._stop = self._wrong_model(other)
        guesses = [terms.count_tokens(choice.text + choice.beside) for choice in reply.choices]
        written = sum(guesses) if reply.output_tokens is None else reply.output_tokens
        tokens = share_out(written, guesses)
        used = Usage(
            input_tokens=may_cost.input_tokens if reply.input_tokens is None else reply.input_tokens,
            cached_tokens=reply.cached_tokens or 0,
            output_tokens=sum(tokens[: len(taken)]),
            wasted_tokens=sum(tokens[len(taken) :]),
            wasted_output_tokens=sum(tokens[len(taken) :]),
            odd_ends=sum(bool(choice.odd_end) for choice in taken),
            odd_counts=int(reply.has_odd_counts),
            other_models=int(bool(other)),
        )
        if reply.input_tokens is not None:
            self._read_factor = max(self._read_factor, reply.input_tokens / max(1, self._estimate(job.prompt)))
        self._tokens.take(used.tokens - may_cost.tokens, self._loop.time())
        note = "; ".join(filter(None, (reply.note, f"answered by {other}" if other else "")))
        completions = tuple(
            self._completion(job.user, number, choice, num, note)
            for number, choice, num in zip(job.completions, taken, tokens, strict=False)
        )
        self._emit_usage(usage + used, job.ask, completions)
        missing = job.completions[len(taken) :] + job.waiting
        if missing:
            self._ready.appendleft(replace(job, completions=missing, waiting=(), num_sent=0))
        self._settle_refused(is_end=False)

    def _completion(self, user: int, number: int, choice: Choice, num: int, note: str) -> Completion:
        most = self._terms.sampling.max_tokens
        num_tokens = min(num, most) if choice.is_finished else most
        if choice.is_refused or choice.calls_tool:
            status = CompletionStatus.REFUSED if choice.is_refused else CompletionStatus.EMPTY
            what = "the server's filter or the model declined" if choice.is_refused else CALLED_A_TOOL
            why, raw = "; ".join(filter(None, (note, what))), (choice.text or choice.beside)[:MAX_RAW_CHARS]
            return Completion(user, number, "", num_tokens, True, UNKNOWN, status, why, raw)
        ended = f"the server ended it with {choice.odd_end!r}" if choice.odd_end else ""
        why = "; ".join(filter(None, (note, ended)))
        given = Completion(user, number, choice.text, num_tokens, choice.is_finished, UNKNOWN, reason=why)
        return tidy_completion(replace(given, raw=choice.beside), self._terms.config.server.marks)

    def _fail(self, job: Job, failed: Failed, usage: Usage, may_cost: Usage, now_s: float) -> None:
        if failed.kind is Failure.CUT:
            written = may_cost.output_tokens  # the bill may hold all of it
            usage += Usage(wasted_requests=1, wasted_tokens=may_cost.tokens, wasted_output_tokens=written)
        elif failed.kind is Failure.THROTTLED:
            usage += Usage(throttled=1)
        self._tokens.take(-may_cost.tokens, now_s)
        self._emit_usage(usage)
        if failed.kind is Failure.FATAL:
            self._stop = self._fatal(failed)
        elif failed.kind is Failure.REJECTED:
            self._reject(job, failed)
        else:
            self._retry(job, failed, now_s)

    def _fatal(self, failed: Failed) -> GenerationError:
        address, pace = self._terms.address, self._pace
        match failed.status:
            case 401 | 403 | 407:
                do = f"check the key in {pace.api_key_env}" if pace.api_key_env else "set lm.pace.api_key_env"
            case 404:
                do = f"check the model name {address.model!r} and that the base URL ends as the server wants it"
            case 402 | 429:
                do = "check the account's credit"
            case _:
                do = f"check the base URL {address.base_url}"
        return GenerationError(
            f"{address.host} takes no request ({failed.reason}); {do}, then go on with the run: the answers "
            f"so far are in the cache"
        )

    def _reject(self, job: Job, failed: Failed) -> None:
        if len(job.completions) > 1 and not self._takes_many and failed.status != 200:
            rest = job.completions[1:]  # perhaps it is n, not the prompt, that the server does not take
            self._ready.appendleft(replace(job, completions=job.completions[:1], waiting=rest + job.waiting))
            return
        self._refused.append((job, failed.reason))
        self._settle_refused(is_end=False)

    def _settle_refused(self, *, is_end: bool) -> None:
        """Put refused prompts aside, once the server has answered others: the request as such is right then."""
        if not self._refused:
            return
        if self._num_answered or self._terms.has_answered:
            for job, reason in self._refused:
                self._put_aside(job, CompletionStatus.REJECTED, reason)
            self._refused.clear()
        elif is_end or len(self._refused) >= MANY_REJECTED:
            self._stop = GenerationError(
                f"{self._terms.address.host} refuses every prompt, {len(self._refused)} so far "
                f"({self._refused[0][1]}); {remedy(self._refused[0][1])}"
            )

    def _put_aside(self, job: Job, status: CompletionStatus, reason: str) -> None:
        completions = tuple(
            Completion(job.user, number, "", 0, True, UNKNOWN, status, reason)
            for number in (*job.completions, *job.waiting)
        )
        self._emit_usage(Usage(), job.ask, completions)

    def _retry(self, job: Job, failed: Failed, now_s: float) -> None:
        self._health.failed(now_s)
        if failed.kind is not Failure.UNREACHED:
            self._concurrency.congested(now_s)
        asked_s, is_throttled = failed.retry_after_s, failed.kind is Failure.THROTTLED
        if asked_s is not None:
            if asked_s > self._pace.max_outage_s:
                self._stop = self._gone(failed, f"asks to come back in {asked_s:,.0f} s")
                return
            self._health.pause(asked_s, now_s)
        elif is_throttled:
            self._health.back_off(now_s, self._rng)
        if not is_throttled:
            self._count_failure(job, failed)
            if job.num_failures >= MAX_ATTEMPTS:
                self._put_aside(job, CompletionStatus.FAILED, failed.reason)
                return
        if self._health.is_troubled:  # all wait together, and then one tries
            self._health.back_off(now_s, self._rng)
        wait_s = backoff_s(max(1, job.num_failures), self._rng)
        heapq.heappush(self._later, (now_s + wait_s, next(self._ticket), job))
        if self._health.is_gone(now_s):
            self._give_up(failed)

    def _wrong_model(self, other: str) -> GenerationError:
        address = self._terms.address
        return GenerationError(
            f"{address.host} must answer as {address.model}, whose weights are those here, got an answer of {other}; "
            f"serve the model under that name, or name it as the server does, then go on with the run"
        )

    def _count_failure(self, job: Job, failed: Failed) -> None:
        """A failure is due to the prompt if the server answered others since the last one; else it is an outage."""
        if failed.kind is not Failure.UNREACHED and self._num_answered > job.answered_at_failure:
            job.num_failures += 1
            job.answered_at_failure = self._num_answered

    def _give_up(self, failed: Failed) -> None:
        """After too long an outage: the server is gone, or it fails only at the last few prompts."""
        left = [*self._ready, *(job for *_, job in self._later)]
        has_answered = self._num_answered > 0 or self._terms.has_answered
        is_prompts = has_answered and failed.kind is not Failure.UNREACHED and self._is_closed
        if not is_prompts or len(left) > FEW_LEFT or any(job.num_sent == 0 for job in left):
            self._stop = self._gone(failed, f"has not answered for {self._pace.max_outage_s:g} s")
            return
        self._ready.clear()
        self._later.clear()
        for job in left:
            self._put_aside(job, CompletionStatus.FAILED, failed.reason)

    def _gone(self, failed: Failed, what: str) -> GenerationError:
        return GenerationError(
            f"{self._terms.address.host} {what} (last: {failed.reason}); the answers so far are in the cache: "
            f"repair the server and go on with the run"
        )

    def _emit_usage(self, usage: Usage, ask: int = -1, completions: tuple[Completion, ...] = ()) -> None:
        self._usage += usage
        self._num_unsaved += bool(completions)
        self._emit(ServerReply(ask, completions, usage))
