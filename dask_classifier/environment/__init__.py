"""The environment of instances that run no image of ours: what is installed here, locked, packed, and installed there.

May import `classifier` for requirements, and `storage`; knows nothing of AWS or runs.
"""
