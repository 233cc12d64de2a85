"""The benchmarks behind bin/benchmark.py."""
