"""Asking Kubernetes who somebody is, and what they may."""

from collections.abc import Mapping
from typing import Any, Protocol


class Reviews(Protocol):
    """The API server's reviews: TokenReview, SubjectAccessReview."""

    async def review(self, group: str, kind: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
        """The status of a review: what the API server answers.

        Raises:
            ClusterError: it did not.
        """
        ...
