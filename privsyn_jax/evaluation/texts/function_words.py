"""English words of the closed classes, by the class that each belongs to most often."""

from __future__ import annotations

import string

import numpy as np

TAGS = (
    *("determiner", "pronoun", "preposition", "conjunction", "auxiliary"),
    *("negation", "punctuation", "number", "other"),
)

_WORDS = {
    "determiner": """a an the this these those my your his her its our their whose each every either neither some any
        no all both half such what which another other many much more most few fewer less least several enough own""",
    "pronoun": """i you he she it we they me him us them mine yours hers ours theirs myself yourself himself herself
        itself ourselves yourselves themselves one oneself who whom someone somebody something anyone anybody
        anything everyone everybody everything nobody nothing none there i'm i've i'd i'll you're you've you'd
        you'll he's he'd he'll she's she'd she'll it's it'd it'll we're we've we'd we'll they're they've they'd
        they'll that's who's there's what's here's let's""",
    "preposition": """of in on at by for with from to into onto upon about above across after against along among
        amongst around as before behind below beneath beside besides between beyond despite down during except
        inside like near off out outside over past per since through throughout till toward towards under until up
        via within without""",
    "conjunction": """and but or nor so yet if because although though while whereas unless whether than that when
        whenever where wherever why how once lest whilst""",
    "auxiliary": """am is are was were be been being do does did doing have has had having will would shall should can
        could may might must ought""",
    "negation": """not never cannot can't couldn't don't doesn't didn't isn't aren't wasn't weren't won't wouldn't
        shouldn't haven't hasn't hadn't mustn't mightn't needn't ain't shan't""",
    "number": """zero two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million
        billion first second third fourth fifth""",
}
_TAG_OF = {word: TAGS.index(tag) for tag, words in _WORDS.items() for word in words.split()}
_MARKS = frozenset(string.punctuation + "“”‘…–—")


def tags(vocabulary: np.ndarray) -> np.ndarray:
    """The place in TAGS of every word of a vocabulary, int64 [v]."""
    return np.array([_tag(word) for word in vocabulary], np.int64)


def _tag(word: str) -> int:
    if word in _MARKS:
        return TAGS.index("punctuation")
    return TAGS.index("number") if word.isdigit() else _TAG_OF.get(word, TAGS.index("other"))
