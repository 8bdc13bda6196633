"""Container names: their grammar, and random ones when the user gives none.

Docker pairs an adjective with a surname; ours pairs one with a person of seafaring, exploration or
computing. A number is appended when the pair is taken.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from sampan.errors import InvalidArgument

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")

_ADJECTIVES = (
    "able airy ample balmy bold brave breezy bright brisk buoyant calm candid clever coastal coral cosy "
    "crisp daring deft dewy eager early earnest easy fair fearless festive fleet fluent fond frank free "
    "fresh gallant gentle glad golden graceful hardy hearty honest humble jaunty jolly keen kind leeward "
    "limber lively loyal lucid lucky mellow merry mild misty modest neat nimble noble patient placid "
    "plucky polite proud quick quiet ready robust rosy rugged salty sandy serene sharp shiny silent silver "
    "smooth snug sober solid spry stable starry steady sturdy subtle sunny swift tender tidal tidy "
    "tranquil trusty upbeat valiant vivid warm watchful wavy windward wise witty zesty"
)
_SURNAMES = (
    "allen amundsen anning babbage backus baret beaufort bellingshausen blackwell boole bowditch "
    "cabot cartier chichester colvin conway cook cousteau dampier darwin dijkstra drake earle easley "
    "ericson feinler fitzroy floyd flinders franklin gama goldberg graham hall halley hamilton harrison "
    "heyerdahl hoare holberton hopper hudson humboldt johnson kapitsa karpinsky kay kernighan knuth "
    "lamport lenoir liskov lovelace magellan maury mayer mccarthy meitner mercator milner moitessier "
    "montessori nansen naur neumann noether noyce perlis perlman piccard polo ptolemy ritchie sammet "
    "shackleton shannon slocum spinola stibitz sutherland tabarly tasman tharp thompson torvalds turing "
    "vespucci wallis watt wilkes wirth xheng yonath zheng zuse"
)


def check(name: str) -> str:
    """``name`` without its leading slash; InvalidArgument in Docker's words when it is malformed."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")


def generate(taken: Callable[[str], bool], choice: random.Random) -> str:
    """A name for which ``taken`` is false. Tries pairs first, then pairs with a growing number."""
    adjectives, surnames = _ADJECTIVES.split(), _SURNAMES.split()
    for attempt in range(8):
        pair = f"{choice.choice(adjectives)}_{choice.choice(surnames)}"
        name = pair if attempt < 5 else f"{pair}{choice.randrange(10 ** (attempt - 4))}"
        if not taken(name):
            return name
    number = 0
    while taken(f"{pair}{number}"):
        number += 1
    return f"{pair}{number}"
