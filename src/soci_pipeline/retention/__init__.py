"""Retention: decides which manifests of a repository to delete, and deletes them in an order that breaks no tag."""
