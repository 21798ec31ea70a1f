"""Without an orchestrator: Bacalhau's frames become executions, and what these prove becomes events. Pure."""

from consumer.derive.derivation import Derivation, DerivationSettings

__all__ = ["Derivation", "DerivationSettings"]
