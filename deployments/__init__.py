"""How the pipeline is run for real: work pools, automations, the workers' image and units, CloudFormation."""
