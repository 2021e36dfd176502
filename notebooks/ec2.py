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
# # On EC2
#
# The same code on machines that exist only for this run. **This costs money**, though little: two workers and a scheduler for some
# minutes. Not run on AWS: the tests run these very cells in a rehearsal.
#
# Before: an image and a bucket, as [docs/ec2.md](../docs/ec2.md) has it, and in Dask's configuration
# (`~/.config/dask/classify.yaml`):
#
#     dask-classifier:
#       image: registry/dask-classify:0.1
#
# and your bucket's name instead of `bucket` in the next cell.

# %%
import urllib.request

from IPython.display import display

import dask_classifier as dc

plan = dc.plan(rows="2k", slowness=1, output="s3://bucket/runs/notebook", overwrite=True)
plan

# %% [markdown]
# ## Machines up, used, and gone
#
# When the block ends, however it ends, the machines are gone. `min_workers` is how
# many must be there before work begins, `deadline` when they end themselves, come what may. `say` tells what
# is done in your account, and the dashboard's address; its page *Classify* shows rows, speed, workers and the time that is left.

# %%
with dc.EC2Cluster(workers=2, min_workers=2, deadline="30m", say=print) as cluster:
    display(cluster.spec)
    dashboard = cluster.dashboard_link.replace("/status", "/classify")
    print(dashboard)
    page = urllib.request.urlopen(dashboard).read()
    result = dc.run(plan, cluster)
result

# %% [markdown]
# The manifest says what became of the machines.

# %%
machines = dc.open_run(result.output).manifest["machines"]
assert machines["started"] == machines["terminated"] == 3 and not machines["left"]
machines

# %% [markdown]
# ## The result, from S3
#
# The rows never passed through this computer; now those that you ask for do.

# %%
assert result.verify().rows == 2000
result.head()

# %%
by_worker = {}
for receipt in result.receipts:
    by_worker[receipt.worker] = by_worker.get(receipt.worker, 0) + receipt.rows
by_worker

# %% [markdown]
# `dask-classify status` lists what is running in your account under this tool's tag: nothing, now.
