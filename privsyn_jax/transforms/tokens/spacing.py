"""When a space is taken to stand before a word or a mark: one rule, which writing and reading texts share.

What follows is known from what came before, so a text needs a token for a space only where this rule is wrong.
"""

from __future__ import annotations

# Styles: how a unit sits between its neighbours. A piece goes on with the word before it.
WORD, CLOSE, OPEN, JOIN, QUOTE, APOSTROPHE, BREAK, PIECE = range(8)

# Close: no space before. Open: a space before, none after. Join: none before, and none after unless there was one
# before. Quotes: open and close in turn, each for itself; a space before one means that it opens. Break: a line's end.
MARKS: dict[str, int] = {
    **dict.fromkeys((".", ",", "!", "?", "'s", ":", ";", ")", "...", "%", "]", "}", ">", "”", "…"), CLOSE),
    **dict.fromkeys(("(", "[", "{", "<", "$", "#", "“", "‘"), OPEN),
    **dict.fromkeys(("-", "/", "&", "*", "--", "–", "—", "’", "+", "=", "_", "@", "~", "|", "\\", "^", "`"), JOIN),
    '"': QUOTE,
    "'": APOSTROPHE,
    **dict.fromkeys(("<br />", "\n", "\t"), BREAK),
}

GLUED, QUOTED, APOSTROPHED = 1, 2, 4  # bits of a state: no space is taken to follow; an open quote of either sort
START = GLUED

_OPENED = {QUOTE: QUOTED, APOSTROPHE: APOSTROPHED}


def _expects(state: int, style: int) -> bool:
    """Whether a space is taken to stand before a unit."""
    if state & GLUED:
        return False
    return style in (WORD, OPEN) or (style in _OPENED and not state & _OPENED[style])


def _follow(state: int, style: int, space: bool) -> int:
    """The state after a unit that had or had not a space before it."""
    free = not space and not state & GLUED
    if style in _OPENED:
        opens = not free
        others = state & ~GLUED & ~_OPENED[style]
        return others | (_OPENED[style] | GLUED if opens else 0)
    glues = style in (OPEN, BREAK) or (style == JOIN and not space)
    return state & ~GLUED | (GLUED if glues else 0)


_STATES, _STYLES = range(8), range(8)

# Tables of the two: EXPECTS[state][style], and FOLLOW[state][style][whether there was a space].
EXPECTS = tuple(tuple(_expects(state, style) for style in _STYLES) for state in _STATES)
FOLLOW = tuple(
    tuple((_follow(state, style, False), _follow(state, style, True)) for style in _STYLES) for state in _STATES
)
