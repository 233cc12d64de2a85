"""Scores class by class, for tables."""


def name_rows(classes, columns):
    """{class name: {column: number}} in order of label; the second class of a name, as ImageNet has one, is told by "#" and its label.

    columns: {column: array [C]}.
    """
    rows = {}
    for i, name in enumerate(classes):
        rows[f"{name} #{i}" if name in rows else name] = {column: values[i].item() for column, values in columns.items()}
    return rows
