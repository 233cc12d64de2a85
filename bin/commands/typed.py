"""What was typed, put to use. No torch before it is needed."""

from visionloop.engine.config import check_value, fields_of


def given_settings(config_class, names, options):
    """{name: value} of the settings that were typed, taken out of `options`. Raises UserError for a value out of its range."""
    fields = fields_of(config_class)
    given = {name: value for name in names if (value := options.pop(name)) is not None}
    for name, value in given.items():
        check_value(name, *fields[name], value)
    return given


def use_threads(count):
    """Compute with so many threads; None: as many as torch takes by itself."""
    if count:
        import torch

        torch.set_num_threads(count)
