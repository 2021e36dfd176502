"""Where rows come from: files, DataFrames and generated rows, cut into blocks and parsed into chunks of 100 rows.

May import only the top-level modules that come before it (raised, errors, units, storage, generate).
"""
