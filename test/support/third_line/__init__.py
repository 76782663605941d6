"""A third line, as a contributor would write it: a scale weighs cells, its controller says who is too light.

Within the package the two nodes would stand in ``nodes/``, and all else in a folder beside ``belt/`` and ``ev/``.
"""
