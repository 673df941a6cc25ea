"""SLO files to Prometheus rules: ``parse`` -> ``spec`` -> ``kinds`` (which events) -> ``windows`` -> ``render``."""
