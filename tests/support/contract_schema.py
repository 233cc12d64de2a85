"""The schema of the platform contract."""

import json
from pathlib import Path

from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "bin/platform_contract/schema.json").read_text())


def validator_of(kind):
    """Return the validator of one of the kinds of objects."""
    return Draft202012Validator({"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]})


def fits(kind, value):
    """Return an object that is of this kind; raise ValidationError for another one."""
    validator_of(kind).validate(value)
    return value
