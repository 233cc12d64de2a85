"""Rows of figures as markdown, for people."""

COMMON = (
    "benchmark",
    "options",
    "versions",
    "machine",
    "load",
)  # said once for the whole report, or in the command line
MOST_COLUMNS = 9


def rows_as_markdown(rows):
    """Lines of a table of json rows. What is equal in several rows stands once above it; few long rows are laid on their side."""
    columns = list(dict.fromkeys(name for row in rows for name in row if name not in COMMON))
    same = [
        name
        for name in columns
        if len(rows) > 1 and all(row.get(name) == rows[0].get(name) for row in rows)
    ]
    columns = [name for name in columns if name not in same]
    lines = (
        [
            "In all rows: "
            + ", ".join(f"{name} {shown(rows[0].get(name))}" for name in same)
            + ".",
            "",
        ]
        if same
        else []
    )
    cells = [[shown(row.get(name)) for name in columns] for row in rows]
    if len(columns) > MOST_COLUMNS and len(rows) < len(columns):
        head, *body = [list(line) for line in zip(columns, *cells, strict=True)]
        return lines + table(head, body)
    return lines + table(columns, cells)


def table(head, body):
    """Lines of a markdown table of texts."""
    return [line_of(head), line_of(["---"] * len(head)), *map(line_of, body)]


def line_of(cells):
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def shown(value):
    """A value of a json row as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return " to ".join(map(shown, value)) if len(value) == 2 else ", ".join(map(shown, value))
    return str(value)
