"""The subjects of the benchmarks as programs: textgen, and each peer as its documentation uses it.

`*_train` and `*_generate` are workers that take turns; see `benchmarks.workers`.
"""
