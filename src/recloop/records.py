"""The nouns of recloop: frozen records without behaviour beyond look-ups.

Axis letters: ``U`` users, ``B`` lists in a batch, ``N`` completions per prompt, ``L`` items in a list,
``I`` items in the catalogue, ``D`` vector width, ``K`` cut-off.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from recloop.errors import DataError, LeakageError

if TYPE_CHECKING:
    import polars as pl
    from jaxtyping import Bool, Float32, Int64

    from recloop.progress import Progress


class Group(StrEnum):
    """What a user is for; the four groups are disjoint."""

    TRAIN = "train"  # fits rerankers
    REWARD = "reward"  # gives rewards and preference pairs
    VALID = "valid"  # every choice is made on these
    TEST = "test"  # results are reported for these


class Domain(StrEnum):
    """What the items are; chooses the words of a prompt, nothing else."""

    MOVIES = "movies"
    BOOKS = "books"
    PRODUCTS = "products"
    GENERIC = "generic"


@dataclass(frozen=True, slots=True)
class Log:
    """One interaction log with its users and items, checked and in one form.

    users: columns ``user`` (0..U-1), ``user_id`` (as in the source, text), then profile columns (text).
    items: columns ``item`` (0..I-1), ``item_id`` (text), ``title`` (text), then one ``List[String]``
        column per name in `attributes` (an empty list where unknown).
    attributes: the item columns shown in prompts, in their order, e.g. ``("era", "genre", "director")``.
    interactions: ``user``, ``item``, ``rating`` (Float32; null throughout when implicit), ``time``
        (Float64, seconds since 1970 or a running number), sorted by user, time, item: the fixed tie-break.
    positive_from_rating: a rating of at least this is a positive label; None when the log is implicit,
        and then every interaction is positive.
    item_knowledge: ``item``, ``text``: texts about items that came with the log; None when absent.
    user_knowledge: ``user``, ``text``, ``num_shown``: texts about users that came with the log, and how many
        of the user's first interactions each text saw; these are the knowledge window. None when absent.
    impressions: ``user``, ``list``, ``list_id`` (as in the source, text), ``item``, ``label`` (Float32, 0 or a positive
        grade), ``position`` (Int64, from 1), ``score`` (Float64, of the first stage), ``time`` (Float64); the last
        three null where unknown. Lists that users were shown, sorted by user, time, list and position. None when
        absent.
    reading: what was found out while it was read, a sentence each: how much was read, and what was left out.
    """

    name: str
    domain: Domain
    users: pl.DataFrame
    items: pl.DataFrame
    attributes: tuple[str, ...]
    interactions: pl.DataFrame
    positive_from_rating: float | None
    item_knowledge: pl.DataFrame | None = None
    user_knowledge: pl.DataFrame | None = None
    impressions: pl.DataFrame | None = None
    reading: tuple[str, ...] = ()

    @classmethod
    def from_frames(
        cls,
        interactions: Any,
        items: Any = None,
        users: Any = None,
        impressions: Any = None,
        *,
        name: str = "log",
        progress: Progress | None = None,
        **columns: Any,
    ) -> Log:
        """The log in data frames of polars, pandas or `datasets`, checked as files are.

        Args:
            interactions: a row each; columns ``user_id``, ``item_id``, and where known ``rating`` and ``time`` (dates,
                ISO 8601 or numbers since 1970). Without ratings every interaction is positive, without times rows are
                in time order.
            items: ``item_id``, ``title``, and columns that `attributes` names; their cells are lists, or text with
                ``|`` between values. Without it the ids are the titles.
            users: ``user_id``; its other columns are the profile.
            impressions: the lists that users were shown, a row for each item: ``user_id``, ``item_id``, ``list_id``,
                ``label`` (0, or 1 or another grade), and where known ``position``, ``score``, ``time``.
            name: of the log, in reports.
            progress: told what was found out about the tables; None for the terminal.
            columns: what the columns are called or mean where they differ, e.g. ``user="visitor"``,
                ``attributes=("genre",)``, ``time_format="order"``, ``repeats="all"``: fields of
                `recloop.data.table_config.TableColumns`.

        Raises:
            DataError: no frame, a column is missing, or rows are bad; all of them in one message.
            SettingError: an unknown name, or two that are one column.

        Example:
            >>> import polars as pl
            >>> bought = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": [7, 9, 7]})
            >>> Log.from_frames(bought).num_items
            2
        """
        from recloop.data.table_log import log_from_frames

        return log_from_frames(interactions, items, users, impressions, name=name, progress=progress, **columns)

    @property
    def num_users(self) -> int:
        return self.users.height

    @property
    def num_items(self) -> int:
        return self.items.height


@dataclass(frozen=True, slots=True)
class Histories:
    """The knowledge window of every user: shown to the LLM and to history encoders, never a label.

    offsets_U1: history of user u is the slice ``offsets_U1[u]:offsets_U1[u + 1]``, oldest first.
    rating: NaN throughout when the log is implicit.
    """

    offsets_U1: Int64[np.ndarray, " U1"]
    items: Int64[np.ndarray, " n"]
    rating: Float32[np.ndarray, " n"]

    @property
    def num_users(self) -> int:
        return len(self.offsets_U1) - 1

    def of(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        """Items and ratings of one user, oldest first."""
        rows = slice(int(self.offsets_U1[user]), int(self.offsets_U1[user + 1]))
        return self.items[rows], self.rating[rows]


@dataclass(frozen=True, slots=True)
class Lists:
    """Candidate lists of one user group, the labels with them.

    A user may own several lists (rows). ``is_item_BL`` is True at real items, False at padding (item 0,
    label 0). Labels are 0, or 1 or another positive grade. Rows are sorted by user, then by time.

    position_BL: where each item was shown, from 1, NaN where unknown; None where lists were made, not shown.
    score_BL: the first stage's, NaN where unknown; None where there is none.
    list_B: the number of each in ``Log.impressions``; None where lists were made.
    """

    group: Group
    user_B: Int64[np.ndarray, " B"]
    items_BL: Int64[np.ndarray, "B L"]
    labels_BL: Float32[np.ndarray, "B L"]
    is_item_BL: Bool[np.ndarray, "B L"]
    position_BL: Float32[np.ndarray, "B L"] | None = None
    score_BL: Float32[np.ndarray, "B L"] | None = None
    list_B: Int64[np.ndarray, " B"] | None = None

    def __post_init__(self) -> None:
        shapes = {self.items_BL.shape, self.labels_BL.shape, self.is_item_BL.shape}
        if len(shapes) != 1 or len(self.user_B) != self.items_BL.shape[0]:
            raise DataError(
                f"items, labels, mask and users of lists must agree in shape, got {sorted(shapes)} "
                f"and {len(self.user_B)} users; make lists with recloop.candidate_lists"
            )

    def __len__(self) -> int:
        return len(self.user_B)

    def take(self, rows: np.ndarray) -> Lists:
        """The lists at these row numbers (or where this mask is True), in that order."""
        shown = self.position_BL, self.score_BL, self.list_B
        optional = [None if part is None else part[rows] for part in shown]
        arrays = self.items_BL[rows], self.labels_BL[rows], self.is_item_BL[rows]
        return Lists(self.group, self.user_B[rows], *arrays, *optional)

    def require(self, *groups: Group) -> Lists:
        """Itself if it belongs to one of `groups`; LeakageError otherwise."""
        if self.group not in groups:
            allowed = " or ".join(groups)
            raise LeakageError(
                f"labels here must be those of {allowed} users, got {self.group} users; pass their lists"
            )
        return self


@dataclass(frozen=True, slots=True)
class CandidateLists:
    """The lists of all four groups and the histories they follow."""

    histories: Histories
    train: Lists
    reward: Lists
    valid: Lists
    test: Lists
    first_stage_recall: float | None = None  # share of positives that the first stage proposed; None for `kar`
    notes: tuple[str, ...] = ()  # what was left out when they were made

    def of(self, group: Group) -> Lists:
        lists: Lists = getattr(self, group.value)
        return lists


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a language model is asked about one user."""

    user: int
    system: str
    text: str
    num_items_shown: int
    num_items_cut: int


class CompletionStatus(StrEnum):
    """How one completion ended. All but `OK` mean an empty text."""

    OK = "ok"
    EMPTY = "empty"  # the model wrote nothing, or only its reasoning
    REFUSED = "refused"  # the model, or the filter in front of it, declined
    TOO_LONG = "too_long"  # far beyond what was asked for
    REJECTED = "rejected"  # the server refuses this prompt for every completion
    FAILED = "failed"  # the server failed at this prompt repeatedly, but not at others
    UNACCEPTED = "unaccepted"  # the caller's check refused every draw


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer to one prompt."""

    user: int
    completion: int  # 0..N-1
    text: str
    num_tokens: int
    is_finished: bool  # False when the token limit cut it
    logp_sum: float  # natural log-probability at temperature 1, end token included; NaN if unknown
    status: CompletionStatus = CompletionStatus.OK
    reason: str = ""  # of a status other than ok, or what was removed from the text
    raw: str = ""  # what the model wrote, if `text` differs


@dataclass(frozen=True, slots=True)
class UserCompletions:
    """The completions of some users, N each. Rows of `completions_UN` follow `user_U` (ascending).

    prompts_U: the prompt about each user; empty where they are not known.
    """

    user_U: Int64[np.ndarray, " U"]
    completions_UN: tuple[tuple[Completion, ...], ...]
    prompts_U: tuple[Prompt, ...] = ()


@dataclass(frozen=True, slots=True)
class UserVectors:
    """Encoded texts of some users, N each. Rows follow `user_U` (ascending)."""

    user_U: Int64[np.ndarray, " U"]
    vectors_UND: Float32[np.ndarray, "U N D"]

    def rows_of(self, user_B: np.ndarray) -> np.ndarray:
        """Row numbers of these users; DataError when one has no vector."""
        rows = np.searchsorted(self.user_U, user_B)
        missing = (rows >= len(self.user_U)) | (self.user_U[np.minimum(rows, len(self.user_U) - 1)] != user_B)
        if missing.any():
            absent = np.unique(np.asarray(user_B)[missing])
            raise DataError(
                f"no text vector for {len(absent)} users of lists (first: {absent[0]}); encode all groups first"
            )
        return rows


@dataclass(frozen=True, slots=True)
class Rewards:
    """The reward of each completion of each reward user. Rows follow `user_U` (ascending)."""

    round: int
    metric: str  # e.g. "ndcg@5", "loglik"
    user_U: Int64[np.ndarray, " U"]
    rewards_UN: Float32[np.ndarray, "U N"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference: for the same prompt, `chosen` has a higher reward than `rejected`.

    is_rejected_finished: False when the token limit cut `rejected`; `chosen` is never cut.
    """

    round: int
    user: int
    chosen_completion: int
    rejected_completion: int
    chosen: str
    rejected: str
    chosen_reward: float
    rejected_reward: float
    is_rejected_finished: bool = True


class RequestKind(StrEnum):
    """How a request states its conditions."""

    EXPLICIT_1 = "explicit_1"  # one condition, named
    EXPLICIT_2 = "explicit_2"
    EXPLICIT_3 = "explicit_3"  # three or more
    IMPLICIT = "implicit"  # a condition through another item
    MISINFORMED = "misinformed"  # as implicit, with a false claim about that item
    INTEREST = "interest"  # the value that the history likes most
    DEMOGRAPHIC = "demographic"  # a value that a group likes more than others do


@dataclass(frozen=True, slots=True)
class Condition:
    """One attribute that the wanted item must have, e.g. director, Ann Vale."""

    attribute: str
    value: str


@dataclass(frozen=True, slots=True)
class Request:
    """A wish in words, the candidates, and the one candidate that satisfies it.

    number: unique over all groups of users.
    user: whose request it is; the request belongs to the user's group.
    conditions: what is wanted, as conditions of the item-attribute graph.
    candidates: item numbers, in the order shown.
    answer: the item among them that meets every condition.
    mentioned: items that the text names.
    history, rating: what is shown of the user's log, oldest first; ratings NaN where unknown.
    """

    number: int
    kind: RequestKind
    user: int
    text: str
    conditions: tuple[Condition, ...]
    candidates: tuple[int, ...]
    answer: int
    mentioned: tuple[int, ...] = ()
    history: tuple[int, ...] = ()
    rating: tuple[float, ...] = ()
