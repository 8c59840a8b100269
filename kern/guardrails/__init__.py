"""Guardrails: hooks that refuse a run, or clean what goes in and comes out."""

from kern.guardrails.base import BaseGuardrail
from kern.guardrails.pii import PIIDetectionGuardrail
from kern.guardrails.prompt_length import PromptLengthGuardrail

__all__ = ["BaseGuardrail", "PIIDetectionGuardrail", "PromptLengthGuardrail"]
