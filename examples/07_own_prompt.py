"""A prompt of your own: a Jinja template in a file.

    python examples/07_own_prompt.py

On simulated data, a few seconds. Prints the prompt about one user.
On the command line: `recloop run dpo4rec --prompt.template FILE`.
"""

from pathlib import Path
from tempfile import mkdtemp

import recloop as rl

TEMPLATE = """\
{% for item in shown -%}
{{ item.rating }} of 5 | "{{ item.title }}" | {{ item.attributes.genre | join(", ") }}
{% endfor -%}
In two sentences, say which genres of {{ noun }} this person likes and which they dislike.
"""

file = Path(mkdtemp(prefix="recloop-")) / "short.jinja"
file.write_text(TEMPLATE)
log = rl.load_log("simulated", users=60)
lists = rl.candidate_lists(log, protocol="kar")
prompts = rl.profile_prompts(log, lists, template=file, max_prompt_tokens=400)
print(prompts[0].text)
