"""Is a new version as good as the old one? Differences with intervals, and a test that may be looked at any time."""
