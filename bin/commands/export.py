"""`export`, the same for every task: a Hugging Face folder with a model card."""

import json

from visionloop.bin.commands.output import output_folder
from visionloop.engine.task import Task
from visionloop.tasks.operating_point import copy_to_card

REPORT = "export.json"


def run_export(task_class: type[Task], *, model: str, output: str, onnx: bool) -> None:
    """Write the folder of a trained model, load it back and compare every weight.

    onnx: also write model.onnx. Raises UserError for a model that cannot be read.
    """
    task, module = task_class.load_trained(model)
    with output_folder(output, REPORT) as folder:
        checks = task.export(module, folder, onnx=onnx)
        copy_to_card(folder)
        written, read = module.state_dict(), task_class.load_trained(folder)[1].state_dict()
        assert written.keys() == read.keys(), "export changed the names of weights"
        changed = [name for name, tensor in written.items() if not tensor.equal(read[name])]
        assert not changed, f"export changed the weights {changed}"
        checks = [f"{len(written)} tensors read back bit for bit", *checks]
        content = {"schema": 1, "task": task.name, "checks": checks}
        (folder / REPORT).write_text(json.dumps(content, indent=1) + "\n")
    print("\n".join([f"exported to {output}", *checks]))
