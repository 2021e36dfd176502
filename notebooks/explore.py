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
# From a CSV file to a verified result on this computer; then a look at what it left: scores, bad rows, who did what, and
# what a second process is worth. Everything is written to a temporary folder.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import dask_classifier as dc

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A file
#
# Three thousand orders, and two rows that somebody broke: each has a field too many.

# %%
lines = [f"{number:05d},{number % 7},{number * 37 % 1000 / 10},note {number % 11}" for number in range(3000)]
lines[1234] += ",oops"
lines[2345] += ",oops"
(folder / "orders.csv").write_text("\n".join(["order,items,price,note", *lines]) + "\n")
pd.read_csv(folder / "orders.csv", dtype=str, nrows=3)

# %% [markdown]
# ## A plan, and a run
#
# A plan touches nothing: it says what will be done. The built-in black box stands for a slow classifier; `slowness` makes it
# quicker here. `max_bad` lets bad rows be quarantined instead of stopping the run.

# %%
plan = dc.plan(
    input=folder / "orders.csv", output=folder / "one", classifier="blackbox", slowness=3, max_bad=2, block_rows=300
)
plan

# %% [markdown]
# The cell shows the run as it goes on. The address above its bar is the page *Classify* of Dask's dashboard, which has more, for
# as long as the `with` block lasts.

# %%
with dc.LocalCluster(workers=1, dashboard_address="127.0.0.1:0") as cluster:
    result = dc.run(plan, cluster)
result

# %% [markdown]
# ## The rows
#
# The index is the file's first column, as text, so `00007` keeps its zeros; CLASSIFICATION is what the classifier added.

# %%
rows = result.to_pandas()
assert len(rows) == 2998
rows.head()

# %%
rows["CLASSIFICATION"].plot.hist(bins=30, title="Scores")
plt.xlabel("CLASSIFICATION")
plt.show()

# %% [markdown]
# `to_dask()` is for results that are larger than memory: a partition for each part, read when needed.

# %%
by_items = result.to_dask().groupby("items")["CLASSIFICATION"].mean().compute()
by_items

# %% [markdown]
# ## Bad rows
#
# Nothing is lost: rows in = rows out + rows quarantined. Each bad row is kept with its number, its reason and its text.

# %%
result.quarantined()

# %% [markdown]
# ## Who did what
#
# Each block left a receipt: how many rows, how long, in which process.

# %%
receipts = pd.DataFrame([vars(receipt) for receipt in result.receipts])
receipts["ms a row"] = 1000 * receipts["seconds"] / (receipts["rows"] + receipts["bad_rows"])
receipts[["index", "rows", "bad_rows", "seconds", "ms a row", "pid"]]

# %% [markdown]
# ## One process, or two?
#
# The same plan into another folder, on two processes. The bytes are the same, the time is not; on a computer with one core, or a
# busy one, it may be.

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
# ## For a colleague
#
# Each run leaves `report.html`: one file that works offline, with all of this in pictures. On another day,
# `dc.open_run(folder)` gives the result again.

# %%
report = dc.open_run(folder / "two").report
assert Path(report).exists()
print(report)
