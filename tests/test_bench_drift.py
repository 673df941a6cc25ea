"""The drift benchmark's own parts: scenarios do what their names say, and the table shows what was measured."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.drift import contenders, delay, month, scenarios, segwatch, state, table
from bench.drift.environments import RUNNERS, PeerMissing, peers
from bench.drift.figures import EMBEDDINGS, FIGURES, Row
from bench.drift.judgement import Judgement, binomial_error, first_at_or_above, limit_for, power, threshold
from bench.drift.peers.protocol import Judge, Setting, Values, Verdict, bonferroni, climb, run
from bench.drift.scenarios import Case, Shift


class TestScenarios:
    def test_equal_cases_are_equal_numbers_and_others_are_not(self) -> None:
        case = Case("raw", 40, 150)
        assert case.blocks == 2
        assert scenarios.windows(case, 0).shape == (100, 40, 64)
        assert scenarios.windows(case, 1).shape == (50, 40, 64)
        np.testing.assert_array_equal(scenarios.windows(case, 1), scenarios.windows(Case("raw", 40, 150), 1))
        for other in (replace(case, seed=1), replace(case, stream="other"), replace(case, records=41)):
            assert scenarios.windows(other, 0)[0, 0, 0] != scenarios.windows(case, 0)[0, 0, 0]

    def test_a_fresh_baseline_for_every_block_and_the_same_for_every_stream(self) -> None:
        case = Case("l2", 30, 200, baseline_records=50)
        assert not np.array_equal(scenarios.baseline(case, 0), scenarios.baseline(case, 1))
        other = replace(case, stream="drifted", shift=Shift(1, 0.5), records=60)
        np.testing.assert_array_equal(scenarios.baseline(case, 1), scenarios.baseline(other, 1))

    def test_embeddings_are_what_they_are_called(self) -> None:
        raw, relu, l2 = (scenarios.baseline(Case(name, 30, 1), 0) for name in EMBEDDINGS)
        assert abs(raw.std(0) - 1).max() < 0.05
        correlation = np.asarray(np.corrcoef(raw.T))[np.triu_indices(64, 1)]
        assert 0.1 < np.abs(correlation).mean() < 0.3
        zeros = (relu == 0).mean(0)
        assert relu.min() == 0
        assert zeros.min() < 0.2 < 0.8 < zeros.max()
        np.testing.assert_allclose(np.linalg.norm(l2, axis=1), 1, rtol=1e-5)

    @pytest.mark.parametrize("embedding", EMBEDDINGS)
    def test_windows_come_from_where_the_baseline_does(self, embedding: scenarios.Embedding) -> None:
        case = Case(embedding, 500, 4)
        baseline, values = scenarios.baseline(case, 0), scenarios.windows(case, 0).reshape(-1, 64)
        p_values = [stats.ks_2samp(baseline[:, d], values[:, d]).pvalue for d in range(64)]
        assert min(p_values) * 64 > 0.01

    def test_a_shift_moves_its_dimensions_alone(self) -> None:
        case = Case("independent", 1000, 20, shift=Shift(2, 0.5))
        moved = scenarios.windows(case, 0).mean((0, 1))
        np.testing.assert_allclose(moved[:2], 0.5, atol=0.04)
        np.testing.assert_allclose(moved[2:], 0, atol=0.04)

    def test_frames_are_correlated_within_sequences_and_not_across(self) -> None:
        case = Case("independent", 600, 10, ar=0.9)
        values = scenarios.windows(case, 0)
        assert abs(values.std() - 1) < 0.05
        pairs = values[:, :-1] * values[:, 1:]
        last = np.arange(599) % 200 == 199
        assert abs(pairs[:, ~last].mean() - 0.9) < 0.05
        assert abs(pairs[:, last].mean()) < 0.1
        assert scenarios.sequence_names(401, case, "w")[199:201] == ["w0", "w1"]
        assert scenarios.sequence_names(2, Case("raw", 2, 1), "w") == ["", ""]


class TestJudgement:
    def test_a_threshold_lets_the_wanted_share_pass(self) -> None:
        scores = np.random.default_rng(0).permutation(np.arange(1000.0)).tolist()
        limit = threshold(scores, 0.01)
        assert sum(score > limit for score in scores) == 10
        assert threshold([1.0, 2.0], 0.01) == 2.0
        with pytest.raises(ValueError, match="no drift-free windows"):
            threshold([], 0.01)

    def test_power_counts_what_is_above_it(self) -> None:
        calm = Judgement(100, None, None, [float(index) for index in range(100)])
        moved = Judgement(4, None, None, [97.0, 98.0, 98.5, 200.0])
        assert power(calm, moved, 0.01) == 0.5
        assert power(calm, Judgement(4, [True] * 4, None, None), 0.01) is None

    def test_shares(self) -> None:
        said = Judgement(4, [True, False, False, False], [0.01, 0.5, 0.02, 0.9], None)
        assert said.alarm_rate() == 0.25
        assert said.share_of_small_p(0.01) == 0.25
        assert Judgement(0, None, None, None, failure="broken").alarm_rate() is None
        assert binomial_error(0.0, 200) > 0

    def test_limits_give_the_wanted_run_length(self) -> None:
        rng = np.random.default_rng(3)
        paths = [climb(rng.exponential(size=4000).tolist()) for _ in range(200)]
        limit = limit_for(paths, 1000, 4000)
        assert limit is not None
        lengths = [first_at_or_above(path, limit, 4000) for path in paths]
        assert 1000 <= np.mean(lengths) < 1050
        # An exponential statistic exceeds log(1000) once in 1,000 records; runs cut at 4,000 move that a little.
        assert abs(limit - math.log(1000)) < 0.3
        assert limit_for([climb([1.0])], 1000, 500) is None


class TestPeers:
    def test_each_has_a_runner_and_exact_versions_and_names_no_host(self) -> None:
        assert set(peers()) == {"alibi_detect", "evidently", "frouros", "nannyml", "river"}
        for peer in peers():
            assert (RUNNERS / f"{peer}.py").exists()
            lines = (RUNNERS / f"{peer}.txt").read_text().splitlines()
            wanted = [line for line in lines if not line.startswith("#")]
            assert wanted
            assert all(line.count("==") == 1 and "://" not in line and not line.startswith("-") for line in wanted)

    def test_a_runner_judges_windows_against_their_own_baselines(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def distance(baseline: Values, setting: Setting) -> Judge:
            centre = float(baseline.mean())

            def judge(window: Values) -> Verdict:
                if window.shape != (setting.records, 1):
                    raise ValueError("another shape than was said")
                score = abs(float(window.mean()) - centre)
                return Verdict(score > 1, None, score)

            return judge

        def broken(baseline: Values, setting: Setting) -> Judge:
            raise RuntimeError("no such thing")

        np.savez(
            tmp_path / "case.npz",
            baselines=np.array([np.zeros((5, 1)), np.full((5, 1), 10.0)]),
            windows=np.array([np.zeros((2, 1)), np.full((2, 1), 2.0), np.full((2, 1), 10.0)]),
            per_baseline=2,
            score_only=False,
            online=False,
        )
        result = tmp_path / "result.json"
        with monkeypatch.context() as context, warnings.catch_warnings():
            context.setattr("sys.argv", ["runner", str(result), "10", str(tmp_path / "case.npz")])
            run({"distance": distance, "broken": broken})
        said = json.loads(result.read_text())["case"]
        assert said["distance"]["scores"] == [0.0, 2.0, 0.0]
        assert said["distance"]["alarms"] == [False, True, False]
        assert said["distance"]["p_values"] is None
        assert said["broken"]["windows"] == 0
        assert said["broken"]["failure"] == "RuntimeError: no such thing"
        assert Judgement(**said["distance"]).alarm_rate() == pytest.approx(1 / 3)

    def test_bonferroni(self) -> None:
        assert bonferroni(np.array([0.01, 0.5])) == 0.02
        assert bonferroni(np.array([0.9, 0.8])) == 1.0

    def test_a_peer_that_cannot_be_run_is_a_row_and_no_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from bench.drift import __main__ as command

        def missing(*_: object, **__: object) -> None:
            raise PeerMissing("pip: nothing found")

        monkeypatch.setattr(contenders, "judge", missing)
        (row,) = command.measure("identical", "river", command.QUICK)
        assert row["failure"] == "pip: nothing found"
        assert "pip: nothing found" in table.page([row])


class TestSegwatch:
    def test_its_verdicts_say_no_more_than_they_should(self) -> None:
        verdicts = segwatch.judge(Case("relu", 100, 60, baseline_records=2000))
        assert verdicts.statuses == ("ok",)
        assert verdicts.judgement.windows == 60
        rate = verdicts.judgement.alarm_rate()
        assert rate is not None
        assert rate <= 0.1

    def test_a_large_shift_is_always_seen(self) -> None:
        case = Case("independent", 100, 20, baseline_records=2000, shift=Shift(1, 2.0))
        assert segwatch.judge(case).judgement.alarm_rate() == 1.0

    def test_a_day_has_all_its_verdicts_and_the_budget_adds_up(self) -> None:
        of_all, of_slice = month.alphas()
        assert month.HOURS * (of_all + month.SLICES * of_slice) == pytest.approx(month.BUDGET)
        values = month.records(np.random.default_rng(0), 4000)
        assert values.shape == (4000, month.layout().width)
        assert abs(values[:, : month.COMPONENTS].std(0) - 1).max() < 0.1
        np.testing.assert_array_equal(values[:, month.COMPONENTS + 3 : -2].sum(1), values[:, -1])

    def test_states_merge_alike_in_any_order(self) -> None:
        measured = state.measure()
        assert measured.identical
        assert all(0 < size < 32 << 10 for size in measured.per_sequence.values())

    def test_delays_are_taken_at_equal_run_length(self) -> None:
        calm = [[(1, 0.0), (first, 1.0), (2 * first, 2.0)] for first in (400, 500, 600)]
        moved = [[(1, 0.0), (5, 1.0), (30, 3.0)]]
        judged: delay.Paths = {
            "one": {
                None: Judgement(3, None, None, None, calm),
                Shift(1, 1.0): Judgement(1, None, None, None, moved),
            },
            "without": {None: Judgement(0, None, None, None, failure="broken")},
        }
        found = delay.delays(judged)
        assert found["one"]["run_length"] == 1000
        assert found["one"]["delays"] == {"1 sigma in 1": 30.0}
        assert found["without"]["failure"] == "broken"


def rate(contender: str, method: str, records: int, share: float | None, alarms: float | None) -> Row:
    return {
        "figure": "identical",
        "contender": contender,
        "method": method,
        "case": f"raw n={records}",
        "embedding": "raw",
        "records": records,
        "windows": 1000,
        "p_share": share,
        "p_share_error": 0.003,
        "alarm_rate": alarms,
        "failure": "",
    }


class TestTable:
    def test_targets_are_held_against_what_was_reached(self) -> None:
        rows = [rate("segwatch", "", 30, 0.011, 0.009), rate("segwatch", "", 100, 0.02, 0.012)]
        page = table.page(rows)
        assert "| 1.10 % to 2.00 % | 1 of 2 cases |" in page
        assert "| at most 1.20 % | yes |" in page
        assert "**no**" in table.page([rate("segwatch", "", 30, 0.011, 0.02)])

    def test_a_peer_shows_alarms_and_p_values_where_it_has_them(self) -> None:
        rows = [rate("river", "ADWIN", 30, None, 0.5), rate("alibi_detect", "KS", 30, 0.25, 0.125)]
        page = table.page(rows)
        assert "| river | ADWIN | 50.0 % | 1000 to 1000 |" in page
        assert "| alibi_detect | KS | 12.5 % (25.0 %) | 1000 to 1000 |" in page
        assert page.index("alibi_detect") < page.index("river")

    def test_power_is_held_against_the_best_peer_within_its_error(self) -> None:
        case = "0.5 sigma in 1 of 64, n=100"
        row = {"figure": "power", "method": "", "case": case, "drift_free_windows": 100, "failure": ""}
        own: Row = {**row, "contender": "segwatch", "windows": 1000, "power": 0.8}
        close: Row = {**row, "contender": "frouros", "windows": 100, "power": 0.85}
        better: Row = {**row, "contender": "frouros", "windows": 1000, "power": 0.9}
        without: Row = {**row, "contender": "river", "windows": 1000, "power": None}
        assert "| 0.800 | yes |" in table.page([own, without])
        assert "| 0.800 (best peer 0.850: frouros, ) | yes |" in table.page([own, close, without])
        assert "| 0.800 (best peer 0.900: frouros, ) | **no** |" in table.page([own, close, better])

    def test_every_figure_has_a_place(self) -> None:
        assert set(FIGURES) == {
            *("state", "cost", "memory", "identical", "correlated", "power", "delay", "run_length", "months")
        }
        assert table.page([]).startswith("# Drift")
