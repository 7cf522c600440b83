# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Measure and compare models."""
