"""Where rows come from: generated rows and CSV files, cut into blocks; CSV text to DataFrames of 100 rows.

May import only the files at the package's top that come before it (errors, units, storage, generate).
"""
