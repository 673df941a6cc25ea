"""Tests against the real thing: Kafka, PostgreSQL, Prometheus. Each server starts once per session, on free ports."""
