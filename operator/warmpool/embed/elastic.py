"""Elasticsearch as the settings describe it."""

from pydantic import SecretStr

from warmpool.effects.elastic import ElasticHistory, ElasticLogin
from warmpool.settings import Settings


def open_elastic(settings: Settings) -> ElasticHistory:
    """History in the data stream that the settings name."""
    login = ElasticLogin(
        urls=settings.elasticsearch_urls,
        api_key=_shown(settings.elasticsearch_api_key),
        user=settings.elasticsearch_user,
        password=_shown(settings.elasticsearch_password),
        ca_file=settings.elasticsearch_ca_file,
    )
    return ElasticHistory(login, settings.elasticsearch_stream, max_age=settings.history_age)


def _shown(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
