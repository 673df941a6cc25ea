"""The demo's world: scenes from data that packages ship, and the traffic that a model makes of them."""
