"""The soak: a line works for a long time while random faults strike it, judged by the plant's own record.

`bench/soak.py` is its command line; `test/system/test_soak.py` runs a short form of the same code.
"""
