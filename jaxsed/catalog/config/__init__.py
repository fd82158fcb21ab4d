"""The configuration of a run: its sections and the types of their keys."""

from jaxsed.catalog.config.sections import Config, config_schema, load_config, parse_config

__all__ = ["Config", "config_schema", "load_config", "parse_config"]
