"""The cheap method that an adapter has to be compared with: TF-IDF with naive Bayes or logistic regression.

Trained on exactly the rows that the adapter was trained on, and asked the same held-out rows. Takes less
than a second. Where it wins, the demo says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.demo.data import DemoRow


@dataclass(frozen=True, slots=True)
class AccuracyScore:
    """Right answers out of all, with the 95 % interval of Wilson (1927) for the accuracy."""

    right: int
    asked: int

    @property
    def accuracy(self) -> float:
        """Return the share of right answers."""
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """Return the lower and upper end of the 95 % interval."""
        z, n, p = 1.959964, self.asked, self.accuracy
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        reach = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return middle - reach, middle + reach


def score_majority(train: Sequence[DemoRow], held_out: Sequence[DemoRow]) -> AccuracyScore:
    """Return the score of always saying the most frequent training label."""
    labels = [row.label for row in train]
    most = max(sorted(set(labels)), key=labels.count)
    return AccuracyScore(sum(row.label == most for row in held_out), len(held_out))


def score_naive_bayes(train: Sequence[DemoRow], held_out: Sequence[DemoRow]) -> AccuracyScore:
    """Return the score of multinomial naive Bayes on TF-IDF of words."""
    from sklearn.naive_bayes import MultinomialNB

    return _score(MultinomialNB(alpha=0.1), train, held_out)


def score_logistic_regression(train: Sequence[DemoRow], held_out: Sequence[DemoRow]) -> AccuracyScore:
    """Return the score of logistic regression on TF-IDF of words."""
    from sklearn.linear_model import LogisticRegression

    return _score(LogisticRegression(C=10, max_iter=2000), train, held_out)


def _score(classifier: object, train: Sequence[DemoRow], held_out: Sequence[DemoRow]) -> AccuracyScore:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfVectorizer(sublinear_tf=True), classifier)
    pipeline.fit([row.text for row in train], [row.label for row in train])
    said = pipeline.predict([row.text for row in held_out])
    return AccuracyScore(
        sum(row.label == word for row, word in zip(held_out, said, strict=True)), len(held_out)
    )
