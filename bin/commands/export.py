"""`export`, the same for every task."""

import json

from visionloop.bin.commands.output import whole_folder

REPORT = "export.json"


def run_export(task_class, *, model, output, onnx):
    """Write the Hugging Face folder of a trained model, with its card; load it back and compare every weight."""
    task, module = task_class.load_trained(model)
    with whole_folder(output, REPORT) as folder:
        done = task.export(module, folder, onnx=onnx)
        written, again = module.state_dict(), task_class.load_trained(folder)[1].state_dict()
        assert written.keys() == again.keys(), "export changed the names of weights"
        assert all(tensor.equal(again[name]) for name, tensor in written.items()), (
            "export changed a weight"
        )
        done = [f"{len(written)} tensors read back bit for bit", *done]
        (folder / REPORT).write_text(
            json.dumps({"schema": 1, "task": task.name, "checks": done}, indent=1) + "\n"
        )
    print("\n".join([f"exported to {output}", *done]))
