# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Trained models side by side: a table of metrics, and pictures."""
