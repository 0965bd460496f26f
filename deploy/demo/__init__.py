"""The demo: the whole product on a real model and real data, driven as a user would drive it."""
