"""Experiments over many runs: ablations and their effects, variants of a benchmark, speed."""
