"""The scripts of a report as ES modules, and as one script in the page."""

import re

from visionloop.bin.reports.page import EXPORT, HERE, IMPORT, SCRIPTS, script_of

TOP_LEVEL = re.compile(r"^(?:async )?(?:function|const|let|class) (\w+)", re.MULTILINE)
FURTHER = re.compile(r"^const .*$", re.MULTILINE)


def texts():
    return {name: (HERE / name).read_text() for name in SCRIPTS}


def exported(text):
    """Names that a module exports."""
    own = re.findall(r"^export (?:async )?(?:function|const) (\w+)", text, re.MULTILINE)
    passed_on = re.findall(r'^export \{ (.*) \} from "', text, re.MULTILINE)
    return {*own, *(name for names in passed_on for name in names.split(", "))}


def test_every_line_of_a_module_has_a_form_that_the_page_can_take_out():
    for name, text in texts().items():
        for line in text.splitlines(keepends=True):
            if re.match(r"\s*(import|export)\b", line):
                assert IMPORT.fullmatch(line) or EXPORT.match(line), (name, line)
        assert not re.search(r"^\s*(import|export)\b", script_of(name), re.MULTILINE)


def test_a_module_imports_what_others_export_and_no_file_that_the_page_lacks():
    for name, text in texts().items():
        for names, file in re.findall(r'^(?:im|ex)port \{ (.*) \} from "\./(.*)";', text, re.M):
            assert file in SCRIPTS, (name, file)
            assert set(names.split(", ")) <= exported((HERE / file).read_text()), (name, file)


def test_no_name_of_a_script_hides_one_of_another():
    owner = {}
    for name in SCRIPTS:
        script = script_of(name)
        found = TOP_LEVEL.findall(script)
        # const A = 1, B = 2;
        found += re.findall(r", ([A-Z_]{2,}) = ", "\n".join(FURTHER.findall(script)))
        for word in found:
            assert word not in owner, (word, name, owner[word])
            owner[word] = name
    assert len(owner) > 80


def test_lines_have_at_most_100_columns():
    for path in (*HERE.glob("*.js"), *HERE.glob("*.css")):
        assert max(map(len, path.read_text().splitlines())) <= 100, path.name
