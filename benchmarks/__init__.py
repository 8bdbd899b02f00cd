"""Benchmarks: one question a file, each a ratio to a named peer within one run."""
