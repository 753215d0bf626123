"""AWS: ECR, ECS, CodeCommit, secrets, event payloads."""
