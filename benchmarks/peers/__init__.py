"""The subjects of the benchmarks as programs: textgen, and each peer as its documentation has it.

`*_train` and `*_generate` are workers that take turns, see `benchmarks.workers`.
"""
