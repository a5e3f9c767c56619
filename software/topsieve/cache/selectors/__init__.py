"""Roles of cache methods: selectors."""
