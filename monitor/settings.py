"""Settings: defaults, then ``segwatch.yaml``, then ``SEGWATCH_...`` environment variables.

A setting ``section.name`` has the variable ``SEGWATCH_SECTION_NAME``, for example
``SEGWATCH_KAFKA_BOOTSTRAP_SERVERS``. A variable that ends in ``_FILE`` names a file that holds the value
(for secrets). An unknown key in the file is an error that names it, so that a typing mistake never passes for a
default; an unknown variable is named in a warning.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import yaml

from monitor.errors import SettingsError

log = logging.getLogger(__name__)

PREFIX = "SEGWATCH_"

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all sections: immutable, and strict about names."""


class StoreSettings(Section, frozen=True):
    """Where state is kept."""

    url: str = ""
    """SQLAlchemy URL; empty means SQLite under ``data_dir``. PostgreSQL: ``postgresql+pg8000://user@host/db``."""
    password: str = ""
    """Password of the database, so that ``url`` need not hold it."""
    retention_days: Annotated[float, msgspec.Meta(gt=0)] = 90.0
    """Panes, scores and the sample index are kept this long (by event time)."""
    audit_days: Annotated[float, msgspec.Meta(gt=0)] = 730.0
    """Lines of the audit log are kept this long."""


class KafkaSettings(Section, frozen=True):
    """The cluster and how to reach it."""

    bootstrap_servers: str = ""
    """Comma-separated ``host:port``; empty means that there is no Kafka (embedded)."""
    group_id: str = "segwatch"
    group_instance_id: str = ""
    """Static membership: a name that is unique per worker and stable across restarts; empty for dynamic."""
    session_timeout_seconds: Seconds = 30.0
    predictions_topic: str = "segwatch.predictions"
    labels_topic: str = "segwatch.labels"
    actions_topic: str = "segwatch.actions"
    dead_letter_topic: str = "segwatch.dead-letter"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = ""
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    ssl_password: str = ""
    partitions: Count = 4
    """Of topics that ``segwatch topics create`` makes."""
    replication_factor: Count = 1
    max_message_bytes: Count = 8 * 1024 * 1024
    """Largest record that topics take and consumers fetch."""
    compression: Literal["none", "gzip", "lz4", "zstd"] = "lz4"
    start: Literal["earliest", "latest"] = "earliest"
    """Where a partition that was never read begins."""


class WindowSettings(Section, frozen=True):
    """Event time: panes are merged into windows."""

    pane_seconds: Count = 300
    lengths_seconds: tuple[Count, ...] = (3600, 86400)
    """Windows that are scored as they close, each a multiple of the pane; the first one feeds the metrics."""
    close_delay_seconds: Seconds = 10.0
    """A window closes when the watermark is this far past its end."""
    allowed_lateness_seconds: Seconds = 7 * 86400.0
    """A record older than its broker timestamp minus this is late."""
    future_tolerance_seconds: Seconds = 300.0
    """A record dated further than this after its broker timestamp is bad."""
    slice_keys: tuple[str, ...] = ()
    """Slice keys that get statistics of their own; empty means every key that records carry."""


class EmbeddingSettings(Section, frozen=True):
    """The backbone. A baseline freezes it: production records go through the baseline's backbone."""

    backbone: str = "efficientnet_lite0"
    """``efficientnet_lite0``, ``segmenter``, ``timm:NAME``, ``torchvision:NAME`` or ``exported:FILE``."""
    weights: str = ""
    """Local weights file (safetensors, or read by torch's weights-only reader); needed by timm and torchvision."""
    input_size: Annotated[int, msgspec.Meta(ge=32, le=1024)] = 224
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 8
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    """CPU threads of the backbone; 0 means all cores that this process may use."""
    decode_threads: Count = 2
    components: Annotated[int, msgspec.Meta(ge=1, le=256)] = 32
    """Components of the whitened projection."""


class ImageSettings(Section, frozen=True):
    """Which images are read at all."""

    max_pixels: Count = 50_000_000
    max_bytes: Count = 32 * 1024 * 1024
    uri_prefixes: tuple[str, ...] = ()
    """Prefixes that ``image.uri`` may have (``file:``, ``s3:``, ``https:``); none by default."""


class S3Settings(Section, frozen=True):
    """S3 and what speaks like it, for ``s3:`` URIs; needs the extra ``s3``."""

    endpoint: str = ""
    """``https://host:port`` of a server of your own; empty means Amazon's."""
    region: str = ""
    access_key_id: str = ""
    """Empty: from ``AWS_...`` variables, or the role of the machine or pod."""
    secret_access_key: str = ""
    server_side_encryption: Literal["", "AES256", "aws:kms"] = ""
    """Asked for with each image that is written; empty leaves it to the bucket's own rule."""
    kms_key_id: str = ""
    """With ``aws:kms``: the key; empty means the bucket's."""


class SampleSettings(Section, frozen=True):
    """Images that are kept for people to look at, and for labelling."""

    keep_images_days: Annotated[float, msgspec.Meta(ge=0)] = 7.0
    """Images are kept this long (whole days of event time, UTC); 0 keeps none."""
    share: Ratio = 1.0
    """Share of the records whose image is kept, drawn by their identity."""
    max_per_day: Annotated[int, msgspec.Meta(ge=0)] = 2000
    """Most images of each model version and day, drawn by their identity like uniform spot checks; 0: no limit."""
    max_side: Annotated[int, msgspec.Meta(ge=32, le=16384)] = 1024
    """Larger images are made smaller, to this many pixels of their longer side."""
    format: Literal["jpeg", "webp"] = "jpeg"
    """``webp`` files are smaller, and take several times as long to write."""
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 85
    url: str = ""
    """Where they are: ``s3://bucket/folder``, or a folder; empty means ``images`` under ``data_dir``."""


class RedactSettings(Section, frozen=True):
    """What must not be stored at all. With any of it set, dead letters are the record's hash and headers alone."""

    blur_classes: tuple[str, ...] = ()
    """Classes that are made unrecognisable in kept images, where the model found them. Of a model that knows none of
    them no image is kept."""
    method: Literal["blur", "fill"] = "blur"
    """``fill`` paints grey."""
    margin: Ratio = 0.02
    """How far around its mask an object is blurred, as a share of the image's longer side."""
    drop_fields: tuple[str, ...] = ()
    """``slices.NAME`` (statistics of that slice are dropped, too) and ``sequence`` (a keyed hash takes its place)."""

    def __post_init__(self) -> None:
        for name in self.drop_fields:
            if name != "sequence" and not (name.startswith("slices.") and len(name) > len("slices.")):
                raise ValueError(f"redact.drop_fields: {name!r} is neither sequence nor slices.NAME")

    @property
    def active(self) -> bool:
        """Whether anything is to be redacted."""
        return bool(self.blur_classes or self.drop_fields)


class DriftSettings(Section, frozen=True):
    """How often a drift alarm may be false."""

    false_alarms_per_30_days: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 1.0
    """Per model, over all signals, windows and early detection together."""
    bins: Annotated[int, msgspec.Meta(ge=4, le=64)] = 16
    rolling_days: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.0
    """Windows of all records are compared with those of so many days before them, too (7 is a good start); 0: never."""
    season_time_zone: str = "UTC"
    """IANA name (``Europe/Berlin``) of the clock by which a baseline learns which hours and weekdays differ."""

    def __post_init__(self) -> None:
        if self.season_time_zone != "UTC":
            try:
                ZoneInfo(self.season_time_zone)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError(
                    f"drift.season_time_zone: this machine knows no time zone {self.season_time_zone!r}"
                ) from None


class QualitySettings(Section, frozen=True):
    """Quality from labels."""

    keep_masks_days: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """Predicted masks are kept this long (by event time) for labels to come; 0 keeps none, and no label is joined."""
    join_days: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """A label made later than this after its prediction's event time is counted ``unjoinable``."""
    window_days: Annotated[float, msgspec.Meta(gt=0)] = 7.0
    """Quality as metrics and ``segwatch status`` show it is that of the records of so many days."""
    spot_checks_per_day: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Records of each model version that segwatch chooses a day to have labelled; 0 chooses none."""
    training_share: Ratio = 0.0
    """Of these, the share chosen because the model is unsure of them, for training; the rest is chosen to measure."""
    label_price: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Price of one label, in the unit of your choice, for ``segwatch quality --plan``."""


class RelabelSettings(Section, frozen=True):
    """What is queued to be labelled, beside spot checks."""

    budget_per_day: Annotated[float, msgspec.Meta(ge=0)] = 50.0
    """Samples of each model that segwatch queues a day (of the clock, UTC) on suspicion; 0 queues none."""
    drift_share: Ratio = 0.5
    """Of the budget: for samples that are typical of a shift."""
    quality_share: Ratio = 0.3
    """For classes whose quality has dropped, or is known too loosely."""
    disagreement_share: Ratio = 0.2
    """For samples on which annotators, or two versions of the model, disagree."""
    active_share: Ratio = 0.0
    """For active learning: samples from which the model would learn most."""
    strategy: Literal["random", "greedy"] = "random"
    """``random`` draws those with a known probability, so that their labels count in estimates, too; ``greedy`` takes
    the most wanted and most different ones."""
    interval_width: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.2
    """A class's IoU is known too loosely where its interval is wider than this."""
    disagreement_iou: Ratio = 0.5
    """Two annotators or versions disagree where the IoU of a class between them is below this."""
    lease_minutes: Annotated[float, msgspec.Meta(gt=0)] = 120.0
    """How long a claimed sample is left to its claimer, unless they say otherwise."""

    def __post_init__(self) -> None:
        shares = self.drift_share + self.quality_share + self.disagreement_share + self.active_share
        if shares > 1 + 1e-9:
            raise ValueError(f"relabel: drift_share, quality_share, disagreement_share and active_share are {shares:g}")


class CanarySettings(Section, frozen=True):
    """When a new version is promoted or rolled back."""

    watch: tuple[str, ...] = ()
    """Canaries that the leader judges and whose rollback or promotion it requests, each as ``MODEL:STABLE:CANARY``."""
    automatic: bool = False
    """Watch the newest version with records of each model, too, against the active one beside it."""
    wrong_rollback: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.005
    """Chance that a canary which loses nothing is ever rolled back, however often it is looked at."""
    wrong_promotion: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    """Chance that a canary which loses ``margin`` is ever promoted for having lost less."""
    margin: Annotated[float, msgspec.Meta(gt=0, le=0.3)] = 0.02
    """Loss of IoU that a promoted canary may have."""
    most_pairs: Count = 1000
    """Labelled pairs after which a canary without any sign of loss is promoted."""
    check_seconds: Seconds = 60.0
    """How often a watched canary is judged at most."""

    def __post_init__(self) -> None:
        for one in self.watch:
            if len(one.rsplit(":", 2)) != 3 or not all(one.rsplit(":", 2)):
                raise ValueError(f"canary.watch: expected MODEL:STABLE:CANARY, got {one!r}")


class ActionSettings(Section, frozen=True):
    """What segwatch asks others to do, and whom."""

    receivers_file: str = ""
    """YAML file of those whom actions are delivered to, beside Kafka (docs/actions.md); empty for none."""
    retrain_after_windows: Annotated[int, msgspec.Meta(ge=0)] = 3
    """Ask for a retraining once so many windows on end (of the first length) have drifted and the model suffers; 0:
    never."""
    retrain_every_days: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Ask for a retraining so long after the last one, or after the baseline was activated; 0: never."""
    retrain_after_labels: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Ask for a retraining once so many inputs have been labelled since the last one; 0: never."""
    retrain_min_labels: Annotated[int, msgspec.Meta(ge=0)] = 100
    """Never ask before so many inputs have been labelled since the last request, whatever the reason."""
    cooldown_hours: Annotated[float, msgspec.Meta(ge=0)] = 24.0
    """After a request to retrain a model, or to roll a version back, the next one waits for so long."""
    deliver_within_hours: Annotated[float, msgspec.Meta(gt=0)] = 48.0
    """An action that a receiver has not taken by then is given up: what it asks for is out of date."""

    @property
    def cooldown_us(self) -> int:
        """In microseconds."""
        return round(self.cooldown_hours * 3_600_000_000)

    @property
    def deliver_within_us(self) -> int:
        """In microseconds."""
        return round(self.deliver_within_hours * 3_600_000_000)


class IngestSettings(Section, frozen=True):
    """How records are taken in."""

    chunk_records: Count = 1024
    """Most records of one transaction; fewer where they bring images, so that memory stays small."""
    queue_chunks: Count = 2
    """Chunks between two stages; when full, the partitions are paused."""
    heartbeat_seconds: Seconds = 2.0
    """How often an idle partition says that it has caught up."""


class WebSettings(Section, frozen=True):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: Port = 8600
    token: str = ""
    """Bearer token with all rights; this or another way to sign in is needed for every address but loopback. Health
    endpoints never ask for it."""
    tokens_file: str = ""
    """YAML file of tokens by name, each with its role (docs/pages.md); empty for none. Read again when it changes."""
    session_key: str = ""
    """Secret that signs the pages' sessions; empty: ``web.token``, else sessions end with the process."""
    session_hours: Annotated[float, msgspec.Meta(gt=0, le=720)] = 12.0
    """After so long, people sign in to the pages again."""
    proxy_user_header: str = ""
    """Header in which a reverse proxy names the person who is signed in there (``X-Forwarded-User``); empty: none."""
    proxy_roles_header: str = ""
    """Header in which it names their roles or groups, separated by commas; the highest role among them counts, and
    whoever has none is a viewer. Empty: all are viewers."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of the proxies whose headers are believed: those above, and the addresses that they append
    to ``X-Forwarded-For``, by which limits count."""
    tls_certificate: str = ""
    """PEM file of the certificate, with those between it and its authority; empty for plain HTTP."""
    tls_key: str = ""
    """PEM file of its key."""
    failed_sign_ins_per_minute: Count = 10
    """So many wrong tokens of one address are looked at; more are refused unseen."""
    writes_per_minute: Count = 600
    """So many changes of one person or address are taken; more are refused."""
    public_url: str = ""
    """How others reach the server, for links in actions (``https://segwatch.example``); empty means host and port."""
    refresh_seconds: Seconds = 5.0
    """How old the totals behind ``/metrics`` may be."""
    max_series: Count = 20_000
    """Most series that ``/metrics`` exports; what is cut is said by a metric of its own."""
    max_slices: Count = 200
    """Most slices of one slice key and model version that ``/metrics`` exports, the first in their order."""

    @property
    def address(self) -> str:
        """Where others reach the pages, without a slash at its end."""
        return self.public_url.rstrip("/") or f"http://{self.host}:{self.port}"


class AnnotationSettings(Section, frozen=True):
    """The annotation tool: what is pushed to it and pulled from it, and its webhooks."""

    tool: Literal["", "cvat", "labelstudio"] = ""
    """For ``relabel push`` and ``labels pull``, and for CVAT's webhook; empty means none."""
    url: str = ""
    """``https://host[:port]`` of the tool."""
    project: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Number of Label Studio's project, or of CVAT's task."""
    token: str = ""
    """CVAT: a personal access token, or ``Token KEY``. Label Studio: either kind of its access tokens."""
    image_prefix: str = ""
    """Address under which the tool finds the images, before their file names."""
    model: str = ""
    """Model whose classes the labels have; needed where there are several."""
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    """How long the tool may be silent."""
    cvat_secret: str = ""
    """Of CVAT's webhook, which signs with it; empty refuses all."""
    labelstudio_secret: str = ""
    """What Label Studio's webhook sends in the header ``X-Segwatch-Secret``; empty refuses all."""
    max_webhook_bytes: Count = 32 * 1024 * 1024
    """Larger bodies of webhooks are refused."""


class PrometheusSettings(Section, frozen=True):
    """The Prometheus that scrapes segwatch."""

    url: str = ""
    """For the budgets on the page of SLOs, ``segwatch doctor`` and links; empty means that it is not asked."""


class LogSettings(Section, frozen=True):
    """Logs and traces."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    otlp_endpoint: str = ""
    """OpenTelemetry collector (OTLP over HTTP); empty means no traces."""


class Settings(Section, frozen=True):
    """Everything that can be set."""

    data_dir: str = ".segwatch"
    """Embedded files: database, dead letters, actions."""
    store: StoreSettings = StoreSettings()
    kafka: KafkaSettings = KafkaSettings()
    windows: WindowSettings = WindowSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    images: ImageSettings = ImageSettings()
    s3: S3Settings = S3Settings()
    samples: SampleSettings = SampleSettings()
    redact: RedactSettings = RedactSettings()
    drift: DriftSettings = DriftSettings()
    quality: QualitySettings = QualitySettings()
    relabel: RelabelSettings = RelabelSettings()
    canary: CanarySettings = CanarySettings()
    actions: ActionSettings = ActionSettings()
    ingest: IngestSettings = IngestSettings()
    web: WebSettings = WebSettings()
    annotation: AnnotationSettings = AnnotationSettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    log: LogSettings = LogSettings()

    def __post_init__(self) -> None:
        if not self.windows.lengths_seconds:
            raise ValueError("windows.lengths_seconds is empty")
        for length in self.windows.lengths_seconds:
            if length % self.windows.pane_seconds:
                raise ValueError(
                    f"windows.lengths_seconds: {length} is no multiple of windows.pane_seconds"
                    f" ({self.windows.pane_seconds})"
                )
        if self.windows.allowed_lateness_seconds > self.store.retention_days * 86_400:
            # An identity that is forgotten before its record would be late could be counted a second time.
            raise ValueError(
                f"windows.allowed_lateness_seconds ({self.windows.allowed_lateness_seconds:g}) is longer than"
                f" store.retention_days ({self.store.retention_days:g})"
            )


SECTIONS: dict[str, type[Section]] = {
    field.name: field.type
    for field in msgspec.structs.fields(Settings)
    if isinstance(field.type, type) and issubclass(field.type, Section)
}


def setting_names() -> list[str]:
    """Every setting as ``section.name``, in the order of this file (``data_dir`` has no section)."""
    names = ["data_dir"]
    for section, kind in SECTIONS.items():
        names += [f"{section}.{field.name}" for field in msgspec.structs.fields(kind)]
    return names


def variable_of(name: str) -> str:
    """The environment variable of a setting: ``kafka.group_id`` -> ``SEGWATCH_KAFKA_GROUP_ID``."""
    return PREFIX + name.replace(".", "_").upper()


def load_settings(path: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    ``path`` must exist when given; without it ``segwatch.yaml`` in the working directory is read if there.
    Raises SettingsError that names the file and key, or the variable.
    """
    environ = os.environ if environ is None else environ
    tree = _read_yaml(path)
    origin = str(path or "segwatch.yaml")
    _check_names(tree, origin)
    overridden: dict[str, str] = {}
    variables = {variable_of(name): name for name in setting_names()}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX):
            continue
        name = variables.get(variable)
        if name is None and variable.endswith("_FILE"):
            name = variables.get(variable.removesuffix("_FILE"))
            if name is not None:
                try:
                    text = Path(text).read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise SettingsError(f"{variable}: cannot read {text}: {error.strerror}") from None
        if name is None:
            # No error: Kubernetes sets such variables for every service whose name begins with segwatch.
            log.warning("%s: no setting has this name, it is ignored (see docs/settings.md)", variable)
            continue
        _place(tree, name, text)
        overridden[name] = variable
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), origin, overridden)) from None


def _read_yaml(path: Path | None) -> dict[str, Any]:
    chosen = path or Path("segwatch.yaml")
    if path is None and not chosen.exists():
        return {}
    try:
        text = chosen.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{chosen}: cannot be read: {error}") from None
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{chosen}: not YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{chosen}: expected a mapping of settings, got {type(tree).__name__}")
    return tree


def _check_names(tree: dict[str, Any], origin: str) -> None:
    known = set(setting_names())
    for key, value in tree.items():
        if key in SECTIONS:
            if value is None:
                tree[key] = {}
                continue
            if not isinstance(value, dict):
                raise SettingsError(f"{origin}: {key} is a section, got {type(value).__name__}")
            for name in value:
                if f"{key}.{name}" not in known:
                    raise SettingsError(f"{origin}: no setting has the name {key}.{name} (see docs/settings.md)")
        elif key not in known:
            raise SettingsError(f"{origin}: no setting has the name {key} (see docs/settings.md)")


def _place(tree: dict[str, Any], name: str, text: str) -> None:
    section, _, key = name.rpartition(".")
    target = tree.setdefault(section, {}) if section else tree
    kind = next(f.type for f in msgspec.structs.fields(SECTIONS[section] if section else Settings) if f.name == key)
    is_list = getattr(kind, "__origin__", None) is tuple
    target[key] = [part.strip() for part in text.split(",") if part.strip()] if is_list else text


def _explain(message: str, origin: str, overridden: Mapping[str, str]) -> str:
    what, _, where = message.partition(" - at `$.")
    name = where.rstrip("`").split("[")[0]
    source = overridden.get(name)
    return f"{source or origin}: {name + ': ' if name and not source else ''}{what}"
