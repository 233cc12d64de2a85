"""What a mistyped word was probably meant to be."""

import difflib

SYNONYMS = {"gpu": "cuda"}  # words that look like another one than they mean


def did_you_mean(word, known):
    """ "; did you mean NAME?" for the known word most like this one, "" where none is."""
    lower = {str(name).lower(): str(name) for name in known}
    typed = str(word).lower()
    close = difflib.get_close_matches(SYNONYMS.get(typed, typed), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else ""
