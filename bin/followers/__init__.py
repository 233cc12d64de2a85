"""Followers: forward the settings, scores and state of a run to a tracking server or a file.

A follower polls the run folder from outside. The training knows nothing of it, imports nothing for
it and waits for nothing.
"""
