"""Checkpoints of a run by their steps, and damage to their files."""


def step(run, number):
    """Return the folder of the checkpoint after a step."""
    return run / "checkpoints" / f"step_{number:08d}"


def damage(folder, name="model.safetensors"):
    """Change the last byte of a file."""
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
