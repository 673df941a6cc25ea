"""NannyML's calculators of drift, with their default thresholds, the baseline cut into chunks of a window's size.

Its estimates of performance need predictions with probabilities and labels, and do not apply to embeddings.
"""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

from nannyml import DataReconstructionDriftCalculator, UnivariateDriftCalculator
from pandas import DataFrame

from bench.drift.peers.protocol import Judge, Setting, Values, Verdict, run


def _frame(values: Values) -> DataFrame:
    return DataFrame(values, columns=[f"e{index}" for index in range(values.shape[1])])


def reconstruction(baseline: Values, setting: Setting) -> Judge:
    """Error of reconstruction by principal components, 3 standard deviations of the baseline's chunks."""
    frame = _frame(baseline)
    calculator = DataReconstructionDriftCalculator(column_names=list(frame), chunk_size=setting.records)
    calculator.fit(frame)
    usual = float(calculator.result.to_df()["reconstruction_error", "value"].mean())

    def judge(window: Values) -> Verdict:
        row = calculator.calculate(_frame(window)).filter(period="analysis").to_df()["reconstruction_error"].iloc[0]
        return Verdict(bool(row["alert"]), None, abs(float(row["value"]) - usual))

    return judge


def univariate(baseline: Values, setting: Setting) -> Judge:
    """Jensen-Shannon distance of each dimension; an alert of any is an alarm, the largest distance the score."""
    frame = _frame(baseline)
    calculator = UnivariateDriftCalculator(
        column_names=list(frame), continuous_methods=["jensen_shannon"], chunk_size=setting.records
    )
    calculator.fit(frame)

    def judge(window: Values) -> Verdict:
        row = calculator.calculate(_frame(window)).filter(period="analysis").to_df().iloc[0]
        alert = any(bool(row[name, "jensen_shannon", "alert"]) for name in frame)
        return Verdict(alert, None, max(float(row[name, "jensen_shannon", "value"]) for name in frame))

    return judge


if __name__ == "__main__":
    run({"PCA reconstruction": reconstruction, "JS of each dimension": univariate})
