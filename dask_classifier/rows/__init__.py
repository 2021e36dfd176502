"""Where rows come from: generated rows and CSV files, cut into blocks and parsed into DataFrames of 100 rows.

May import only the top-level modules that come before it (errors, units, storage, generate).
"""
