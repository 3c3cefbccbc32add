"""The nouns: pure functions on tables and arrays, without IO."""
