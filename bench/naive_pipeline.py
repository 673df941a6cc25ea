"""The peer: what a team writes in an afternoon. Runs in the peers' environment, see ``bench/peers.txt``.

kafka-python, one message at a time; PIL and torchvision's transforms; the network on batches of one; the instances
painted with pycocotools and compared with the camera's last map by torchmetrics, as it is shipped; a row a record
through SQLAlchemy and psycopg, each with its commit; and Evidently's report on the embeddings' components every 1,000.

The report's time is taken once, on 1,000 rows, and told apart from the rest.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import sqlalchemy
import timm
import torch
import torchvision
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from kafka import KafkaConsumer
from PIL import Image
from pycocotools import mask as coco
from sklearn.decomposition import PCA
from torchmetrics.classification import MulticlassConfusionMatrix
from torchvision import transforms

REPORT_EVERY, COMPONENTS = 1000, 32
SCALING = {"efficientnet_lite0": (127 / 255, 128 / 255), "resnet50": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


def load_network(backbone: str, weights: str) -> torch.nn.Module:
    """The same weights as the other side's, up to the pooled features."""
    if backbone == "resnet50":
        network: Any = torchvision.models.resnet50()
        network.load_state_dict(torch.load(weights, weights_only=True))
        network.fc = torch.nn.Identity()
    else:
        network = timm.create_model("tf_efficientnet_lite0")
        network.load_state_dict(torch.load(weights, weights_only=True))
        network.reset_classifier(0)
    network.eval()
    return network  # type: ignore[no-any-return]


def label_map(record: dict[str, Any], names: dict[str, int]) -> torch.Tensor:
    """(H, W) class indices; 0 is the background."""
    painted = np.zeros(record["instances"][0]["mask"]["size"], np.int64)
    for instance in record["instances"]:
        painted[coco.decode(instance["mask"]).astype(bool)] = names[instance["class"]]
    return torch.from_numpy(painted)


def report_seconds(embeddings: list[np.ndarray[Any, Any]]) -> float:
    """Evidently's drift report of 1,000 records against 1,000 others, on 32 principal components.

    Evidently takes a tenth of a second a column: on all 1,280 dimensions one report would take over two minutes.
    """
    rng = np.random.default_rng(0)
    rows = np.resize(np.stack(embeddings), (REPORT_EVERY, len(embeddings[0])))
    rows = rows * (1 + rng.normal(0, 0.01, rows.shape))  # where there are fewer, none should be another one's copy
    components = PCA(COMPONENTS).fit(rows)
    columns = [f"component_{index}" for index in range(COMPONENTS)]
    definition = DataDefinition(numerical_columns=columns)
    baseline = pandas.DataFrame(components.transform(rows), columns=columns)
    begun = time.perf_counter()
    current = pandas.DataFrame(components.transform(rows), columns=columns)
    datasets = [Dataset.from_pandas(frame, data_definition=definition) for frame in (current, baseline)]
    Report([DataDriftPreset()]).run(*datasets).dict()
    return time.perf_counter() - begun


def main() -> None:
    task = json.loads(sys.argv[1])
    mean, std = SCALING[task["backbone"]]
    prepare = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize(
                (mean,) * 3 if isinstance(mean, float) else mean, (std,) * 3 if isinstance(std, float) else std
            ),
        ]
    )
    network = load_network(task["backbone"], task["weights"])
    names = {name: index + 1 for index, name in enumerate(task["classes"])}
    metric = MulticlassConfusionMatrix(num_classes=len(names) + 1)
    last_map: dict[str, torch.Tensor] = {}
    engine = sqlalchemy.create_engine(task["url"])
    table = sqlalchemy.Table(
        "naive",
        sqlalchemy.MetaData(),
        sqlalchemy.Column("input_id", sqlalchemy.Text, primary_key=True),
        sqlalchemy.Column("event_time", sqlalchemy.Text),
        sqlalchemy.Column("score", sqlalchemy.Float),
        sqlalchemy.Column("instances", sqlalchemy.Integer),
    )
    table.metadata.create_all(engine)
    consumer = KafkaConsumer(task["topic"], bootstrap_servers=task["bootstrap"], auto_offset_reset="earliest")
    embeddings: list[np.ndarray[Any, Any]] = []
    spent: Counter[str] = Counter()
    mark = begun = time.perf_counter()
    cpu = 0.0

    def lap(stage: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        spent[stage] += now - mark
        mark = now

    for message in consumer:
        lap("kafka")
        record = json.loads(message.value)
        lap("json")
        image = Image.open(io.BytesIO(base64.b64decode(record["image"]["data"]))).convert("RGB")
        batch = prepare(image)[None]
        lap("decoding")
        with torch.inference_mode():
            embeddings.append(network(batch)[0].numpy())
        lap("backbone")
        painted = label_map(record, names)
        metric.update(painted, last_map.get(record["slices"]["camera"], painted))
        last_map[record["slices"]["camera"]] = painted
        lap("masks")
        scores = [instance["score"] for instance in record["instances"]]
        with engine.begin() as connection:
            connection.execute(
                table.insert(),
                {
                    "input_id": record["input_id"],
                    "event_time": record["event_time"],
                    "score": sum(scores) / len(scores),
                    "instances": len(scores),
                },
            )
        lap("store")
        if len(embeddings) == task["warm_up"]:
            spent.clear()
            begun, cpu = time.perf_counter(), time.process_time()
        elif len(embeddings) == task["records"]:
            break
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    consumer.close()
    counted = task["records"] - task["warm_up"]
    result = {
        "records": counted,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "report_seconds": report_seconds(embeddings) if task["report"] else None,
        "ms_per_record": {stage: 1e3 * each / counted for stage, each in spent.items()},
    }
    Path(task["out"]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
