from bridge.api import backfill as backfill
from bridge.api import ingest as ingest
from bridge.cluster.connection import connect as connect
from bridge.errors import BridgeError as BridgeError
from bridge.models.cross_encoder import CrossEncoder as CrossEncoder
from bridge.models.encoder import Encoder as Encoder
from bridge.settings import load_settings as load_settings

__version__: str
