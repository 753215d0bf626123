"""The actions of IAM that this project needs in ECR, by what they are for; the one list of them.

`deployments/cloudformation/roles.yaml` grants these and no others of ECR, which a test compares. For the distribution
API see the ECR user guide, "Amazon ECR Docker and OCI permissions".
"""

from typing import Final

LOGIN: Final = ("GetAuthorizationToken",)
"""`ecr.EcrCredentials`; for every repository (``*``)."""

PULL: Final = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
"""Reading manifests, referrers and blobs: `registry.manifests`, `registry.referrers`, `registry.blobs`."""

PUSH: Final = (
    "BatchCheckLayerAvailability",
    "CompleteLayerUpload",
    "InitiateLayerUpload",
    "PutImage",
    "UploadLayerPart",
)
"""Uploads and manifests: `registry.upload`, `registry.manifests`."""

CHECK: Final = ("DescribeRepositories", "GetLifecyclePolicy")
"""What a publication looks at before the build: `repository.ensure_repository`."""

CREATE: Final = ("CreateRepository", "PutLifecyclePolicy")
"""Making a repository that is missing, where the settings say so: `repository.ensure_repository`."""

DELETE: Final = ("BatchDeleteImage",)
"""`ecr_images.EcrImages`."""

PRUNE: Final = (*DELETE, "DescribeImages", "ListImages")
"""Retention: `ecr_images.EcrImages`, and the list of tags."""
