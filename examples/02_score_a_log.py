"""Is a text worth anything beside the ids? Rerankers with and without it, compared user by user.

    python examples/02_score_a_log.py

On simulated data, under a minute. Prints NDCG@5 of each variant and the tested difference.
"""

import recloop as rl

log = rl.load_log("simulated", users=240)
lists = rl.candidate_lists(log, protocol="kar")
lm = rl.load_lm("bundled")
texts = rl.generate(lm, rl.profile_prompts(log, lists, lm=lm), n=2)
vectors = rl.encode(rl.load_encoder("static"), texts)

rerankers = {
    "no_text": (rl.fit_reranker("prm", log, lists, max_epochs=8), None),
    "id_history": (rl.fit_reranker("prm", log, lists, max_epochs=8, use_id_history=True), None),
    "text": (rl.fit_reranker("prm", log, lists, vectors, max_epochs=8), vectors),
}
variants = [
    rl.evaluate(reranker, lists.test, read, metrics=("ndcg@5", "map@5"), empty="drop", name=name)
    for name, (reranker, read) in rerankers.items()
]
for variant in variants:
    print(f"{variant.name:<11} ndcg@5 {variant.of('ndcg@5').mean():.4f}")
print(rl.compare_variants(variants, [("text", "no_text"), ("text", "id_history")], "ndcg@5"))
