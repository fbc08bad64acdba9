"""What a query answers with: a row that is read by column name."""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy import RowMapping

Row: TypeAlias = RowMapping
