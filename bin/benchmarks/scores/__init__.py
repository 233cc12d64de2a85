"""What `evaluation` measures: each metric beside other implementations, and an evaluation part by part."""
