"""What the benchmarks of SLO rules stand on: a real Prometheus over backfilled data."""
