"""Every knob, as one frozen tree: flags win over the environment (`PENSTOCK_KAFKA__GROUP_ID`), the environment over a TOML file.

An unknown name, a wrong value or a contradiction refuses to start and says which setting it is. A file here holds the groups of one
subject, `tree` gathers them, `loading` reads them.
"""

from pipeline.settings.answers import ResponseCacheSettings, StreamSettings
from pipeline.settings.bulk import BulkSettings
from pipeline.settings.computing import DeviceChoice, DtypeChoice, EngineSettings, KernelCompiling, TargetSettings
from pipeline.settings.group import Group
from pipeline.settings.intake import AdmissionSettings, LimitSettings, Overflow
from pipeline.settings.jobs import JobsSettings, OfflineSettings
from pipeline.settings.kafka import KafkaSettings, RequestTopic
from pipeline.settings.loading import BadConfiguration, load
from pipeline.settings.models import SHIPPED, Dialect, EngineKind, ModelSettings
from pipeline.settings.process import HttpSettings, LogFormat, LogSettings
from pipeline.settings.tenants import RateLimitSettings, RateSettings, StoreLoss, Tenant
from pipeline.settings.tree import ENV_PREFIX, Settings, TransportKind
from schemas.limits import MIB

__all__ = [
    "ENV_PREFIX",
    "MIB",
    "SHIPPED",
    "AdmissionSettings",
    "BadConfiguration",
    "BulkSettings",
    "DeviceChoice",
    "Dialect",
    "DtypeChoice",
    "EngineKind",
    "EngineSettings",
    "Group",
    "HttpSettings",
    "JobsSettings",
    "KafkaSettings",
    "KernelCompiling",
    "LimitSettings",
    "LogFormat",
    "LogSettings",
    "ModelSettings",
    "OfflineSettings",
    "Overflow",
    "RateLimitSettings",
    "RateSettings",
    "RequestTopic",
    "ResponseCacheSettings",
    "Settings",
    "StoreLoss",
    "StreamSettings",
    "TargetSettings",
    "Tenant",
    "TransportKind",
    "load",
]
