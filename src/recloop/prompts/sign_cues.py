"""The sign a text gives to the names in it, by cue words: no parser, no model, rules of thumb.

A name has the sign of the last cue before it in its clause ("likes", "avoids", "not a fan of"), of a cue said of it
("Comedy is disliked", "Comedy: poorly rated"), or of the heading above it. It has none where no cue is found, and
where the text says "neutral" or "mixed". A negation turns a cue within four words; "but", "while" and a new subject
begin a clause. What the rules get right is measured on texts labelled by hand, in ``tests/labelled_prose.json``.
"""

from __future__ import annotations

import re

from recloop.prompts.claims import Polarity

REACH, NEAR = 4, 2  # words from a negation to its cue, and to its name (guesses)
SPOT = "\xa4"  # stands for a name while cues are read
_VERBS = "(?:dis)?like|love|enjoy|prefer|admire|adore|appreciate|avoid|hate|reject|value"
ACTIVE = re.compile(rf"(?:{_VERBS})s\b(?!\s*(?:,|$))")
FORWARD = re.compile(rf"\s(?:(?:by|with|of|to|from|in)\s)?(?:\w+\s){{0,2}}{SPOT}")
OF_IT = re.compile(r"\s(?:it|them)\b")
ENDS = re.compile(r"\n\s*|(?<!\b\w)[.!?]+(?=[\s\")]|$)|;")
CUE_LINE = re.compile(rf"[^\w{SPOT}]*(?:\w+\s){{0,2}}(?:dis)?likes?[^\w{SPOT}]*")
HEADING = re.compile(rf"[^:{SPOT}]{{1,60}}:")
_LIKES = r"""(?<![s\xa4,]\ )like | likes(?!\sof) | liked | liking | (?:lov|ador|admir|appreciat|enjoy|favou?r)\w*
  | prefer(?:s|red|ring)? | preferences?\s(?:is|are|for|towards?) | fans? | fond\w* | keen | drawn | attract\w*
  | (?:gravitat|passion|enthusias|delight|praise|positiv|trust|seek|affinit|affection|inclin|penchant|predilection
      |resonat|captivat|fascinat|intrigu|satisf|relish|cherish|savou?r|embrac|welcom|recommend|devot|enamou?r|happi)\w*
  | partial\sto | loyal | followers?\sof | sweet\sspot | soft\sspot | safe\sbet | (?:is|are|really|very)\sinto
  | interest(?:s|ed)? | tastes?\sfor | lean\w*\stoward\w* | go-to | on\stop | do(?:es)?\swell | look\w*\sfor
  | (?:yes|cares?|warms?)\s(?:to|for) | valu(?:e[sd]?|ing) | pleased | happy | impressed | respect
  | (?:reader|lover|admirer)s?\sof | (?<![\d.])(?:4|5|four|five)[-\s]stars?
  | (?:top|best|high(?:er|est|ly)?|above|well)[-\s](?:\w+\s){0,2}?
    (?:rat\w+|marks?|scor\w+|regard\w*|average|mean|received) | top | best"""
_DISLIKES = r"""(?:dislik|avoid|loath|detest|despis|reject|shun|avers|skip|negativ|distaste|disdain|dismiss|criticis
      |criticiz|complain|frustrat|annoy|reluctan|underwhelm|unfavou?r|unappeal|unsatisf|dissatisf)\w*
  | hat(?:e[sd]?|ing) | unhappy | returned(?!\sto) | unimpressed | (?:un|dis)interest\w* | critical\sof | wary
  | tired?\sof | leaves?\s\w+\scold | at\sthe\sbottom | less\sso | (?:put|turned)\soff | steers?\sclear
  | stays?\saway | no\sto | (?<![\d.])(?:1|2|one|two)[-\s]stars?
  | (?:least|less|little|lack\sof|lack)[-\s](?:\w+\s)?(?:keen|drawn|impressed|patience|taste
      |(?:favou?r|lik|interest|fond|enthusias|appreciat|enjoy|appeal|attract|lov|rat)\w*)
  | (?:low(?:er|est)?|poor(?:er)?|worst|below|bad)[-\s](?:\w+\s){0,2}?(?:rat\w+|marks?|scor\w+|average|mean|opinions?)
  | worst"""
_PEOPLE = "user|person|viewer|reader|customer|shopper|individual|buyer"
_ENDING = r"(?=\s*(?:[,;]|$|and\b))"
_BE = "is|are|was|were"
CUES = re.compile(
    rf"""(?P<spot>\xa4) | (?P<colon>(?<=\xa4)["']?\s?(?:[:(\u2013]|-\s)) | (?P<bar>\|\s*(?!["'\s]))
  | (?P<fresh>,\sand\s(?=\xa4(?:\s\w+){{0,2}}\s(?:{_BE}|gets?|receives?)\b))
  | (?P<subject>,\s(?:and\s|or\s)?(?:(?P<they>they|it)|he|she|(?:the|this|that)\s(?:{_PEOPLE}))\b)
  | \b(?:(?P<apart>(?:rather|other)\sthan|instead\sof|except(?:\sfor)?|apart\sfrom|unlike|as\sopposed\sto)
  | (?P<to>to(?=\s(?:\w+\s){{0,6}}\xa4))
  | (?P<than>more\s(?:\w+\s)?than(?!\s(?:\d|one|two|three|four|five|half|once|most)) | over)
  | (?P<plain>neutral\w*|mixed|indifferent|likes\sand\sdislikes|neither\s\w+\snor\s\w+|tolerat\w+
      |lukewarm|(?:no|any)\s(?:strong|clear|particular|opinion)|(?<![\d.])3[-\s]stars?)
  | (?P<low>(?:{_BE})\snot(?=\s*(?:[,;]|$))|poorly|badly|(?:low(?:er|est)?|least){_ENDING}|below\sit|dull|tedious
      |boring|disappoint\w*)
  | (?P<high>highly|(?:high(?:er|est)?|best){_ENDING}|stands?\sout|fares?\s(?:much\s)?better|appeal\w*
      |with\s(?:enthusiasm|pleasure|delight)|(?<=\xa4\s)(?:enthusiast|fan|lover)s?)
  | (?P<dislikes>{_DISLIKES}) | (?P<likes>{_LIKES})
  | (?P<negation>(?:not|never|no|nor|neither|without|rarely|seldom|hardly|nothing|cannot
      |(?:do|does|did|{_BE}|wo|would|ca|could)nt)(?!\s(?:only|exceptions?|doubt|sure)))
  | (?P<contrast>but(?!\salso)|while|whereas|(?:however|although|though)(?!,)|yet|despite)
  | (?P<said>{_BE}|be|been|has|have|had|gets?|got|receiv\w*|seems?|tends?|appear\w*|went|fares?|rates?|rated))\b""",
    re.VERBOSE,
)
SIGNS = {"likes": Polarity.LIKES, "high": Polarity.LIKES, "dislikes": Polarity.DISLIKES, "low": Polarity.DISLIKES}


def signs_of(masked: str) -> list[Polarity | None]:
    """The sign of every `SPOT` of a text in lower case whose names are masked by them.

    Example:
        >>> [str(sign) for sign in signs_of(f"likes {SPOT}, but {SPOT} is avoided. saw {SPOT}.")]
        ['likes', 'dislikes', 'None']
    """
    signs: list[Polarity | None] = []
    block: Polarity | None = None  # of a heading with a line of its own
    inline: Polarity | None = None  # of a heading at the beginning of a sentence
    is_used, at = False, 0
    for end, mark in [*((m.start(), m[0]) for m in ENDS.finditer(masked)), (len(masked), "\n")]:
        segment, at = masked[at:end], end + len(mark)
        head = HEADING.match(segment) or (CUE_LINE.fullmatch(segment) if mark[0] == "\n" else None)
        if head:
            kinds = {m.lastgroup for m in CUES.finditer(head[0])}
            own = None if {"likes", "dislikes"} <= kinds else _clause_signs(head[0] + SPOT, None)[-1]
            segment = segment[head.end() :]
            inline = own or block
            if not segment.strip():
                block, is_used = inline, False
        found = _clause_signs(segment, inline)
        signs += found
        is_used = is_used or bool(found)
        if mark != ";":
            block = None if is_used and mark.count("\n") > 1 else block
            inline = block
    return signs


def _clause_signs(segment: str, default: Polarity | None) -> list[Polarity | None]:
    """The sign of every spot of one sentence, or part of it; `default` is its heading's."""
    signs: list[Polarity | None] = []
    free: list[int] = []  # spots that a cue after them may still be about
    passed: list[int] = []  # such spots of the clause before
    current, is_said, is_apart, denied_to, last = default, False, False, -1, ""
    for cue in CUES.finditer(segment):
        kind, start, end = cue.lastgroup or "", cue.start(), cue.end()
        reach = segment.count(" ", denied_to, start) if denied_to >= 0 else REACH + 1
        is_set = current is not default
        if kind == "spot":
            if reach <= NEAR + 1 and not is_said:
                current = Polarity.DISLIKES
            signs.append(current)
            free += [] if is_apart else [len(signs) - 1]
            is_said = False
        elif kind == "negation":
            denied_to = end
        elif kind in ("said", "colon"):
            is_said = bool(free)
        elif kind in ("contrast", "bar") or (kind in ("fresh", "subject") and (is_set or _is_new(cue))):
            passed, free, current, is_said, is_apart = free, [], default, False, False
        elif kind == "than" and is_apart and signs:  # the second of "X over Y and Z over W"
            signs[-1] = Polarity.LIKES
        elif kind == "apart" or (kind == "than" and is_set) or (kind == "to" and free and last.startswith("prefer")):
            current, is_apart, last = Polarity.DISLIKES, True, ""
        elif kind in SIGNS or kind == "plain":
            sign, last = SIGNS.get(kind), cue[0]
            if reach <= REACH:
                sign = Polarity.DISLIKES if sign is Polarity.LIKES else None
            is_of_it = OF_IT.match(segment, end) is not None
            is_forward = ACTIVE.match(segment, start) or (is_set and FORWARD.match(segment, end))
            if is_of_it:
                about = free or passed
            elif kind in ("low", "high") or (is_said and not is_forward):
                about = free
            else:
                is_next = last.endswith(("ed", "star", "stars")) and segment[start - 2 : start] == f"{SPOT} "
                about = free[-1:] if is_next else []
            for spot in about:
                signs[spot] = sign
            current, free, is_said, is_apart, denied_to = default if is_of_it else sign, [], False, False, -1
    return signs


def _is_new(cue: re.Match[str]) -> bool:
    """Whether a subject begins a clause even where nothing was said before; "they" may be what was named before."""
    return cue.lastgroup == "subject" and not cue["they"]
