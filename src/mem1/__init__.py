"""mem1: LLM agents whose context never grows."""
