"""Figures for people."""

import click


def print_table(rows):
    """Lines of aligned columns. rows: [{column: value}], the columns of the first; numbers to the right."""
    columns = list(rows[0])
    cells = [[shown(row[column]) for column in columns] for row in rows]
    widths = [
        max(len(column), *(len(row[at]) for row in cells)) for at, column in enumerate(columns)
    ]
    numeric = [all(is_number(row[column]) for row in rows) for column in columns]
    for line in (columns, *cells):
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def print_figures(figures):
    """One line a figure."""
    for name, value in figures.items():
        click.echo(f"{name:24} {shown(value)}")


def shown(value):
    return "-" if value is None else str(value)


def is_number(value):
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
