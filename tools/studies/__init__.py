# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Experiments: grids of trainings, and what explains their results."""
