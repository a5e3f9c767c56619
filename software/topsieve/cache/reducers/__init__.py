"""Roles of cache methods: reducers."""
