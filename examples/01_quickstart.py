"""The loop by hand: texts about users, rewards from a reranker, preference pairs, DPO.

    python examples/01_quickstart.py

On simulated data, in about two minutes of CPU. Prints the pairs' rewards and one user's text before and after training.
"""

from pathlib import Path
from tempfile import mkdtemp

import recloop as rl

folder = Path(mkdtemp(prefix="recloop-"))
log = rl.load_log("simulated", users=200)
lists = rl.candidate_lists(log, protocol="kar")
lm = rl.load_lm("bundled")
prompts = rl.profile_prompts(log, lists, template="counted", lm=lm)
texts = rl.generate(lm, prompts, n=4, cache=folder / "completions.sqlite")
vectors = rl.encode(rl.load_encoder("static"), texts)

reward_model = rl.fit_reranker("prm", log, lists, vectors, max_epochs=5)  # on train users
rewards = rl.reranker_reward(reward_model, lists.reward, vectors, metric="ndcg@5")  # of reward users
pairs = rl.preference_pairs(texts, rewards)
trained = rl.train_dpo(lm, pairs, out=folder / "tuned", max_pairs=32)
print(f"{len(pairs)} pairs; model in {trained.folder}")

user = int(lists.test.user_B[0])
prompt = next(prompt for prompt in prompts if prompt.user == user)
for name, model in (("before", lm), ("after", rl.load_lm(f"transformers:{trained.folder}"))):
    (completions,) = rl.generate(model, [prompt], temperature=0.1).completions_UN
    print(f"{name}: {completions[0].text}")
