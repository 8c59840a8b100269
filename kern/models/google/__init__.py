"""Google's Gemini models: `generateContent`, over plain HTTP."""

from kern.models.google.gemini import Gemini

__all__ = ["Gemini"]
