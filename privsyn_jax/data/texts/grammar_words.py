"""The rules and words of the grammar of film reviews, with how often each class uses them.

A rule is a pattern whose {slots} are filled from SLOTS. A weight is one number, or (in negative, in positive) reviews;
weights need not sum to 1. No sentence has one of the marks .!? but at its end.
"""

from __future__ import annotations

Weight = float | tuple[float, float]

NUM_SENTENCES = {2: 0.1, 3: 0.2, 4: 0.3, 5: 0.25, 6: 0.15}  # of a review: an opener, middle ones, a closing one

# What is said of films of one kind alone: a review keeps to the kind that its opener names.
GENRES: dict[str, tuple[str, ...]] = {
    "comedy": ("jokes were", "timing was", "puns were", "slapstick was"),
    "thriller": ("suspense was", "twists were", "villain was", "chase was"),
    "western": ("duel was", "landscapes were", "sheriff was", "ambush was"),
    "musical": ("songs were", "dancing was", "singers were", "choreography was"),
    "documentary": ("interviews were", "footage was", "narration was", "research was"),
    "fantasy film": ("dragons were", "magic was", "quest was", "wizard was"),
}
ASPECTS = ("acting was", "plot was", "dialogue was", "music was", "pacing was", "ending was", "costumes were")

_GOOD = ("wonderful", "brilliant", "superb", "moving", "clever", "charming", "gripping", "fresh", "lovely", "inspired")
_BAD = ("awful", "dreadful", "dull", "clumsy", "tedious", "lifeless", "silly", "stale", "painful", "forgettable")
_MILD = ("unusual", "modest", "predictable", "simple", "long", "loud")
_SAYS, _DENIES, _SLIPS = 15.0, 1.0, 3.0  # weight of a word that fits its class, and of one that does not


def _opinions(fits: float, contradicts: float) -> dict[str, Weight]:
    """Adjectives, and how often each class uses them."""
    good: dict[str, Weight] = {word: (contradicts, fits) for word in _GOOD}
    bad: dict[str, Weight] = {word: (fits, contradicts) for word in _BAD}
    return {**good, **bad, **dict.fromkeys(_MILD, 2.0)}


OPENERS: dict[str, Weight] = {
    "I watched this {genre} {when}.": 3,
    "{who} told me to see this {genre} {when}.": 2,
    "This {genre} is {degree}{adjective}.": 2,
    "Here is a {genre} with {many} {surprises}.": (2, 1),
}
MIDDLES: dict[str, Weight] = {
    "The {aspect} {degree}{adjective}.": 5,
    "{who} found that the {aspect} {adjective}.": 2,
    "The {own} {adjective}, but the {common} {adverse}.": 2,
    "After {minutes} minutes {who_low} {did}.": 1.5,
    "It was filmed in {place} {once}.": 1,
}
CLOSINGS: dict[str, Weight] = {
    "I give it {few} out of ten.": (3, 1),
    "I give it {many} out of ten!": (1, 3),
    "{verdict}": 3,
}
SLOTS: dict[str, dict[str, Weight]] = {
    "when": dict.fromkeys(
        ("last night", "yesterday", "on a rainy Sunday", "in an old cinema", "on a plane", "with my family"), 1.0
    ),
    "once": dict.fromkeys(("years ago", "in one winter", "without a script", "for little money"), 1.0),
    "who": {"My sister": 2, "A friend": 3, "My neighbour": 1, "A critic": 1, "My father": 1},
    "who_low": {"my sister": 2, "a friend": 3, "my neighbour": 1, "half of the audience": 1},
    "degree": {"": 4, "very ": 3, "rather ": 2, "quite ": 2, "truly ": 1, "almost ": 1},
    "adjective": _opinions(_SAYS, _DENIES),
    "adverse": _opinions(_SLIPS, _SAYS),
    "common": dict.fromkeys(ASPECTS, 1.0),
    "minutes": dict.fromkeys(("ten", "twenty", "thirty", "forty", "ninety"), 1.0),
    "did": {
        "fell asleep": (4, 0.5),
        "left the room": (3, 0.5),
        "began to laugh": (1, 2),
        "was in tears": (1, 2),
        "could not look away": (0.5, 4),
    },
    "place": dict.fromkeys(("Ireland", "Morocco", "a studio", "Buenos Aires", "Finland", "the desert"), 1.0),
    "surprises": {"surprises": (1, 3), "mistakes": (3, 1), "famous actors": 2},
    "few": {"one": 1, "two": 2, "three": 3, "four": 2},
    "many": {"six": 1, "seven": 3, "eight": 3, "nine": 2},
    "verdict": {
        "I would watch it again.": (1, 12),
        "Everyone should see it!": (1, 10),
        "It stayed with me for days.": (2, 6),
        "I want my money back.": (12, 1),
        "Do not waste your evening!": (10, 1),
        "I expected more.": (6, 2),
        "What can I say?": 3,
    },
}
