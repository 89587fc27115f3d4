"""Benchmarks: each prints one table, textgen and its peers in the same run.

`python -m benchmarks.NAME [--quick] [--json FILE]`; `--quick` ends within two minutes.
The machines they run on are noisy, so figures are medians of alternating runs.
"""
