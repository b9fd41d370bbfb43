"""A copy of a file in S3-compatible storage."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from core.errors import StoreUnavailable, ToolMissing

TRIES = 4


class Store(NamedTuple):
    """`address`: s3://bucket/prefix. Without a key boto3 looks for one itself: environment, ~/.aws, the host's role."""

    address: str
    endpoint: str | None
    key: str | None
    secret: str | None


def upload(path: Path, store: Store) -> str:
    """Copy a file, in parts where it is large; its address there. Raises StoreUnavailable, ToolMissing."""
    try:
        import boto3
        from boto3.exceptions import Boto3Error
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError
    except ModuleNotFoundError:
        raise ToolMissing(
            "boto3 is not installed, which NAVKEEPER_BACKUP_S3 needs: pip install -r requirements-s3.in"
        ) from None
    place = urlsplit(store.address)
    name = f"{place.path.strip('/')}/{path.name}".lstrip("/")
    try:
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint,
            aws_access_key_id=store.key,
            aws_secret_access_key=store.secret,
            config=Config(retries={"max_attempts": TRIES, "mode": "standard"}),
        )
        client.upload_file(str(path), place.netloc, name)  # in parts from 8 MB on
        stored = client.head_object(Bucket=place.netloc, Key=name)["ContentLength"]
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise StoreUnavailable(f"{path.name} was not copied to {store.address}: {error}") from None
    if stored != path.stat().st_size:
        raise StoreUnavailable(f"{store.address} has {stored} bytes of {path.name}'s {path.stat().st_size}")
    return f"s3://{place.netloc}/{name}"
