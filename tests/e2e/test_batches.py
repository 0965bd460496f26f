"""A batch on the real engine: adapters and the base in one file, each line answered by its own version."""

from __future__ import annotations

import json
import time

from loadtests.live import Live
from loadtests.markers import marker_of
from tests.e2e.asking import ALPHA, BRAVO
from tests.published import check


def test_the_lines_of_a_batch_are_answered_by_the_versions_that_they_name(live: Live) -> None:
    client = live.client()
    asked = {"1": "support@1", "2": "support@2", "3": "coding", "4": "support", "5": "nobody"}
    lines = [
        {
            "custom_id": name,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": model,
                "messages": [{"role": "user", "content": "Hello there!"}],
                "max_tokens": 16,
                "temperature": 0,
            },
        }
        for name, model in asked.items()
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("lines.jsonl", text), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    deadline = time.monotonic() + 120
    while client.batches.retrieve(batch.id).status != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    done = client.batches.retrieve(batch.id)
    check("batch", done.to_dict())
    assert done.output_file_id is not None
    assert done.error_file_id is not None
    rows = [json.loads(row) for row in client.files.content(done.output_file_id).text.splitlines()]
    told = {row["custom_id"]: row["response"]["body"] for row in rows}
    markers = {name: marker_of(body["choices"][0]["message"]["content"]) for name, body in told.items()}
    assert markers == {"1": ALPHA, "2": BRAVO, "3": BRAVO, "4": ALPHA}
    assert told["4"]["model"] == "support@1"
    (refused,) = [json.loads(row) for row in client.files.content(done.error_file_id).text.splitlines()]
    assert (refused["custom_id"], refused["response"]["status_code"]) == ("5", 404)
