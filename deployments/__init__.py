"""How the pipeline is deployed: work pools, automations, the workers' image and units, CloudFormation."""
