"""Suggestions for mistyped words."""

import difflib
from collections.abc import Iterable

SYNONYMS = {"gpu": "cuda"}  # words whose spelling resembles another valid word than the one meant


def did_you_mean(word: object, valid_words: Iterable[object]) -> str:
    """Return "; did you mean NAME?" for the valid word most similar to this one, "" if none is."""
    by_lower_case = {str(name).lower(): str(name) for name in valid_words}
    typed = str(word).lower()
    close = difflib.get_close_matches(SYNONYMS.get(typed, typed), by_lower_case, n=1, cutoff=0.6)
    return f"; did you mean {by_lower_case[close[0]]}?" if close else ""
