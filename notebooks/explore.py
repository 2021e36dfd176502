# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Explore a run
#
# Classify a CSV file on this computer, verify the result, and look at what the run left: scores, bad rows, what each process did,
# and how much a second process helps. All files are in a temporary folder.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import dask_classifier as dc

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Create a file
#
# The file has 3,000 orders. Two of the rows are broken: each has one field too many.

# %%
lines = [f"{number:05d},{number % 7},{number * 37 % 1000 / 10},note {number % 11}" for number in range(3000)]
lines[1234] += ",oops"
lines[2345] += ",oops"
(folder / "orders.csv").write_text("\n".join(["order,items,price,note", *lines]) + "\n")
pd.read_csv(folder / "orders.csv", dtype=str, nrows=3)

# %% [markdown]
# ## Plan and run
#
# A plan describes the run and writes nothing. The built-in black box stands in for a slow classifier; a lower `slowness` makes it
# faster here. With `max_bad`, up to two bad rows are quarantined instead of stopping the run.

# %%
plan = dc.plan(
    input=folder / "orders.csv", output=folder / "one", classifier="blackbox", slowness=3, max_bad=2, block_rows=300
)
plan

# %% [markdown]
# How long will it take? An estimate tries the classifier on rows from all over the file. On EC2, a file this small is not worth it.

# %%
dc.estimate(plan)

# %% [markdown]
# The cell shows the progress of the run. The link above the progress bar opens the page *Classify* of Dask's dashboard, which
# shows more. It works until the `with` block ends.

# %%
with dc.LocalCluster(workers=1, dashboard_address="127.0.0.1:0") as cluster:
    result = dc.run(plan, cluster)
result

# %% [markdown]
# ## Read the rows
#
# The index is the file's first column, as text, so `00007` keeps its zeros. The classifier added CLASSIFICATION.

# %%
rows = result.to_pandas()
assert len(rows) == 2998
rows.head()

# %%
rows["CLASSIFICATION"].plot.hist(bins=30, title="Scores")
plt.xlabel("CLASSIFICATION")
plt.show()

# %% [markdown]
# If the result is larger than memory, use `to_dask()`. It has one partition per part, read when needed.

# %%
by_items = result.to_dask().groupby("items")["CLASSIFICATION"].mean().compute()
by_items

# %% [markdown]
# ## Bad rows
#
# No row is lost: rows in = rows out + rows quarantined. Each bad row is kept with its number, the reason and its text.

# %%
result.quarantined()

# %% [markdown]
# ## What each process did
#
# Each block has a receipt with its number of rows, its duration and its process.

# %%
receipts = pd.DataFrame([vars(receipt) for receipt in result.receipts])
receipts["ms/row"] = 1000 * receipts["seconds"] / (receipts["rows"] + receipts["bad_rows"])
receipts[["index", "rows", "bad_rows", "seconds", "ms/row", "pid"]]

# %% [markdown]
# ## Compare one process with two
#
# Run the same plan on two processes, into another folder. The bytes are the same. The run is faster, unless the computer is busy
# or has only one core.

# %%
again = dc.plan(
    input=folder / "orders.csv", output=folder / "two", classifier="blackbox", slowness=3, max_bad=2, block_rows=300
)
with dc.LocalCluster(workers=2, dashboard_address="127.0.0.1:0") as cluster:
    result_of_two = dc.run(again, cluster)
assert result_of_two.verify().sha256 == result.verify().sha256
two = pd.DataFrame([vars(receipt) for receipt in result_of_two.receipts])
two.groupby("pid")[["rows", "seconds"]].sum()

# %%
seconds = pd.Series({"1 process": result.manifest["seconds"], "2 processes": result_of_two.manifest["seconds"]})
seconds.plot.barh(title="Seconds")
plt.show()

# %% [markdown]
# ## Share the report
#
# Each run writes `report.html`, a single file that works offline and shows all of this as charts. To open the result again later,
# use `dc.open_run(folder)`.

# %%
report = dc.open_run(folder / "two").report
assert Path(report).exists()
print(report)
