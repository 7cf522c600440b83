# Copyright (c) PVD-MM contributors. Apache-2.0.
"""From records to tables and the pages that hold them."""
