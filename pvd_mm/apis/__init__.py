# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A trained model: loading it, inference, what it costs."""
