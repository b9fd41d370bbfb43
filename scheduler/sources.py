"""Which source a name means: the settings' addresses, limits and token, given to the domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from config.settings import Settings
    from core.sources.base import Source

TUSHARE_REQUESTS_PER_SECOND = 3.0  # an ordinary account may ask 200 times a minute


def make_source(settings: Settings, spec: str | None = None) -> Source:
    """The source named `spec` or by the settings: "eastmoney", "tushare", or a file or folder.

    Raises `ConfigurationError` for tushare without a token.
    """
    wanted = spec or settings.source
    if wanted == "eastmoney":
        from core.sources.eastmoney import EastmoneySource

        return EastmoneySource(
            settings.eastmoney_fund_url,
            settings.eastmoney_api_url,
            settings.eastmoney_quote_url,
            requests_per_second=settings.requests_per_second,
            concurrency=settings.concurrency,
        )
    if wanted == "tushare":
        return _tushare(settings)
    from core.sources.files import FilesSource

    return FilesSource(wanted)


def _tushare(settings: Settings) -> Source:
    from core.sources.tushare import TushareSource

    if settings.tushare_token is None:
        raise ConfigurationError(
            "the source tushare needs your token: set NAVKEEPER_TUSHARE_TOKEN (https://tushare.pro/user/token)"
        )
    # To a server of one's own (a mirror, the stand-in) the account's limit does not apply.
    official = settings.tushare_url == type(settings).model_fields["tushare_url"].default
    rate = settings.requests_per_second
    return TushareSource(
        settings.tushare_token.get_secret_value(),
        settings.tushare_url,
        requests_per_second=min(rate, TUSHARE_REQUESTS_PER_SECOND) if official else rate,
    )
