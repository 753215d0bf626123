"""AWS: ECR, ECS, CodeCommit, secrets, Auto Scaling groups and their instances, event payloads."""
