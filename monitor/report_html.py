"""Renders a window's comparison with Evidently, under segwatch's own verdict. Evidently is loaded here, when called."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from monitor.errors import InputError, SegwatchError
from monitor.report import MOST_ROWS, Comparison

POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:;"
    " base-uri 'none'; form-action 'none'"
)
"""Evidently puts its scripts and fonts into the page; with this, the browser asks nobody for anything else."""

HEADER: Final = """
<section style="font: 14px/1.5 sans-serif; max-width: 75rem; margin: 1.5rem auto; padding: 0 1rem">
<h1 style="font-size: 1.5rem">{{ model }} version {{ version }}{% if slice %}, {{ slice }}{% endif %}:
  {{ start }} to {{ end }}</h1>
<p>{{ records }} records in {{ sequences }} sequences, against {{ baseline_records }} records of baseline
  {{ baseline[:12] }}.</p>
<h2 style="font-size: 1.2rem">Verdict of segwatch</h2>
<p><strong>{{ "Alarm" if alarm else "No alarm" }}</strong> ({{ status }}), harm {{ harm }}, at a false-alarm rate of
  {{ number(alpha) }} for this window{% if supported_alpha > alpha %}; its sequences support no rate below
  {{ number(supported_alpha) }}{% endif %}.</p>
<table cellpadding="6" style="border-collapse: collapse; text-align: left">
<tr><th>Signal</th><th>p-value</th><th>js (bits)</th><th>threshold</th><th>js within the baseline</th><th>alarm</th>
  <th>share of the alarm</th></tr>
{% for score in scores -%}
<tr><td>{{ score.signal }}</td><td>{{ number(score.p_value) }}</td><td>{{ number(score.js) }}</td>
  <td>{{ number(score.threshold) }}</td><td>{{ number(score.baseline_js) }}</td>
  <td>{{ "ALARM" if score.alarm else "no" }}</td><td>{{ number(shares.get(score.signal)) }}</td></tr>
{% endfor -%}
</table>
{% if dimensions %}<p>Largest shares by column: {% for one in dimensions[:8] -%}
  {{ one.signal }}: {{ one.dimension }} {{ number(one.share) }}{{ ", " if not loop.last }}{% endfor %}.</p>{% endif %}
{% if slices %}<p>By slice: {% for one in slices[:8] -%}
  {{ one.slice }} {{ number(one.share) }}{{ ", " if not loop.last }}{% endfor %}.</p>{% endif %}
<h2 style="font-size: 1.2rem">Evidently's report</h2>
<p>Below, "reference" is the baseline and "current" the window. segwatch keeps counts over the baseline's bins, not
  records: each value is the representative of its bin (its middle; a constant itself; for the open ends half the width
  of the neighbouring bin beyond the edge), and each column has its own order, so rows do not correspond to records.
  Shares of bins and of missing values are exact up to {{ most_rows }} values a side, and scaled to that above.
  Distances are normed Wasserstein distances of single columns.
  Evidently's own drift flags have no stated false-alarm rate; the verdict above has.</p>
{% if left_out %}<p>Left out, since only one side has any values: {{ left_out | join(", ") }}.</p>{% endif %}
</section>
"""


def report_html(comparison: Comparison) -> str:
    """The whole page, self-contained. Raises SegwatchError where Evidently is not installed."""
    page = _evidently(comparison)
    scored = comparison.scored
    title = f"segwatch: {scored.model} version {scored.version}"
    head = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{_escaped(title)}</title>'
    # The first of each is the page's own: no column's name has a "<" in it (report.frame).
    for mark, more in (("<head>", head), ("<body>", _header(comparison))):
        before, found, after = page.partition(mark)
        if not found:
            raise SegwatchError(f"Evidently's page has no {mark}: this release of it is not known to segwatch")
        page = before + mark + more + after
    return page


def _header(comparison: Comparison) -> str:
    import jinja2

    shown = comparison.scored.to_json()
    template = jinja2.Environment(autoescape=True).from_string(HEADER)
    return template.render(
        **shown,
        shares={one["signal"]: one["share"] for one in shown["attribution"]},
        baseline_records=comparison.baseline_records,
        left_out=comparison.left_out,
        most_rows=MOST_ROWS,
        number=lambda value: "-" if value is None else f"{value:.3g}",
    )


def _escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))


def _evidently(comparison: Comparison) -> str:
    # Its interface, which is not used here, would report its use; this says no to that as well.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    with warnings.catch_warnings():
        # It uses what numpy and litestar deprecate, and divides by the width of constants.
        warnings.simplefilter("ignore")
        try:
            import pandas
            from evidently import DataDefinition, Dataset, Report
            from evidently.presets import DataDriftPreset
        except ImportError as error:
            raise SegwatchError(f"segwatch report needs the extra 'report', with Evidently ({error})") from None
        definition = DataDefinition(numerical_columns=list(comparison.window), categorical_columns=[])

        def dataset(columns: Any) -> Any:
            return Dataset.from_pandas(pandas.DataFrame(columns), data_definition=definition)

        # A distance at every size: left to itself, Evidently tests below 1,000 rows, as if they were independent.
        report = Report([DataDriftPreset(num_method="wasserstein")], include_tests=False)
        snapshot = report.run(dataset(comparison.window), dataset(comparison.baseline))
        page: str = snapshot.get_html_str(as_iframe=False)
    return page


def write_page(file: Path, make: Callable[[], str]) -> None:
    """Write what ``make`` returns, in place of ``file`` once it is whole; no trace is left where it does not get there.

    The path is tried before the work. Raises InputError where it cannot be written.
    """
    target = Path(os.path.realpath(file))
    if target.exists() and not target.is_file():
        raise InputError(f"{file}: not a regular file")  # a rename would replace /dev/null itself
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with _told(file):
        stream = beside.open("x", encoding="utf-8")
    try:
        page = make()
        with _told(file):
            stream.write(page)
            stream.close()
            beside.replace(target)
    finally:
        stream.close()
        beside.unlink(missing_ok=True)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{file}: cannot be written: {error.strerror or error}") from None
