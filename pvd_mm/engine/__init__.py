# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Training and testing, for mmseg and mmdet configs alike: configs, checkpoints,
hooks, records, registration and compatibility with upstream.

The package itself imports nothing: ``import pvd_mm`` needs its registration.
"""
