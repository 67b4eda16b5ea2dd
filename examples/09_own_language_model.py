"""A language model of your own: an object with a name, `generate` and `count_tokens`. It is measured, not trained.

    python examples/09_own_language_model.py

On simulated data, about a minute. Prints the table of a run without training.
"""

from tempfile import mkdtemp

import recloop as rl


class FirstLine:
    """Repeats the latest item of the history; stands for a model behind an API of your own."""

    name = "first-line-1"

    def generate(self, prompts, sampling):
        for position, prompt in enumerate(prompts):
            text = prompt.text.split("\n")[1]
            yield (
                position,
                tuple(
                    rl.Completion(prompt.user, number, text, self.count_tokens(text), True, float("nan"))
                    for number in sampling.completion_numbers
                ),
            )

    def count_tokens(self, text):
        return len(text.split())


results = rl.run(
    "dpo4rec",
    data={"simulated": {"num_users": 120, "num_items": 150}},
    out=mkdtemp(prefix="recloop-"),
    lm=FirstLine(),
    encoder="static",
    rounds=0,
    completions={"test": 2},
    reranker={"max_epochs": 3},
    variants="core",
)
print(results.table().select("label", "value", "low", "high"))
