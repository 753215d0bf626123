"""What `soci-pipeline setup` creates on a Prefect server: work pools, automations and block types."""
