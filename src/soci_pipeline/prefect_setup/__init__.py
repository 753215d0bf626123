"""What `soci-pipeline setup` makes on a Prefect server for the deployments: work pools, automations and block types."""
