"""Names matched against patterns with `*`, in time that grows with the name's length and never explodes.

Patterns come from requests. All ways in which a pattern may match are followed at once, one bit each, so that there is
nothing to try again (Baeza-Yates and Gonnet 1992, "A new approach to text searching":
https://doi.org/10.1145/135239.135243).
"""

from functools import lru_cache

MAX_NAMES = 200
"""Names and patterns that one part of a request may list; searches with more pass. Clusters expand 1,024 fields."""

MAX_COMPARISONS = 5_000
"""Of names in a query with enriched fields; searches that need more pass."""

MAX_NAME_LENGTH = 1_000
"""Characters of a name or pattern; searches with longer ones pass."""


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern stands for the whole name; `*` stands for any characters, also for none."""
    states, end = _states(pattern, name)
    return bool(states & end)


def beginning_matches(pattern: str, name: str) -> bool:
    """Whether some beginning of the pattern stands for the whole name."""
    states, _ = _states(pattern, name)
    return states != 0


def _states(pattern: str, name: str) -> tuple[int, int]:
    """The places in the pattern, one bit each, that can be reached by the name, and the bit of its end."""
    places, stars, end = _compiled(pattern)
    states = 1 | (1 & stars) << 1
    for character in name:
        states = (states & places.get(character, 0)) << 1 | states & stars
        states |= (states & stars) << 1
        if not states:
            break
    return states, end


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> tuple[dict[str, int], int, int]:
    """Character → the places where it stands, the places of stars, and the place after the last one."""
    places: dict[str, int] = {}
    stars = place = 0
    previous = ""
    for character in pattern:
        if character == "*" == previous:
            continue  # two stars in a row are one
        if character == "*":
            stars |= 1 << place
        else:
            places[character] = places.get(character, 0) | 1 << place
        place += 1
        previous = character
    return places, stars, 1 << place
