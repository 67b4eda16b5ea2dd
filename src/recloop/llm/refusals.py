"""Whether an answer declines the task, in the languages that models are mostly asked in.

A refusal in another language is met by what measures texts: it is short and claims nothing (`recloop preflight`).
"""

from __future__ import annotations

import re

REFUSAL_CHARS = 400  # a longer text that begins with an excuse goes on to say something

CANNOT = (
    r"(cannot|can't|can not|could not|couldn't|won't|will not|am unable|'m unable|am not able|'m not able"
    r"|don't feel comfortable|do not feel comfortable)"
)
TASK = (
    r"(help|assist|comply|fulfil|provide|answer|respond|do th(at|is|e)|do so|continue|engage|analy[sz]e|create|generate"
    r"|offer|discuss|write)"
)
# What a refusal begins with. The verbs after "I can't" keep "I can't help but notice" out.
BEGINNINGS = (
    # English
    rf"(my apologies|apologies|i apologi[sz]e)?,? ?(but )?i ?{CANNOT} (to |be able to )?{TASK}\b(?! but\b)",
    rf"(i'?m |i am )?(really |very |so )?sorry,? (but )?(,? ?i ?{CANNOT}|that)",
    rf"unfortunately,? i ?{CANNOT}",
    r"i must (respectfully |politely )?decline|i have to decline",
    rf"as an ai( language)?( model| assistant)?,? i ?({CANNOT}|do not|don't|am not|'m not)",
    # Chinese, Japanese, Korean
    r"((非常|很|十分)?抱歉|对不起|對不起|不好意思)[，,。！! ]{0,2}.{0,24}(无法|無法|不能|没法|沒法|没有办法)",
    r"(作为|作為).{0,16}(AI|人工智能|人工智慧|助手|模型).{0,16}(无法|無法|不能)",
    r"我(无法|無法|不能|没法)(帮助|幫助|协助|協助|提供|回答|满足|滿足|完成|为您|為您|处理|處理)",
    r"(大変)?(申し訳(ありません|ございません|ない)|すみません|恐れ入ります).{0,60}(できません|できかねます|致しかねます|いたしかねます)",
    r".{0,30}(お手伝い|お答え|回答|対応).{0,8}(できません|できかねます)",
    r"(죄송|미안).{0,60}(수 없|어렵|못)",
    # German, Dutch, French, Spanish, Portuguese, Italian
    r"(es )?tut mir (sehr )?leid,? .{0,20}(kann|darf|werde)|(entschuldigung|verzeihung),? .{0,20}(kann|darf) ich",
    r"leider (kann|darf|ist es mir nicht) ",
    r"ich (kann|darf) .{0,40}(nicht|keine) (helfen|behilflich|beantworten|bereitstellen|erfüllen|weiterhelfen|geben)",
    r"(het spijt me|sorry|helaas),? .{0,12}(ik kan|kan ik)",
    r"(je suis )?(vraiment )?désolée?,? .{0,12}je ne (peux|suis|pourrai)|malheureusement,? je ne (peux|suis)",
    r"je ne (peux|suis) pas (en mesure de |capable de )?(vous |t'|te )?(aider|répondre|fournir|accéder|satisfaire)",
    r"(lo siento|lamentablemente|lo lamento|disculpa|perdón),? .{0,12}no (puedo|me es posible|me resulta)",
    r"no puedo (ayudar|proporcionar|responder|cumplir|hacer eso|realizar|ofrecer)",
    r"(desculpe|sinto muito|lamento|infelizmente),? .{0,16}não (posso|consigo|é possível)",
    r"não (posso|consigo) (ajudar|fornecer|responder|atender|cumprir)",
    r"(mi dispiace|purtroppo|spiacente),? .{0,12}non (posso|sono in grado)",
    r"non posso (aiutar|fornir|risponder|soddisfar|esaudir)",
    # Russian, Ukrainian, Polish, Czech, Turkish, Arabic, Vietnamese, Indonesian
    r"(извините|простите|к сожалению|прошу прощения|мне жаль),? .{0,20}не (могу|в состоянии)",
    r"я не могу (помочь|выполнить|предоставить|ответить)",
    r"(вибачте|на жаль|перепрошую),? .{0,20}не можу",
    r"(przepraszam|przykro mi|niestety),? .{0,20}nie mogę|nie mogę (pomóc|odpowiedzieć|spełnić|udzielić)",
    r"(omlouvám se|bohužel|je mi líto),? .{0,20}(nemohu|nemůžu)",
    r"(üzgünüm|maalesef|özür dilerim),? .{0,60}(mıyorum|miyorum|muyorum|müyorum|amam|emem)",
    r"(عذراً|عذرا|آسف|أعتذر|للأسف).{0,30}(لا أستطيع|لا يمكنني|لن أتمكن)",
    r"(xin lỗi|rất tiếc),? .{0,20}không thể",
    r"(maaf|mohon maaf),? .{0,20}tidak (bisa|dapat)",
)
REFUSAL = re.compile("|".join(f"({one})" for one in BEGINNINGS), re.IGNORECASE)
# "I can't see them, but this user likes ..." is an answer.
GOES_ON = re.compile(
    r"\b(but|however|that said|nevertheless),? (here|based|from|judging|given|the (user|person|viewer|reader|customer)"
    r"|this (user|person|viewer|reader|customer)|they|it (seems|appears|looks)|i can (say|see|tell|infer|note))",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Whether a short text begins by declining and does not go on to answer.

    Example:
        >>> is_refusal("I can't help but notice the westerns."), is_refusal("Es tut mir leid, das kann ich nicht.")
        (False, True)
    """
    straight = text.replace("’", "'").lstrip("\"'*“„«¡ \n")
    if len(text) > REFUSAL_CHARS or REFUSAL.match(straight) is None:
        return False
    return GOES_ON.search(straight) is None
