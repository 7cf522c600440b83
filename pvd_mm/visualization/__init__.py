# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Pictures of labels and instances, and of the votes of a pixel."""
