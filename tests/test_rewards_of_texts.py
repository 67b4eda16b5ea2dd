"""The embedding reward and the penalties of texts against hand-made cases."""

import numpy as np
import pytest

from recloop.data.lists import candidate_lists
from recloop.data.load import load_log
from recloop.errors import LeakageError
from recloop.prompts.lines import history_items
from recloop.prompts.prose import index_catalogue
from recloop.prompts.text_truth import history_facts
from recloop.records import Group, Lists, Prompt
from recloop.rewards.embedding_reward import EmbeddingReward
from recloop.rewards.function import RewardSum
from recloop.rewards.text_penalties import TextPenalties, untrue_share
from recloop.testing import check_reward


class Compass:
    """Vectors by the first letter of a text."""

    name, width = "compass", 2

    def encode(self, texts):
        ways = {"n": (0, 2), "e": (3, 0), "": (0, 0)}
        return np.array([ways.get(text[:1], (1, 1)) for text in texts], np.float32)


def make_lists(group=Group.REWARD):
    # User 5: in one list item 0 is good beside 1, in the other item 2 beside 3. User 6 has only good candidates.
    items = np.array([[0, 1], [2, 3], [0, 2]])
    labels = np.array([[1, 0], [1, 0], [1, 1]], np.float32)
    return Lists(group, np.array([5, 5, 6]), items, labels, np.ones((3, 2), bool))


ITEMS = np.array([[0, 9], [5, 0], [0, 1], [0, -1]], np.float32)  # north, east, north, south


def ask(reward, user, *texts):
    return reward([Prompt(user, "", "", 0, 0)], [list(texts)])[0].tolist()


def test_a_text_is_rewarded_for_its_nearness_to_good_candidates_over_others() -> None:
    reward = EmbeddingReward(make_lists(), Compass(), ITEMS)
    # List one: north - east. List two: north - south, so 2 north. Mean: (-1/2, 3/2).
    assert ask(reward, 5, "north", "east", "") == pytest.approx([1.5, -0.5, 0.0])
    assert ask(reward, 6, "north", "east") == [0.0, 0.0]
    assert ask(reward, 7, "north") == [0.0]
    assert reward([], []).shape == (0, 0)
    check_reward(reward)
    with pytest.raises(LeakageError):
        EmbeddingReward(make_lists(Group.TEST), Compass(), ITEMS)


def test_untrue_names_are_those_the_history_lacks_or_contradicts() -> None:
    log = load_log(users=20)
    histories = candidate_lists(log).histories
    history = history_items(log)(*histories.of(0))
    facts = history_facts(log.attributes, history)
    catalogue = index_catalogue(
        {name: log.items[name].explode().drop_nulls().unique() for name in log.attributes}, log.items["title"]
    )
    liked = next(one.value for one in facts.true if one.attribute == "genre" and str(one.polarity) == "likes")
    strange = next(
        v for v in log.items["genre"].explode().unique(maintain_order=True) if ("genre", v) not in facts.present
    )
    assert untrue_share(f"Likes {liked}.", catalogue, facts) == 0.0
    assert untrue_share(f"Dislikes {liked}.", catalogue, facts) == 1.0
    assert untrue_share(f"Likes {liked} and {strange}.", catalogue, facts) == 0.5
    assert untrue_share("A person of taste.", catalogue, facts) == 0.0
    lost = TextPenalties(log, histories, length_weight=2.0, untruth_weight=0.5)
    assert ask(lost, 0, f"Dislikes {liked}.", "") == pytest.approx([-0.5 - 2.0 * len(liked.split()) / 100 - 0.02, 0.0])
    both = RewardSum(lost, lost)
    assert both.name == "penalties+penalties"
    assert ask(both, 0, f"Dislikes {liked}.") == pytest.approx([2 * ask(lost, 0, f"Dislikes {liked}.")[0]])
