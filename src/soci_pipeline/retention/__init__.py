"""Retention: which manifests of a repository may go, and their deletion in an order that breaks no tag."""
