"""Which rows of a trained head belong to the classes of new data."""

import re


def match_classes(known, wanted):
    """{row wanted: row known} of the names that are the same but for capitals, spaces, hyphens and underscores."""
    row_of = {_plain(name): i for i, name in enumerate(known or ())}
    return {i: row_of[_plain(name)] for i, name in enumerate(wanted) if _plain(name) in row_of}


def _plain(name):
    return re.sub(r"[\s_-]+", "", str(name)).lower()
