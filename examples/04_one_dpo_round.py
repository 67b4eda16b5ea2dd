"""One round of DPO against its control: the same pairs with labels drawn at random.

    python examples/04_one_dpo_round.py

On simulated data, about two minutes. Prints what each model's texts are worth to the reward model, on reward users.
"""

from pathlib import Path
from tempfile import mkdtemp

import recloop as rl
from recloop.rewards.preference_pairs import random_label_pairs

folder = Path(mkdtemp(prefix="recloop-"))
log = rl.load_log("simulated", users=160)
lists = rl.candidate_lists(log, protocol="kar")
lm, encoder = rl.load_lm("bundled"), rl.load_encoder("static")
prompts = rl.profile_prompts(log, lists, lm=lm)
texts = rl.generate(lm, prompts, n=4)
vectors = rl.encode(encoder, texts)
reward_model = rl.fit_reranker("prm", log, lists, vectors, max_epochs=6)
rewards = rl.reranker_reward(reward_model, lists.reward, vectors, metric="loglik")
print(f"untuned: {rewards.rewards_UN.mean():.3f}")

pairs = rl.preference_pairs(texts, rewards)
swapped = type(pairs)(random_label_pairs(pairs.pairs, seed=0), len(pairs), 0, 0, 0, 0, prompts_U=pairs.prompts_U)
of_reward_users = [prompt for prompt in prompts if prompt.user in set(lists.reward.user_B.tolist())]
for name, chosen in (("trained", pairs), ("random labels", swapped)):
    model = rl.load_lm(f"transformers:{rl.train_dpo(lm, chosen, out=folder / name, max_pairs=32).folder}")
    read = rl.encode(encoder, rl.generate(model, of_reward_users, n=4))
    found = rl.reranker_reward(reward_model, lists.reward, read, metric="loglik")
    print(f"{name}: {found.rewards_UN.mean():.3f}")
