"""A small corpus with labels: what a few functions do, in a few words."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

TOPICS: Mapping[str, Sequence[str]] = {
    "read csv": ("table", "file", "rows", "load", "commas"),
    "drop duplicates": ("remove", "repeated", "twice", "unique"),
    "group by": ("split", "sum", "per", "each", "category"),
    "sort values": ("order", "rising", "largest", "ascending"),
    "open socket": ("network", "connect", "port", "host"),
    "close": ("end", "finish", "shut", "stop"),
}
"""Words of the queries of each label."""


def write_labelled(path: Path, clients: int = 30, examples: int = 10) -> None:
    """Write a corpus of queries, a quarter of them with two right labels."""
    drawn = random.Random(1)
    lines = []
    for client in range(clients):
        for _ in range(examples):
            labels = drawn.sample(list(TOPICS), drawn.choice([1, 1, 1, 2]))
            words = [drawn.choice(TOPICS[label]) for label in labels for _ in range(3)]
            words += drawn.sample(["the", "a", "of", "it"], 2)
            drawn.shuffle(words)
            row = {"user": f"u{client:02}", "text": " ".join(words), "label": "|".join(labels)}
            lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
