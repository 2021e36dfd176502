"""Trains the model of sentiment.py on a few words, and writes reviews to classify: python train.py [FOLDER]."""

import random
import sys
from pathlib import Path

import joblib
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

GOOD = ["excellent", "delightful", "sturdy", "comfortable", "quick", "helpful", "bright", "reliable"]
BAD = ["broken", "awful", "flimsy", "painful", "slow", "rude", "dim", "leaking"]
THINGS = ["chair", "lamp", "kettle", "tent", "bicycle", "radio", "jacket"]


def review(rng: random.Random) -> tuple[str, str]:
    """A review with commas, quotes and line breaks, as people write them, and whether it is good."""
    words, label = rng.choice([(GOOD, "good"), (BAD, "bad")])
    first, second = rng.sample(words, 2)
    thing = rng.choice(THINGS)
    again = "I would buy it again." if label == "good" else "I would not buy it again."
    return f'The {thing} is {first}, "really" {second}.\n{again}', label


def main(folder: Path) -> None:
    """Write sentiment.joblib and reviews.csv."""
    rng = random.Random(0)
    texts, labels = zip(*(review(rng) for _ in range(400)), strict=True)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression())
    joblib.dump(model.fit(texts, labels), folder / "sentiment.joblib")
    reviews = pd.DataFrame({"review": range(1, 1001), "stars": 0, "text": [review(rng)[0] for _ in range(1000)]})
    reviews.to_csv(folder / "reviews.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
