# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Data: built-in samples, converters of downloads, and the check of a data set."""
