"""Rules that no tool checks: direction of imports, length of files, docstrings."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "engine": {"engine"},
    "datasets": {"datasets"},
    "metrics": {"metrics"},
    "tasks": {"tasks", "datasets", "metrics", "engine"},
    "bin": {"bin", "tasks", "datasets", "metrics", "engine"},
}
# Files and packages of the engine, the lowest first: each imports at run time from rows above its
# own alone. An import for annotations (under TYPE_CHECKING) may point the other way.
ENGINE_LEVELS = (
    ("batch", "errors", "seeding", "tensors", "types"),
    ("augmentation", "optim"),
    (
        "determinism",
        "distributed",
        "ema",
        "grad_checkpointing",
        "lr_schedule",
        "metric",
        "nonfinite",
        "precision",
    ),
    ("system",),
    ("config",),
    ("sharding",),
    ("task",),
    ("data",),
    ("checkpoints", "predict"),
    ("budget",),
    ("evaluation",),
    ("logging",),
    ("run",),
    ("out_of_memory",),
    ("branches", "prepare", "step"),
    ("loop",),
    ("autotune",),
    ("beginning",),
    ("train",),
    ("testing",),
)
# The same for the studio. A launcher makes the command of a job: these two are one level.
STUDIO_LEVELS = (
    ("config", "problems"),
    ("security",),
    ("runs",),
    ("tables",),
    ("jobs", "launchers"),
    ("inference",),
    ("studio",),
    ("api",),
    ("app",),
    ("serve",),
)
# Its services know no web framework: pydantic describes what they return, Starlette's responses
# carry streams and bytes.
KNOW_FASTAPI = ("bin/web/api/", "bin/web/app.py", "bin/web/problems.py")
TASKS = ("classification", "detection", "segmentation", "super_resolution")
# The engine, the data and the metrics work with any network; these alone know transformers.
MAY_IMPORT_TRANSFORMERS = ("tasks/", "bin/benchmarks/", "bin/models", "bin/commands/models")
# What the product is an alternative to, or never reads: they may stand in the side-by-side
# benchmark alone.
BANNED_MODULES = {
    "accelerate",
    "lightning",
    "pytorch_lightning",
    "timm",
    "pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
}
SIDE_BY_SIDE = ("bin/benchmarks/peers/trainer_", "bin/benchmarks/peers/timm_")
# a process of its own: `models convert-weights` starts it and imports nothing of it
OPENS_PICKLES = "bin/model_zoo/pickle_process.py"
LONGEST_FILE, LONGEST_LOOP = 400, 90
# the summary line of a docstring is a noun phrase or an imperative sentence
REFUSED_FIRST_WORDS = ("What", "Which", "How", "Whether", "Where")


def read(path):
    return path.read_text(encoding="utf-8")


def name_of(path):
    return path.relative_to(ROOT).as_posix()


PRODUCT = sorted(
    path
    for folder in MAY_IMPORT
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)
TREES = {name_of(path): ast.parse(read(path), filename=name_of(path)) for path in PRODUCT}


def imports(tree):
    """Yield (line, full name) of everything that is imported anywhere in a file.

    `from a import b` gives a.b, because b may be a module.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in (
            "import_module",
            "__import__",
            "import_optional",
        ):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, first.value


def called(call):
    """Return the last word of what is called: `a.b.c()` -> c."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def is_in(name, module):
    return name == module or name.startswith(module + ".")


def wrong_imports(is_wrong, but=()):
    """Return ["file:line: name"] of the imports for which `is_wrong(file, name)` is true.

    but: beginnings of the file names that are left out.
    """
    return [
        f"{file}:{line}: {name}"
        for file, tree in TREES.items()
        if not file.startswith(tuple(but))
        for line, name in imports(tree)
        if is_wrong(file, name)
    ]


def nodes(kind, but=()):
    """Return (file, node) of every syntax node of a kind."""
    return [
        (file, node)
        for file, tree in TREES.items()
        if not file.startswith(tuple(but))
        for node in ast.walk(tree)
        if isinstance(node, kind)
    ]


def test_imports_follow_the_direction():
    assert (
        wrong_imports(
            lambda file, name: (
                is_in(name, "visionloop")
                and name.split(".")[1] not in MAY_IMPORT[file.split("/")[0]]
            )
        )
        == []
    )


def without_annotations(tree):
    """Return the tree without the blocks under `if TYPE_CHECKING:`."""

    class Remover(ast.NodeTransformer):
        def visit_If(self, node):
            return None if ast.unparse(node.test).endswith("TYPE_CHECKING") else node

    return Remover().visit(ast.parse(ast.unparse(tree)))


def upward_imports(folder, levels):
    """Return ["file: name"] of the imports of a part of a folder from a part above it."""
    level_of = {name: level for level, names in enumerate(levels) for name in names}
    package = "visionloop." + folder.replace("/", ".")
    depth, wrong = folder.count("/") + 1, []
    for file, tree in TREES.items():
        if not file.startswith(f"{folder}/") or file == f"{folder}/__init__.py":
            continue
        part = file.split("/")[depth].removesuffix(".py")
        for _, name in imports(without_annotations(tree)):
            other = name.split(".")[depth + 1] if is_in(name, package) else part
            is_below = level_of[other] < level_of[part]
            if other != part and not is_below and {other, part} != {"jobs", "launchers"}:
                wrong.append(f"{file}: {name}")
    return wrong


def test_the_engine_imports_downwards():
    assert upward_imports("engine", ENGINE_LEVELS) == []


def test_the_studio_imports_downwards():
    assert upward_imports("bin/web", STUDIO_LEVELS) == []
    studio = [file for file in TREES if file.startswith("bin/web/")]
    assert (
        wrong_imports(
            lambda file, name: file in studio and is_in(name, "fastapi"), but=KNOW_FASTAPI
        )
        == []
    )


def test_no_task_imports_another():
    def is_wrong(file, name):
        folder, own, *_ = file.split("/")
        others = [f"visionloop.tasks.{other}" for other in TASKS if other != own]
        return folder == "tasks" and own in TASKS and any(is_in(name, other) for other in others)

    assert wrong_imports(is_wrong) == []


def test_imports_of_ours_have_their_full_name():
    assert wrong_imports(lambda file, name: name.startswith(".")) == []
    assert (
        wrong_imports(lambda file, name: name.split(".")[0] in MAY_IMPORT, but=SIDE_BY_SIDE) == []
    )


def test_transformers_stays_in_the_tasks():
    assert (
        wrong_imports(lambda file, name: is_in(name, "transformers"), but=MAY_IMPORT_TRANSFORMERS)
        == []
    )


def test_datasets_and_metrics_know_no_ranks():
    files = [file for file in TREES if file.startswith(("datasets/", "metrics/"))]
    assert (
        wrong_imports(lambda file, name: file in files and is_in(name, "torch.distributed")) == []
    )
    assert [file for file in files if "torch.distributed" in read(ROOT / file)] == []


def test_nothing_trains_for_us():
    def is_wrong(file, name):
        return name.split(".")[0] in BANNED_MODULES or name.split(".")[-1] == "Trainer"

    assert wrong_imports(is_wrong, but=SIDE_BY_SIDE) == []


def test_images_are_decoded_in_one_place():
    """torchvision.io is deprecated; what decodes JPEG otherwise may turn it otherwise, too."""
    here = {"datasets/io/images.py", "datasets/super_resolution/degradations.py"}
    assert wrong_imports(lambda file, name: is_in(name, "torchvision.io")) == []
    assert wrong_imports(lambda file, name: is_in(name, "simplejpeg"), but=here) == []


def test_nothing_read_can_run_code():
    wrong = [
        f"{file}:{node.lineno}: torch.load"
        for file, node in nodes(ast.Attribute)
        if ast.unparse(node) == "torch.load" and file != OPENS_PICKLES
    ]
    wrong += wrong_imports(lambda file, name: name == "torch.load")
    for file, node in nodes(ast.keyword):
        is_false = isinstance(node.value, ast.Constant) and node.value.value is False
        if node.arg in ("trust_remote_code", "allow_pickle") and not is_false:
            wrong.append(f"{file}:{node.value.lineno}: {node.arg}")
    assert wrong == []


def test_the_one_process_that_opens_pickles_builds_nothing_but_tensors():
    calls = [
        {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        for file, node in nodes(ast.Call)
        if file == OPENS_PICKLES and ast.unparse(node.func) == "torch.load"
    ]
    assert len(calls) == 1 and calls[0]["weights_only"] == calls[0]["mmap"] == "True"
    module = OPENS_PICKLES.removesuffix(".py").replace("/", ".")
    assert wrong_imports(lambda file, name: is_in(name, f"visionloop.{module}")) == []


def test_models_are_read_from_safetensors_only():
    wrong = []
    for file, node in nodes(ast.Call):
        # AutoConfig, AutoImageProcessor, config_class, ...: these read json
        if called(node) != "from_pretrained" or re.search(
            r"config|processor", ast.unparse(node.func.value), re.IGNORECASE
        ):
            continue
        values = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if values.get("use_safetensors") != "True":
            wrong.append(f"{file}:{node.lineno}: from_pretrained without use_safetensors=True")
    assert wrong == []


def test_files_are_short_and_named_by_a_noun():
    lengths = {file: len(read(ROOT / file).splitlines()) for file in TREES}
    assert {file: length for file, length in lengths.items() if length > LONGEST_FILE} == {}
    assert [
        file
        for file in TREES
        if Path(file).stem in ("utils", "util", "misc", "common", "helpers", "helper")
    ] == []


def test_nothing_is_left_to_do():
    assert [file for file in TREES if re.search(r"\b(TODO|FIXME|XXX)\b", read(ROOT / file))] == []


def test_the_loop_fits_on_a_screen():
    assert len(read(ROOT / "engine/loop.py").splitlines()) <= LONGEST_LOOP


def test_docstrings_do_not_begin_with_a_question_word():
    wrong = []
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                first_word = (ast.get_docstring(node) or "").split(" ")[0]
                if first_word in REFUSED_FIRST_WORDS:
                    wrong.append(f"{file}: {getattr(node, 'name', 'the module')}: {first_word} ...")
    assert wrong == []


def test_public_functions_and_classes_have_docstrings():
    """Modules, classes, and functions longer than three lines, outside the launchers."""
    wrong = []
    for file, tree in TREES.items():
        # an empty __init__.py has nothing to describe
        for node in (tree, *tree.body) if tree.body else ():
            name = getattr(node, "name", "the module")
            is_function = isinstance(node, ast.FunctionDef)
            is_short = is_function and node.end_lineno - node.lineno <= 3
            if is_function and "overload" in [ast.unparse(one) for one in node.decorator_list]:
                continue
            if (
                not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
                or name.startswith("_")
                or file.startswith("bin/")
            ):
                continue
            text = ast.get_docstring(node)
            if text is None and not is_short:
                wrong.append(f"{file}: {name} has no docstring")
            elif text and not text.splitlines()[0].endswith("."):
                wrong.append(f"{file}: {name}: {text.splitlines()[0]!r} is no sentence")
    assert wrong == []


def test_tests_have_unique_names_and_are_no_packages():
    tests = [path for path in (ROOT / "tests").rglob("*.py") if "__pycache__" not in path.parts]
    assert [name_of(path) for path in tests if path.name == "__init__.py"] == []
    # conftest.py is pytest's own name and may stand in every folder
    counts = Counter(path.name for path in tests if path.name != "conftest.py")
    assert [name for name, number in counts.items() if number > 1] == []


def test_no_file_names_a_folder_of_somebodys_machine():
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("no git checkout: what belongs to the project is not known")
    machine_path = re.compile(
        r"(?<![\w./}~$-])/(" + "|".join(("work", "root", "home")) + r")(?![\w-])"
    )
    violations = []
    for name in sorted(filter(None, listing.stdout.split("\0"))):
        try:
            lines = read(ROOT / name).splitlines()
        except (
            UnicodeDecodeError,
            FileNotFoundError,
        ):  # an image; a file that is deleted but not yet committed so
            continue
        violations += [
            f"{name}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(lines, 1)
            if machine_path.search(line)
        ]
    assert violations == []
