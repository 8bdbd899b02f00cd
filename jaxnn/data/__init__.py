"""Handwritten digits: one loader, `load(source)`, and one type, `Dataset`. NumPy only, no JAX."""

from jaxnn.data.sources import NAMES, Dataset, checksum, load

__all__ = ["NAMES", "Dataset", "checksum", "load"]
