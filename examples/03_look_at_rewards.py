"""Can the reward teach anything? Look at it before you train: how reliable is it, and what do other users predict?

    python examples/03_look_at_rewards.py

On simulated data, under a minute. Prints the split-half reliability and the cross-user R².
"""

import recloop as rl
from recloop.rewards.cross_fit import cross_fit_rewards
from recloop.rewards.reliability import split_half_reliability
from recloop.rewards.reranker_reward import reward_lists

log = rl.load_log("simulated", users=240)
lists = rl.candidate_lists(log, protocol="kar")
lm = rl.load_lm("bundled")
texts = rl.generate(lm, rl.profile_prompts(log, lists, lm=lm), n=6)
vectors = rl.encode(rl.load_encoder("static"), texts)
reward_model = rl.fit_reranker("prm", log, lists, vectors, max_epochs=8)

print(split_half_reliability(reward_lists([reward_model], lists.reward, vectors, "loglik"), seed=0))
rewards = rl.reranker_reward(reward_model, lists.reward, vectors, metric="loglik")
print(cross_fit_rewards(rewards, vectors, seed=0))  # what a language model can learn from
best = rewards.rewards_UN.argmax(axis=1)[0]
row = texts.user_U.tolist().index(int(rewards.user_U[0]))
print("best completion of one reward user:", texts.completions_UN[row][best].text)
