"""A text encoder of your own: an object with a name, a width and `encode`.

    python examples/08_own_encoder.py

On simulated data, under a minute. Prints what the contract check says and a reranker's NDCG@5 with it.
"""

from zlib import crc32

import numpy as np

import recloop as rl
from recloop.testing import check_encoder


class BagOfWords:
    """Counts of hashed words, in 64 columns."""

    name, width = "bag-of-words-64", 64

    def encode(self, texts):
        vectors = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.split():
                row[crc32(word.encode()) % self.width] += 1
        return vectors


check_encoder(BagOfWords())
print("the encoder fits")
log = rl.load_log("simulated", users=160)
lists = rl.candidate_lists(log, protocol="kar")
lm = rl.load_lm("bundled")
vectors = rl.encode(BagOfWords(), rl.generate(lm, rl.profile_prompts(log, lists, lm=lm), n=2))
reranker = rl.fit_reranker("dlcm", log, lists, vectors, max_epochs=4)
scores = rl.evaluate(reranker, lists.test, vectors, metrics=("ndcg@5",), empty="drop")
print(f"ndcg@5 {scores.of('ndcg@5').mean():.4f}")
