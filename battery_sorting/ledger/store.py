"""The ledger as it lies on the disk. Loads SQLAlchemy: what only needs records imports the package itself."""

from ._engine import probe
from ._images import ImageStore
from ._ledger import Ledger
from ._models import SCHEMA_REVISION
from ._side_records import SideRecords
from ._transaction import Transaction

__all__ = ["SCHEMA_REVISION", "ImageStore", "Ledger", "SideRecords", "Transaction", "probe"]
