"""`completion`: what a shell needs to complete the installed command. No torch here: a shell asks at every key press."""

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS = ("bash", "zsh", "fish")
INSTALL = {
    "bash": 'eval "$({program} completion bash)" in ~/.bashrc',
    "zsh": 'eval "$({program} completion zsh)" in ~/.zshrc, after compinit',
    "fish": "{program} completion fish | source in ~/.config/fish/config.fish",
}
PATHS = {
    "data": "dir", "output": "dir", "run": "dir", "model": "dir", "resume": "dir", "input_path": "file", "predictions": "file",
    "config_file": "file", "lpips_weights": "file",
}  # fmt: skip


class PathText(click.types.StringParamType):
    """A text that a shell completes to files or folders."""

    def __init__(self, kind):
        self.kind = kind

    def shell_complete(self, ctx, param, incomplete):
        return [CompletionItem(incomplete, type=self.kind)]


def program_of(group_name):
    """What the commands of a task are installed as."""
    return f"visionloop-{group_name.replace('_', '-')}"


def add_completion(group):
    """Give a group the command `completion`, and all its commands options that complete to paths."""
    for command in group.commands.values():
        for param in command.params:
            if param.name in PATHS and param.type is click.STRING:
                param.type = PathText(PATHS[param.name])
    program = program_of(group.name)

    @click.command("completion", short_help="Print what a shell needs to complete this command.")
    @click.argument("shell", type=click.Choice(SHELLS))
    def completion(shell):
        complete_var = f"_{program.replace('-', '_').upper()}_COMPLETE"  # the one that click looks for
        click.echo(get_completion_class(shell)(group, {}, program, complete_var).source())

    completion.help = "Print what a shell needs to complete this command. Put\n\n\b\n" + "\n".join(
        line.format(program=program) for line in INSTALL.values()
    )
    group.add_command(completion)
