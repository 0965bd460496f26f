"""Right answers out of all, and the cheap methods that an adapter has to beat.

TF-IDF with naive Bayes or logistic regression, trained on exactly the adapter's rows in less than a second.
Invariant: the winner is named by the numbers alone, also when it is the cheap method.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.examples.rows import DemoRow
from train.evaluation.statistics.paired import wilson


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
        return wilson(self.right, self.asked)

    def line(self, who: str, rows: int = 0) -> str:
        """Return a line of a report: who, trained on how many rows, counts, accuracy, interval."""
        low, high = self.interval
        trained = f"{rows} rows" if rows else "–"
        counts = f"{self.right}/{self.asked}"
        return f"  {who:<22} {trained:>9} {counts:>9}  {self.accuracy:.3f}  ({low:.3f} – {high:.3f})"


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


def compare(
    who: str, adapter: AccuracyScore, train: Sequence[DemoRow], held_out: Sequence[DemoRow]
) -> list[str]:
    """Return the lines of an adapter and of the cheap methods on its own rows, and who is better."""
    cheap = {
        "naive Bayes": score_naive_bayes(train, held_out),
        "logistic regression": score_logistic_regression(train, held_out),
    }
    lines = [score.line(name, len(train)) for name, score in {who: adapter, **cheap}.items()]
    return [*lines, f"  · {conclusion(who, adapter, cheap)}"]


def conclusion(who: str, adapter: AccuracyScore, cheap: dict[str, AccuracyScore]) -> str:
    """Return the sentence on an adapter beside the best cheap method."""
    name, best = max(cheap.items(), key=lambda item: item[1].right)
    difference = adapter.accuracy - best.accuracy
    count = f"{abs(difference) * 100:.0f}"
    points = f"{count} point{'' if count == '1' else 's'}"
    if adapter.interval[0] > best.interval[1]:
        return f"{who} beats the best cheap method ({name}) by {points}."
    if adapter.interval[1] < best.interval[0]:
        return f"{name} beats {who} by {points}, in less than a second: use it, not an adapter."
    where = "above" if difference > 0 else "below"
    return f"{who} is {points} {where} {name}; the intervals overlap, so neither is proved better."


def _score(classifier: object, train: Sequence[DemoRow], held_out: Sequence[DemoRow]) -> AccuracyScore:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfVectorizer(sublinear_tf=True), classifier)
    pipeline.fit([row.text for row in train], [row.label for row in train])
    said = pipeline.predict([row.text for row in held_out])
    right = sum(row.label == word for row, word in zip(held_out, said, strict=True))
    return AccuracyScore(right, len(held_out))
