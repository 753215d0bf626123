"""All ECR actions of IAM that this project needs, grouped by purpose.

`deployments/cloudformation/roles.yaml` grants these and no other ECR actions; a test compares them. For the
distribution API see the ECR user guide, "Amazon ECR Docker and OCI permissions".
"""

from typing import Final

LOGIN: Final = ("GetAuthorizationToken",)
"""Login, on all resources (``*``): `ecr.EcrCredentials`."""

PULL: Final = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
"""Read manifests, referrers and blobs: `registry.manifests`, `registry.referrers`, `registry.blobs`."""

PUSH: Final = (
    "BatchCheckLayerAvailability",
    "CompleteLayerUpload",
    "InitiateLayerUpload",
    "PutImage",
    "UploadLayerPart",
)
"""Upload blobs and manifests: `registry.upload`, `registry.manifests`."""

CHECK: Final = ("DescribeRepositories", "GetLifecyclePolicy")
"""Check the repository before the build: `repository.ensure_repository`."""

CREATE: Final = ("CreateRepository", "PutLifecyclePolicy")
"""Create a missing repository if the settings say so: `repository.ensure_repository`."""

DELETE: Final = ("BatchDeleteImage",)
"""Delete images: `ecr_images.EcrImages`."""

PRUNE: Final = (*DELETE, "DescribeImages", "ListImages")
"""Retention: `ecr_images.EcrImages`, and listing tags."""
