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
# # Bring your own classifier
#
# Train a scikit-learn model and classify a file with it. The data are handwritten digits of 8 by 8 pixels, which come with
# scikit-learn.

# %%
import tempfile
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import pandas as pd
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

import dask_classifier as dc

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Train a model
#
# Train on half of the pictures. Write the other half to the CSV file to classify, without the true digits.

# %%
digits = load_digits(as_frame=True)
known, unknown, known_digits, truth = train_test_split(digits.data, digits.target, test_size=0.5, random_state=0)
model = RandomForestClassifier(n_estimators=50, random_state=0).fit(known, known_digits)
joblib.dump(model, folder / "digits.joblib")
unknown.to_csv(folder / "pictures.csv", index_label="picture")
len(known), len(unknown)

# %% [markdown]
# ## Write a classifier
#
# A classifier gets a DataFrame of at most 100 rows, in which every value is the text from the file. It returns the DataFrame with
# more columns, or one value per row. If it is a class, each process creates one instance, so the model is loaded once per
# process. Files sent with `with_file` are next to the class's own file on every worker.

# %%
(folder / "digits_model.py").write_text("""
from pathlib import Path

import joblib


class Digits:
    def __init__(self):
        self.model = joblib.load(Path(__file__).with_name("digits.joblib"))

    def __call__(self, chunk):
        probabilities = self.model.predict_proba(chunk.astype(float))
        best = probabilities.argmax(axis=1)
        return chunk.assign(DIGIT=self.model.classes_[best], CERTAINTY=probabilities.max(axis=1))
""")

# %% [markdown]
# Try it first with the cluster `"inline"`: it runs in this process, without Dask, so a debugger works.

# %%
classifier = {"classifier": f"{folder}/digits_model.py:Digits", "with_file": [folder / "digits.joblib"]}
trial = dc.run(dc.plan(input=folder / "pictures.csv", output=folder / "trial", **classifier), "inline")
trial.head(3)[["DIGIT", "CERTAINTY"]]

# %% [markdown]
# ## Classify the file
#
# Run it on two processes. On a cluster on EC2, only the `with` line and the locations of input and output would differ.

# %%
plan = dc.plan(input=folder / "pictures.csv", output=folder / "run", **classifier)
with dc.LocalCluster(workers=2, dashboard_address="127.0.0.1:0") as cluster:
    result = dc.run(plan, cluster)
assert result.verify().sha256 == trial.verify().sha256
result

# %% [markdown]
# ## Check the accuracy

# %%
rows = result.to_pandas()
right = rows["DIGIT"].to_numpy() == truth.to_numpy()
assert right.mean() > 0.9
pd.crosstab(truth.to_numpy(), rows["DIGIT"].to_numpy(), rownames=["truth"], colnames=["answer"])

# %%
rows.assign(right=right).groupby("right")["CERTAINTY"].plot.hist(bins=20, alpha=0.6, legend=True)
plt.xlabel("certainty")
plt.show()

# %% [markdown]
# ## Write one file

# %%
size = result.fetch(folder / "classified.csv.gz")
print(f"{size:,} bytes")
pd.read_csv(folder / "classified.csv.gz", names=result.columns, nrows=3)[["picture", "DIGIT", "CERTAINTY"]]

# %% [markdown]
# A function defined in this notebook works too: it is pickled by value. For a job that runs regularly, put it in a file.


# %%
def darkness(chunk):
    return chunk.astype(float).mean(axis=1)


quick = dc.run(dc.plan(input=folder / "pictures.csv", output=folder / "quick", classifier=darkness), "inline")
quick.head(3)["CLASSIFICATION"]
