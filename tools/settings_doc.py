"""Writes docs/settings.md from monitor/settings.py: ``python tools/settings_doc.py > docs/settings.md``.

Names, defaults and variables come from the classes; the meaning is the string below a setting in the source, or stands
in ``MEANINGS`` where its name says nearly all.
"""

from __future__ import annotations

import ast
import inspect
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from monitor.settings import SECTIONS, Section, Settings, variable_of

MEANINGS = {
    "kafka.group_id": "Consumer group. All ingest processes that share the work have the same one.",
    "kafka.session_timeout_seconds": "A worker that is silent for this long loses its partitions.",
    "kafka.predictions_topic": "Predictions are read from it.",
    "kafka.labels_topic": "Labels are read from it.",
    "kafka.actions_topic": "Actions and alerts go to it.",
    "kafka.dead_letter_topic": "Records that could not be counted go to it.",
    "kafka.security_protocol": "How brokers are reached.",
    "kafka.sasl_mechanism": "For example `SCRAM-SHA-512` or `PLAIN`; used with the `SASL_` protocols.",
    "kafka.sasl_username": "User for SASL.",
    "kafka.sasl_password": "Password for SASL.",
    "kafka.ssl_cafile": "PEM file of the authorities that sign the brokers' certificates; empty for the system's.",
    "kafka.ssl_certfile": "PEM file of this client's certificate, where brokers want one.",
    "kafka.ssl_keyfile": "PEM file of its key.",
    "kafka.ssl_password": "Password of the key.",
    "kafka.replication_factor": "Of topics that `segwatch topics create` makes.",
    "kafka.compression": "Of messages that segwatch sends.",
    "windows.pane_seconds": "Length of a pane, the smallest window kept; panes are merged into windows.",
    "embedding.input_size": "Side of the square, in pixels, to which images are brought for the backbone.",
    "embedding.batch_size": "Images of one call of the backbone; smaller batches are padded to it.",
    "embedding.device": "`auto` takes a GPU where there is one.",
    "embedding.dtype": "`auto` is bfloat16 on a GPU and float32 on a CPU.",
    "embedding.decode_threads": "Threads that decode images while the backbone works.",
    "images.max_pixels": "Larger images are bad records; told from the header, before anything is decoded.",
    "images.max_bytes": "Larger files are bad records.",
    "s3.region": "Of the bucket; empty: from `AWS_REGION`.",
    "s3.secret_access_key": "Secret of that key.",
    "samples.quality": "Of the JPEG or WebP files, 1 to 100.",
    "drift.bins": "Bins of each signal, frozen in the baseline.",
    "web.host": "Address to listen on. Any but loopback needs `web.token`.",
    "web.port": "Port to listen on; 0 for any free one.",
    "log.level": "Less important lines are left out.",
    "log.format": "`json` is one object a line.",
}

HEAD = """# Settings

<!-- Written by `python tools/settings_doc.py > docs/settings.md`; a test compares it with monitor/settings.py. -->

Defaults first, then `segwatch.yaml` in the working directory (or the file of `--config`), then environment variables.
A key of the file that is no setting is an error, an unknown variable a warning: typing mistakes do not pass unnoticed.

```yaml
store:
  url: postgresql+pg8000://segwatch@db.example/segwatch
kafka:
  bootstrap_servers: kafka-1:9092,kafka-2:9092
windows:
  lengths_seconds: [3600, 86400]
```

Secrets belong into the environment or into files: a variable that ends in `_FILE` names a file that holds the value,
for example `SEGWATCH_STORE_PASSWORD_FILE=/run/secrets/db`. Lists are written with commas in a variable.

`/-/reload` applies `log.level`, `log.format`, `web.token`, `web.refresh_seconds` and `web.max_series` while the service
runs; it names the others that have changed, which need a restart.
"""


def strings_below(kind: type[Section]) -> dict[str, str]:
    """The string literal that stands below each attribute of a class."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, below in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(below.value.value).replace("``", "`").split())
    return found


def shown(default: Any) -> str:
    """A default as it would be written in YAML."""
    if isinstance(default, tuple):
        return "`[" + ", ".join(str(part) for part in default) + "]`"
    return "empty" if default == "" else f"`{default}`"


def rows(prefix: str, kind: type[Section]) -> list[str]:
    below = strings_below(kind)
    lines = ["| Setting | Default | Variable | Meaning |", "|---|---|---|---|"]
    for field in msgspec.structs.fields(kind):
        if not prefix and field.name in SECTIONS:
            continue
        name = f"{prefix}.{field.name}" if prefix else field.name
        meaning = below.get(field.name) or MEANINGS.get(name)
        if meaning is None:
            raise SystemExit(f"{name} has no meaning: write a string below it in monitor/settings.py")
        lines.append(f"| `{name}` | {shown(field.default)} | `{variable_of(name)}` | {meaning} |")
    return lines


def document() -> str:
    parts = [HEAD, "## Files", "", *rows("", Settings), ""]
    for section, kind in SECTIONS.items():
        about = " ".join((kind.__doc__ or "").replace("``", "`").split())
        parts += [f"## {section}", "", about, "", *rows(section, kind), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    print(document(), end="")
