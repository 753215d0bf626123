"""AWS: ECR tokens and repositories, event payloads."""
