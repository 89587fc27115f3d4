"""Benchmarks of speed and quality: textgen and its peers, measured in the same run.

`python -m benchmarks.NAME [--quick] [--json FILE]` prints a table of cases by subjects; the JSON
file is a list of `{"case", "subject", "value", "unit"}`. The subject is `textgen`, followed by
the variant where several are compared (`textgen int8`), or the name of the peer. `--quick` ends
within two minutes. Figures are medians of alternating runs, because machines are noisy.
"""
