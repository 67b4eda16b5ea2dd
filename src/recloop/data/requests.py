"""Requests made from a log: a wish in words, candidates, and the one candidate that satisfies it by the graph.

Exactly one candidate meets every condition. Among the others are *near misses*, which meet all conditions but
one, and for a false premise *traps*, which meet the claim. Groups of users share no request.

Source: the kinds of RecBench+ (arXiv 2503.09382), which ReRec (arXiv 2604.07851) trains on. Deviations: the graph
alone is the ground truth, there are near misses, and what a history or a group likes is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from pydantic import BaseModel

from recloop.data import request_words as words
from recloop.data.item_graph import ItemGraph, build_item_graph
from recloop.data.thin_logs import why_thin
from recloop.errors import DataError
from recloop.records import Condition, Group, Log, Request, RequestKind
from recloop.settings import setting, shown_first

ATTEMPTS = 60  # draws for one request before its kind is given up for the user
MIN_LIKED = 2  # items of a history that show a taste
TRAPS = 2  # items that meet a false claim
MIN_CARRIERS = 2  # items that must meet a condition: with one, the condition would name the item
MIN_GROUP_LIKES = 20  # guess: fewer likes of a group say nothing about its taste


class RequestConfig(BaseModel, frozen=True, extra="forbid"):
    """Which requests are made."""

    kinds: tuple[RequestKind, ...] = setting(
        tuple(RequestKind), "Kinds, made in turn; demographic needs profiles.", min_length=1
    )
    per_user: int = shown_first(7, "Requests of every user, one kind after another.", ge=1)
    num_candidates: int = shown_first(20, "Candidates: one right, the others wrong.", ge=2)
    near_misses: int = setting(6, "Wrong candidates that meet all conditions but one.", ge=0)
    history_items: int = setting(8, "Latest items of the user that a request shows.", ge=1)


@dataclass(frozen=True, slots=True)
class RequestSet:
    """Requests by group of users; by kind, how often no such request was found for a user."""

    by_group: Mapping[Group, tuple[Request, ...]]
    num_given_up: Mapping[str, int]

    def of(self, group: Group) -> tuple[Request, ...]:
        return self.by_group[group]


@dataclass(slots=True)
class _Wish:
    """What a request of some kind asks for; its words are drawn after the answer."""

    conditions: tuple[Condition, ...]
    say: Callable[[], str]
    mentioned: tuple[int, ...] = ()
    history: tuple[int, ...] = ()
    rating: tuple[float, ...] = ()
    traps: tuple[Condition, ...] = ()


@dataclass(slots=True)
class _Maker:
    """Everything a request is drawn from."""

    log: Log
    graph: ItemGraph
    config: RequestConfig
    noun: str
    titles: Sequence[str]
    can_tell: Callable[[Sequence[str]], bool]
    rng: np.random.Generator
    histories: Sequence[tuple[tuple[int, ...], tuple[float, ...]]]
    group_tastes: Mapping[tuple[str, str], Sequence[Condition]]
    profiles: Sequence[Mapping[str, str]]
    seen: set[tuple[frozenset[Condition], int]] = field(default_factory=lambda: set())


def make_requests(
    log: Log, groups: Mapping[Group, np.ndarray], config: RequestConfig, seed: int, *, noun: str,
    can_tell: Callable[[Sequence[str]], bool],
) -> RequestSet:  # fmt: skip
    """The requests of every user, by disjoint groups of users.

    Args:
        noun: what the items are, plural.
        can_tell: whether titles can be told apart when each is written alone.

    Raises:
        DataError: there are no attributes, or a group with users got no request at all.
    """
    rng = np.random.default_rng([seed, 0x4E0])
    maker = _Maker(
        log, build_item_graph(log), config, noun, log.items["title"].to_list(), can_tell, rng,
        _histories(log, config.history_items), {}, _profiles(log),
    )  # fmt: skip
    maker.group_tastes = _tastes_of_groups(maker, groups[Group.TRAIN])
    given_up: Counter[str] = Counter()
    made: dict[Group, list[Request]] = {group: [] for group in Group}
    number = 0
    for group in Group:
        for place, user in enumerate(groups[group].tolist()):
            for turn in range(config.per_user):
                kind = config.kinds[(place * config.per_user + turn) % len(config.kinds)]
                request = _make(maker, kind, user, number)
                if request is None:
                    given_up[kind.value] += 1
                else:
                    made[group].append(request)
                    number += 1
        if len(groups[group]) and not made[group]:
            raise DataError(
                f"every group needs a request, got none for the {len(groups[group])} {group} users"
                f"{why_thin(log)}; use more than {log.num_items} items, or lower "
                f"requests.num_candidates or requests.near_misses"
            )
    return RequestSet({group: tuple(rows) for group, rows in made.items()}, dict(given_up))


def check_request(graph: ItemGraph, request: Request) -> None:
    """DataError unless exactly one candidate, the answer, meets every condition."""
    meeting = [item for item in request.candidates if item in graph.meeting(request.conditions)]
    if meeting != [request.answer] or len(set(request.candidates)) < len(request.candidates):
        raise DataError(
            f"exactly one candidate must satisfy a request, got {len(meeting)} of "
            f"{len(set(request.candidates))} different ones for request {request.number}; make it again"
        )


def _make(maker: _Maker, kind: RequestKind, user: int, number: int) -> Request | None:
    """One request of this kind; None when none is found in `ATTEMPTS` draws."""
    for _ in range(ATTEMPTS):
        wish = _wish(maker, kind, user)
        if wish is None:
            continue
        outside = {*wish.mentioned, *wish.history}
        pool = sorted(maker.graph.meeting(wish.conditions) - outside)
        if not pool:
            continue
        answer = pool[int(maker.rng.integers(len(pool)))]
        key = (frozenset(wish.conditions), answer)
        candidates = None if key in maker.seen else _candidates(maker, wish, answer, outside)
        if candidates is None:
            continue
        maker.seen.add(key)
        request = Request(
            number, kind, user, wish.say(), wish.conditions, candidates, answer,
            wish.mentioned, wish.history, wish.rating,
        )  # fmt: skip
        check_request(maker.graph, request)
        return request
    return None


def _wish(maker: _Maker, kind: RequestKind, user: int) -> _Wish | None:
    match kind:
        case RequestKind.EXPLICIT_1 | RequestKind.EXPLICIT_2 | RequestKind.EXPLICIT_3:
            return _explicit(maker, int(kind.value.removeprefix("explicit_")))
        case RequestKind.IMPLICIT:
            return _by_item(maker, user, is_false=False)
        case RequestKind.MISINFORMED:
            return _by_item(maker, user, is_false=True)
        case RequestKind.INTEREST:
            return _by_taste(maker, user)
        case RequestKind.DEMOGRAPHIC:
            return _as_group(maker, user)


def _explicit(maker: _Maker, num: int) -> _Wish | None:
    item = int(maker.rng.integers(maker.graph.num_items))
    conditions = _some(maker, maker.graph.of_item[item], num)
    if len(conditions) < num:
        return None
    return _Wish(conditions, partial(words.ask_explicitly, maker.noun, conditions, maker.rng))


def _by_item(maker: _Maker, user: int, *, is_false: bool) -> _Wish | None:
    """The value that a known item has in one attribute, and in half of the cases another condition."""
    known = maker.histories[user][0]
    item = known[int(maker.rng.integers(len(known)))] if known else 0
    first = [
        one
        for one in maker.graph.of_item[item]
        if len(maker.graph.values(item, one.attribute)) == 1 and _is_carried(maker, one)
    ]
    if not known or not first:
        return None
    main = first[int(maker.rng.integers(len(first)))]
    more = _another(maker, main)
    title = maker.titles[item].replace('"', "'")
    if not is_false:
        say = partial(words.ask_by_item, maker.noun, title, main.attribute, more, maker.rng)
        return _Wish((main, *more), say, (item,))
    others = [one for one in maker.graph.items_with if one.attribute == main.attribute and one != main]
    if not others:
        return None
    false = others[int(maker.rng.integers(len(others)))]
    say = partial(words.ask_misinformed, maker.noun, title, false, more, maker.rng)
    return _Wish((main, *more), say, (item,), traps=(false,))


def _by_taste(maker: _Maker, user: int) -> _Wish | None:
    """The value that most liked items of the history carry, if there is one such value."""
    items, rating = maker.histories[user]
    least = maker.log.positive_from_rating
    liked = [item for item, given in zip(items, rating, strict=True) if least is None or given >= least]
    attributes = maker.log.attributes
    attribute = attributes[int(maker.rng.integers(len(attributes)))]
    counts = Counter(one for item in liked for one in maker.graph.of_item[item] if one.attribute == attribute)
    best = counts.most_common(2)
    if not best or best[0][1] < MIN_LIKED or (len(best) > 1 and best[1][1] == best[0][1]):
        return None
    main = best[0][0]
    more = _another(maker, main)
    say = partial(words.ask_by_taste, maker.noun, attribute, more, maker.rng)
    return _Wish((main, *more), say, history=items, rating=rating)


def _as_group(maker: _Maker, user: int) -> _Wish | None:
    """A condition that the user's group likes more than all users do."""
    profile = maker.profiles[user] if maker.profiles else {}
    if not profile:
        return None
    name = list(profile)[int(maker.rng.integers(len(profile)))]
    tastes = maker.group_tastes.get((name, profile[name]), ())
    if not tastes:
        return None
    main = tastes[int(maker.rng.integers(len(tastes)))]
    told = {name: profile[name]}
    return _Wish((main,), partial(words.ask_as_group, maker.noun, main.attribute, told, maker.rng))


def _some(maker: _Maker, conditions: Sequence[Condition], num: int) -> tuple[Condition, ...]:
    """Up to `num` of these conditions in random order, of different attributes first."""
    carried = [one for one in conditions if _is_carried(maker, one)]
    drawn = [carried[place] for place in maker.rng.permutation(len(carried)).tolist()]
    first_of_attribute = {one.attribute: one for one in reversed(drawn)}
    spread = [one for one in drawn if first_of_attribute[one.attribute] == one]
    return tuple([*spread, *(one for one in drawn if one not in spread)][:num])


def _another(maker: _Maker, main: Condition) -> tuple[Condition, ...]:
    """In half of the cases one more condition that some item meets together with `main`."""
    if maker.rng.random() < 0.5:
        return ()
    pool = sorted(maker.graph.items_with[main])
    item = pool[int(maker.rng.integers(len(pool)))]
    return _some(maker, [one for one in maker.graph.of_item[item] if one.attribute != main.attribute], 1)


def _is_carried(maker: _Maker, condition: Condition) -> bool:
    return len(maker.graph.items_with[condition]) >= MIN_CARRIERS


def _candidates(maker: _Maker, wish: _Wish, answer: int, outside: set[int]) -> tuple[int, ...] | None:
    """The answer and wrong items in random order; None when the catalogue has too few."""
    graph, config, rng = maker.graph, maker.config, maker.rng
    right = graph.meeting(wish.conditions) | outside

    def wrong_ones(items: frozenset[int]) -> list[int]:
        return rng.permutation(sorted(items - right)).tolist()

    near: list[list[int]] = []
    if len(wish.conditions) > 1:
        for left_out in wish.conditions:
            near.append(wrong_ones(graph.meeting(one for one in wish.conditions if one != left_out)))
    traps = [item for trap in wish.traps for item in wrong_ones(graph.items_with[trap])[:TRAPS]]
    rest = wrong_ones(frozenset(range(graph.num_items)))
    in_turn = [row[place] for place in range(config.near_misses) for row in near if place < len(row)]
    wrong = dict.fromkeys([*in_turn[: config.near_misses], *traps, *rest])
    by_name: dict[str, int] = {}
    for item in (answer, *wrong):
        by_name.setdefault(maker.titles[item].casefold(), item)
    chosen = list(by_name.values())[: config.num_candidates]
    if len(chosen) < config.num_candidates or not maker.can_tell([maker.titles[item] for item in chosen]):
        return None
    return tuple(rng.permutation(chosen).tolist())


def _histories(log: Log, num: int) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    """Each user's latest items and ratings (NaN where unknown), oldest first."""
    met = log.interactions
    users, items = met["user"].to_numpy(), met["item"].to_numpy()
    rating = met["rating"].fill_null(float("nan")).to_numpy()
    bounds = np.searchsorted(users, np.arange(log.num_users + 1))
    rows = (slice(max(bounds[u], bounds[u + 1] - num), bounds[u + 1]) for u in range(log.num_users))
    return [(tuple(items[row].tolist()), tuple(rating[row].tolist())) for row in rows]


def _profiles(log: Log) -> list[dict[str, str]]:
    names = [name for name in log.users.columns if name not in ("user", "user_id")]
    rows = log.users.sort("user").iter_rows(named=True)
    return [{name: str(row[name]) for name in names if row[name]} for row in rows] if names else []


def _tastes_of_groups(maker: _Maker, train_users: np.ndarray) -> dict[tuple[str, str], tuple[Condition, ...]]:
    """By (profile column, value), per attribute the condition that train users of the group like most against all."""
    if not maker.profiles:
        return {}
    log = maker.log.interactions.filter(maker.log.interactions["user"].is_in(train_users.tolist()))
    if maker.log.positive_from_rating is not None:
        log = log.filter(log["rating"] >= maker.log.positive_from_rating)
    overall: Counter[Condition] = Counter()
    by_group: dict[tuple[str, str], Counter[Condition]] = {}
    for user, item in zip(log["user"].to_list(), log["item"].to_list(), strict=True):
        attributes = [one for one in maker.graph.of_item[item] if _is_carried(maker, one)]
        overall.update(attributes)
        for pair in maker.profiles[user].items():
            by_group.setdefault(pair, Counter()).update(attributes)
    tastes: dict[tuple[str, str], tuple[Condition, ...]] = {}
    for pair, counts in by_group.items():
        best: dict[str, tuple[float, Condition]] = {}
        for one, num in counts.items():
            lift = num / overall[one]
            if num >= MIN_GROUP_LIKES and (one.attribute not in best or lift > best[one.attribute][0]):
                best[one.attribute] = (lift, one)
        tastes[pair] = tuple(condition for _, condition in best.values())
    return tastes
