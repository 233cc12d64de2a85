"""Start of a training for programs that start it again: containers, Kubernetes, SLURM."""
