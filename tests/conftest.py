"""Selection of tests: slow ones, and those that need special equipment, only on request."""

import hypothesis
import pytest

# no test is timed: a loaded machine takes many times as long for an example
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

SPECIAL = ("soak", "cluster", "browser", "gpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all", action="store_true", help=f"also run the tests marked {', '.join(SPECIAL)}"
    )
    parser.addoption(
        "--gpu-minutes",
        type=float,
        help="skip the tests of a GPU that would start later than so many minutes",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect special tests, unless `--all` is given or `-m` names their mark."""
    if config.getoption("--all"):
        return
    expression = config.getoption("-m")
    left_out = [mark for mark in SPECIAL if mark not in expression]
    selected, deselected = [], []
    for item in items:
        is_left_out = any(item.get_closest_marker(mark) for mark in left_out)
        (deselected if is_left_out else selected).append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = selected
