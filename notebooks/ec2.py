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
# Run the same code on EC2 instances that exist only for this run. **This costs a little money**: two workers and a scheduler for
# a few minutes. Not run on AWS: the tests run these cells against a simulation of EC2 and S3.
#
# You need a bucket (see [docs/ec2.md](../docs/ec2.md)). Instances install the packages that are installed here, and get them through
# the bucket. Name a folder for them in Dask's configuration (`~/.config/dask/classify.yaml`):
#
#     dask-classifier:
#       staging: s3://bucket/packages
#
# Here and in the next cell, replace `bucket` with the name of your bucket.

# %%
import urllib.request

from IPython.display import display

import dask_classifier as dc

plan = dc.plan(rows="2k", slowness=1, output="s3://bucket/runs/notebook", overwrite=True)
plan

# %% [markdown]
# ## Start instances, run, terminate
#
# The `with` block terminates the instances when it ends, even after an error.
#
# - `min_workers`: how many workers must have joined before work begins.
# - `deadline`: a hard limit, after which the instances shut themselves down.
# - `say`: a function that gets a line of text for each step in your account.
#
# The dashboard's page *Classify* shows rows, speed, workers and the time left.

# %%
with dc.EC2Cluster(workers=2, min_workers=2, deadline="30m", say=print) as cluster:
    display(cluster.spec)
    dashboard = cluster.dashboard_link.replace("/status", "/classify")
    print(dashboard)
    page = urllib.request.urlopen(dashboard).read()
    result = dc.run(plan, cluster)
result

# %% [markdown]
# The manifest records how many instances were started and terminated.

# %%
machines = dc.open_run(result.output).manifest["machines"]
assert machines["started"] == machines["terminated"] == 3 and not machines["left"]
machines

# %% [markdown]
# ## Read the result from S3
#
# During the run, no row passed through this computer. Now it reads only the rows that you ask for.

# %%
assert result.verify().rows == 2000
result.head()

# %%
by_worker = {}
for receipt in result.receipts:
    by_worker[receipt.worker] = by_worker.get(receipt.worker, 0) + receipt.rows
by_worker

# %% [markdown]
# `dask-classify status` lists the instances and security groups in your account that have this tool's tag. Now there are none.
