"""Reads an offline W&B run back from its `.wandb` file.

The format is LevelDB's log (blocks of 32 KiB; records whole or in first, middle and last pieces, each behind checksum,
length and type) after a header of seven bytes; a record is a message of wandb's own protocol. wandb 0.31 reads it in
Go: it has no Python function for it any more.
"""

import json
import struct
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32_768, struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def messages(path: Path):
    """Yield the messages of the file."""
    from wandb.proto import wandb_internal_pb2

    content = path.read_bytes()
    assert content.startswith(b":W&B"), path
    position, pieces = 7, b""
    while position + HEADER.size <= len(content):
        room = BLOCK - position % BLOCK
        if room < HEADER.size:
            position += room
            continue
        _, length, kind = HEADER.unpack_from(content, position)
        if kind not in (WHOLE, FIRST, MIDDLE, LAST):
            break
        position += HEADER.size
        pieces = (b"" if kind in (WHOLE, FIRST) else pieces) + content[position : position + length]
        position += length
        if kind in (WHOLE, LAST):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(pieces)
            yield message


def read_run(path: Path) -> dict[str, Any]:
    """`run` (name, group, job_type, tags, project), `history` (a dict a line), `summary`, `hidden` metrics."""
    found: dict[str, Any] = {"run": {}, "history": [], "summary": {}, "hidden": [], "step": {}}
    for message in messages(path):
        kind = message.WhichOneof("record_type")
        if kind == "run":
            run = message.run
            found["run"] = {
                "name": run.display_name,
                "group": run.run_group,
                "job_type": run.job_type,
                "tags": list(run.tags),
                "project": run.project,
                "config": {item.key: json.loads(item.value_json) for item in run.config.update},
            }
        elif kind == "history":
            found["history"].append(_items(message.history.item))
        elif kind == "summary":
            found["summary"] |= _items(message.summary.update)
        elif kind == "metric":
            name = message.metric.name or message.metric.glob_name
            found["step"][name] = message.metric.step_metric
            if message.metric.options.hidden:
                found["hidden"].append(name)
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
