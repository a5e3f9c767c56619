"""Roles of cache methods: scorers."""
