# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Time and memory: of the op, of models, and of the backends in training."""
