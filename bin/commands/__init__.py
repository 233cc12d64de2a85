"""The commands that the launchers of all tasks share: train, evaluate, predict, check, export."""
