# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What several tests use; ``tests`` is on pytest's path."""
