# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What all of the package uses and needs nothing of it: errors, files, tables in
Markdown, the shipped configs, the machine.
"""
