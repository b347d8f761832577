"""Operations: the durable work."""
