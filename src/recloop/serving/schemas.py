"""Requests and replies of the service: their fields, bounds and examples."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator

MAX_ID_CHARS, MAX_TEXT_CHARS = 200, 8_000
MAX_HISTORY, MAX_CANDIDATES, MAX_FOUND = 500, 1_000, 50
MAX_RATING = 1e6
Id = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID_CHARS)]
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Told = Annotated[str, StringConstraints(min_length=1, max_length=MAX_TEXT_CHARS, strip_whitespace=True)]
VariantName = Literal["trained", "untuned"]
HISTORY = [{"item_id": "i7", "rating": 5}, "i12"]


class RequestBody(BaseModel, frozen=True, extra="forbid"):
    """What every request's body is: an object without unknown names."""


class RatedItem(RequestBody, frozen=True):
    """An item of a history with its rating."""

    item_id: Id
    rating: float | None = Field(None, ge=-MAX_RATING, le=MAX_RATING, allow_inf_nan=False)


class Asker(RequestBody, frozen=True):
    """Whom a request is about: a user of the run's log, or a history of its own."""

    user: Id | None = Field(None, description="the id of a user of the run's log", examples=["u3"])
    history: Annotated[list[Id | RatedItem], Field(min_length=1, max_length=MAX_HISTORY)] | None = Field(
        None, description="items, oldest first, each an id or an id with a rating", examples=[HISTORY]
    )

    @model_validator(mode="after")
    def _is_one(self) -> Asker:
        if (self.user is None) == (self.history is None):
            got = "neither" if self.user is None else "both"
            raise ValueError(f"name a user or give a history, got {got}; send one of the two")
        return self

    @property
    def who(self) -> str | list[tuple[str, float]]:
        """The user, or the history as ids with ratings, NaN where there is none."""
        if self.user is not None:
            return self.user
        items = (RatedItem(item_id=one, rating=None) if isinstance(one, str) else one for one in self.history or ())
        return [(one.item_id, float("nan") if one.rating is None else one.rating) for one in items]


class RerankRequest(Asker, frozen=True):
    """Rank candidates for a user, by a text about the user."""

    candidates: Annotated[list[Id], Field(min_length=2, max_length=MAX_CANDIDATES)] = Field(
        description="item ids, each once", examples=[["i3", "i7", "i21"]]
    )
    text: Text | None = Field(
        None,
        description="about the user; left out: the run's text about the user, else what its language model writes",
        examples=["By genre: likes Drama."],
    )


class ExplainRequest(Asker, frozen=True):
    """As `RerankRequest`, with a text."""

    candidates: Annotated[list[Id], Field(min_length=2, max_length=MAX_CANDIDATES)] = Field(
        description="item ids, each once", examples=[["i3", "i7", "i21"]]
    )
    text: Text = Field(description="about the user", examples=["By genre: likes Drama. By era: dislikes 1970s."])


class ProfileRequest(Asker, frozen=True):
    """What a language model of the run says about a user."""

    variant: VariantName | None = Field(None, description="after training or before; left out: the one that is served")


class AskRequest(RequestBody, frozen=True):
    """A wish in words, to a run of ReRec."""

    request: Told = Field(description="what is wanted", examples=["a film of genre Drama"])
    user: Id | None = Field(None, description="the id of the user whose history is shown", examples=["u3"])


class HintRequest(RequestBody, frozen=True):
    """A session, to a run of Re2LLM."""

    session: Annotated[list[Told], Field(min_length=1, max_length=MAX_HISTORY)] = Field(
        description="titles, oldest first", examples=[["Jaws", "Alien"]]
    )
    candidates: Annotated[list[Told], Field(min_length=2, max_length=MAX_CANDIDATES)] | None = Field(
        None, description="titles to rank; left out: those that the training sessions make likely"
    )


class ScoredItem(BaseModel):
    """A candidate with its score."""

    item_id: str
    title: str
    score: float


class RerankReply(BaseModel):
    """The candidates, best first. The text is what they were ranked by; `source` says where it is from."""

    ranking: list[ScoredItem]
    text: str
    source: Literal["request", "run", "written"]


class ExplainedItem(ScoredItem):
    """A candidate with what each part changes: its score less the score with that part left out."""

    changes: list[float]


class ExplainReply(BaseModel):
    """The candidates, best first, with what each of the first 24 parts of the text changes."""

    parts: list[str]
    ranking: list[ExplainedItem]


class ProfileReply(BaseModel):
    """A text about a user, from the run or written now."""

    text: str
    variant: VariantName
    source: Literal["run", "written"]


class AskReply(BaseModel):
    """What the language model wrote, the title it picks, and how often other answers name each."""

    answer: str
    pick: str | None
    status: str
    shares: dict[str, float]
    candidates: list[str]


class HintReply(BaseModel):
    """The hint that the policy chose, and what the language model ranked under it."""

    hint: str
    ranking: list[str]


class FoundItem(BaseModel):
    """An item of the log."""

    item_id: str
    title: str
    rating: float | None = None
    label: float | None = None


class FoundUser(BaseModel):
    """A user of the log who owns a list."""

    user_id: str
    group: str


class UserReply(FoundUser):
    """A user of the log: history, a list with what was chosen of it, and what the run's language models wrote.

    One who owns no list has no group and no candidates, and can be ranked for all the same.
    """

    history: list[FoundItem]
    candidates: list[FoundItem]
    texts: dict[str, str]
    ratings: list[float] = Field(description="different ones that the log holds, lowest first; empty where it has none")


class Problem(BaseModel):
    """Why a request was refused: a code for programs, a message for people, and the fields that do not fit."""

    code: str
    message: str
    request_id: str
    fields: list[dict[str, str]] = []


class ErrorReply(BaseModel):
    """The body of every answer that is not 200."""

    error: Problem
