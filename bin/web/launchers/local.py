"""The local launcher: one process on this machine."""

from visionloop.bin.web.jobs.devices import gpus
from visionloop.bin.web.jobs.spec import JobSpec, python_command
from visionloop.bin.web.launchers.launch import Launch, LocalOptions


def local_launch(spec: JobSpec, options: LocalOptions) -> Launch:
    """Return the task's command on one GPU, or on the CPU."""
    command = python_command(spec.task, *spec.words)
    if options.devices:
        return Launch(command, environment=visible_devices(options.devices))
    return Launch((*command, *cpu_words(spec)))


def visible_devices(devices: list[int]) -> dict[str, str]:
    """Return the variable that leaves these GPUs alone to a command, by index as nvidia-smi."""
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices)),
    }


def cpu_words(spec: JobSpec) -> tuple[str, ...]:
    """Return the option that keeps a command off the GPUs of this machine, where it has any."""
    has_device = any(word.partition("=")[0] == "--device" for word in spec.options)
    return () if has_device or not gpus() else ("--device", "cpu")
