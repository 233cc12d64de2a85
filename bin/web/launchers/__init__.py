"""Ways to start a job: on this machine, in a container, on a cluster."""
